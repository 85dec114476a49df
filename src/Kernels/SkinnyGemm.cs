using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Products with at most 16 rows of x at the speed of the memory: y[m, n] = Σ_k x[m, k] · W[n, k] through tensor cores, the
/// weights as the 16-row operand and the rows of x as its 8 columns.
/// </summary>
/// <remarks>
/// A block has 32 rows of W. Its warps take turns along K, 64 bytes of each row at a time (a chunk), and add up through shared
/// memory in warp order. Lane (g, t) loads a 16-byte word of the rows g, g + 8, g + 16 and g + 24 straight into registers; a dot product does not care
/// how k is permuted as long as both operands agree, so a lane feeds its own consecutive codes to consecutive mma's and needs no
/// shuffles. Two or three chunks are in registers, each refilled right after it is multiplied, without a branch or a copied
/// register: either would make the warp wait for a load that it does not need yet. x comes through L1, which the weights pass by. In a graph
/// the first chunks are requested while the launch before this one still runs: weights are not its output. A column of an mma does
/// not see the other columns and the number of warps depends on N, K and format only, so a row of x has the same bits for every M of 1..16.
/// </remarks>
internal static class SkinnyGemm
{
    public const int Rows = 32;
    public const int MostWarps = 16;

    /// <summary>Most rows of x.</summary>
    public const int MostInputs = 2 * Columns;

    /// <summary>Columns of one tile of x; two tiles serve 9..16 rows.</summary>
    public const int Columns = 8;

    /// <summary>Bytes of a row that a warp multiplies at once.</summary>
    public const int ChunkBytes = 64;

    private const int ChunkWords = ChunkBytes / 4;

    /// <summary>Dynamic shared memory of a block: one sum a warp, row and column.</summary>
    public static int SharedBytes(int warps, int m) => warps * (m > Columns ? 2 : 1) * Rows * Columns * sizeof(float);

    /// <summary>Where a lane reads: its words of the first chunk of four rows and of its columns of x, and the rows' first scales.</summary>
    private struct Place
    {
        public ArrayView<uint> Row0, Row1, Row2, Row3;
        public ArrayView<uint> Input0, Input1;
        public int Scales0, Scales1, Scales2, Scales3;
    }

    public static void Run<TFormat, TOutput, TTiles>(LinearArgs a)
        where TFormat : struct, IStreamedFormat
        where TOutput : struct, IOutput
        where TTiles : struct, ITiles
    {
        int lane = Group.IdxX & 31, turn = Group.IdxX >> 5, warps = Group.DimX >> 5;
        int chunks = a.K / ChunkCodes<TFormat>();
        Place place = Locate<TFormat>(a, lane);
        SkinnyAccumulators sums = default;
        if (turn >= chunks)
        {
            GridDependency.Release();
            GridDependency.Wait();
        }
        else if (TwoBuffers<TFormat, TTiles>())
        {
            StreamTwo<TFormat, TTiles>(a, place, (turn, chunks, warps), ref sums);
        }
        else
        {
            StreamThree<TFormat, TTiles>(a, place, (turn, chunks, warps), ref sums);
        }
        // What is left of K is the turn of the warp after the last full chunk.
        if (chunks * ChunkCodes<TFormat>() < a.K && chunks % warps == turn)
            MultiplyRest<TFormat, TTiles>(a, place, chunks, lane, ref sums);
        SkinnySums.Add<TFormat, TOutput, TTiles>(a, sums);
    }

    // Where decoding or a second tile of x need many registers, a third chunk would cost more than it hides (docs/kernels/gemv.md).
    private static bool TwoBuffers<TFormat, TTiles>()
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles => TFormat.HasGroupScales || (TTiles.Count == 2 && TFormat.CodesPerWordShift > 1);

    // Chunks in registers are refilled as soon as they are multiplied: no register is copied, so nothing waits for a load but the
    // multiplication that needs it. Past the end the last chunk is read again.
    private static void StreamThree<TFormat, TTiles>(LinearArgs a, Place place, (int First, int Count, int Step) chunks, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        (int c, int count, int step) = chunks;
        int last = count - 1;
        SkinnyChunk first = Load<TFormat>(a, place, c);
        SkinnyChunk second = Load<TFormat>(a, place, IntrinsicMath.Min(c + step, last));
        SkinnyChunk third = Load<TFormat>(a, place, IntrinsicMath.Min(c + (2 * step), last));
        GridDependency.Release();
        GridDependency.Wait();
        for (; c + (2 * step) < count; c += 3 * step)
        {
            Multiply<TFormat, TTiles>(place, first, c, ref sums);
            first = Load<TFormat>(a, place, IntrinsicMath.Min(c + (3 * step), last));
            Multiply<TFormat, TTiles>(place, second, c + step, ref sums);
            second = Load<TFormat>(a, place, IntrinsicMath.Min(c + (4 * step), last));
            Multiply<TFormat, TTiles>(place, third, c + (2 * step), ref sums);
            third = Load<TFormat>(a, place, IntrinsicMath.Min(c + (5 * step), last));
        }
        if (c < count)
            Multiply<TFormat, TTiles>(place, first, c, ref sums);
        if (c + step < count)
            Multiply<TFormat, TTiles>(place, second, c + step, ref sums);
    }

    private static void StreamTwo<TFormat, TTiles>(LinearArgs a, Place place, (int First, int Count, int Step) chunks, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        (int c, int count, int step) = chunks;
        int last = count - 1;
        SkinnyChunk first = Load<TFormat>(a, place, c);
        SkinnyChunk second = Load<TFormat>(a, place, IntrinsicMath.Min(c + step, last));
        GridDependency.Release();
        GridDependency.Wait();
        for (; c + step < count; c += 2 * step)
        {
            Multiply<TFormat, TTiles>(place, first, c, ref sums);
            first = Load<TFormat>(a, place, IntrinsicMath.Min(c + (2 * step), last));
            Multiply<TFormat, TTiles>(place, second, c + step, ref sums);
            second = Load<TFormat>(a, place, IntrinsicMath.Min(c + (3 * step), last));
        }
        if (c < count)
            Multiply<TFormat, TTiles>(place, first, c, ref sums);
    }

    private static int ChunkCodes<TFormat>()
        where TFormat : struct, IStreamedFormat => ChunkWords << TFormat.CodesPerWordShift;

    // Rows beyond the matrix repeat its last row, columns of x beyond M the last one; they are not stored.
    private static Place Locate<TFormat>(LinearArgs a, int lane)
        where TFormat : struct, IStreamedFormat
    {
        int group = lane >> 2, word = (lane & 3) * 4;
        long row = ((long)Grid.IdxX * Rows) + group, last = a.N - 1;
        int row0 = (int)IntrinsicMath.Min(row, last), row1 = (int)IntrinsicMath.Min(row + 8, last);
        int row2 = (int)IntrinsicMath.Min(row + 16, last), row3 = (int)IntrinsicMath.Min(row + 24, last);
        // Groups are the lane's own, blocks the whole chunk's.
        int column = TFormat.HasGroupScales ? word << TFormat.CodesPerWordShift : 0;
        Place place;
        place.Row0 = Row<TFormat>(a, row0, word);
        place.Row1 = Row<TFormat>(a, row1, word);
        place.Row2 = Row<TFormat>(a, row2, word);
        place.Row3 = Row<TFormat>(a, row3, word);
        place.Scales0 = (int)a.ScaleIndex(0, row0, column);
        place.Scales1 = (int)a.ScaleIndex(0, row1, column);
        place.Scales2 = (int)a.ScaleIndex(0, row2, column);
        place.Scales3 = (int)a.ScaleIndex(0, row3, column);
        place.Input0 = Input<TFormat>(a, IntrinsicMath.Min(group, a.M - 1), word);
        place.Input1 = Input<TFormat>(a, IntrinsicMath.Min(group + Columns, a.M - 1), word);
        return place;
    }

    // A row's words from a lane's first one on; a lane that has none in a short row is given a place where it reads nothing.
    private static ArrayView<uint> Row<TFormat>(LinearArgs a, int row, int word)
        where TFormat : struct, IStreamedFormat
    {
        ArrayView<uint> words = a.Codes.Cast<uint>();
        long start = IntrinsicMath.Min(((long)row * (a.K >> TFormat.CodesPerWordShift)) + word, words.Length - 4);
        return words.SubView(start, words.Length - start);
    }

    private static ArrayView<uint> Input<TFormat>(LinearArgs a, int row, int word)
        where TFormat : struct, IStreamedFormat
    {
        ArrayView<uint> words = a.X.Cast<uint>();
        long start = IntrinsicMath.Min(((long)row * (a.K >> 1)) + (word << (TFormat.CodesPerWordShift - 1)), words.Length - 4);
        return words.SubView(start, words.Length - start);
    }

    private static SkinnyChunk Load<TFormat>(LinearArgs a, Place place, int chunk)
        where TFormat : struct, IStreamedFormat
    {
        SkinnyChunk loaded = default;
        int word = chunk * ChunkWords;
        loaded.Row0 = Mem.LoadStream(ref place.Row0[word]);
        loaded.Row1 = Mem.LoadStream(ref place.Row1[word]);
        loaded.Row2 = Mem.LoadStream(ref place.Row2[word]);
        loaded.Row3 = Mem.LoadStream(ref place.Row3[word]);
        LoadScales<TFormat>(a, place, chunk, ref loaded);
        return loaded;
    }

    private static void LoadScales<TFormat>(LinearArgs a, Place place, int chunk, ref SkinnyChunk loaded)
        where TFormat : struct, IStreamedFormat
    {
        if (TFormat.HasGroupScales)
        {
            ArrayView<byte> groups = a.ScaleTable.Groups;
            int first = chunk * (ChunkCodes<TFormat>() / 16);
            loaded.Scale0 = Mem.LoadReadOnlyHalf(ref groups[place.Scales0 + first]);
            loaded.Scale1 = Mem.LoadReadOnlyHalf(ref groups[place.Scales1 + first]);
            loaded.Scale2 = Mem.LoadReadOnlyHalf(ref groups[place.Scales2 + first]);
            loaded.Scale3 = Mem.LoadReadOnlyHalf(ref groups[place.Scales3 + first]);
        }
        else if (TFormat.HasBlockScales)
        {
            ArrayView<uint> scales = a.Scales.Cast<uint>();
            int block = (chunk * ChunkCodes<TFormat>()) >> a.ColumnShift;
            loaded.Scale0 = Mem.LoadReadOnly1(ref scales[place.Scales0 + block]);
            loaded.Scale1 = Mem.LoadReadOnly1(ref scales[place.Scales1 + block]);
            loaded.Scale2 = Mem.LoadReadOnly1(ref scales[place.Scales2 + block]);
            loaded.Scale3 = Mem.LoadReadOnly1(ref scales[place.Scales3 + block]);
        }
    }

    private static void Multiply<TFormat, TTiles>(Place place, SkinnyChunk chunk, int c, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        int word = c * (ChunkCodes<TFormat>() / 2);
        SkinnyInputs inputs0 = LoadInputs<TFormat>(place.Input0, word), inputs1 = default;
        if (TTiles.Count == 2)
            inputs1 = LoadInputs<TFormat>(place.Input1, word);
        SkinnyProducts.Multiply<TFormat, TTiles>(chunk, inputs0, inputs1, ref sums);
    }

    // A chunk of which K covers only the first words: the others are zeros on both sides.
    private static void MultiplyRest<TFormat, TTiles>(LinearArgs a, Place place, int chunk, int lane, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        SkinnyChunk rest = default;
        SkinnyInputs inputs0 = default, inputs1 = default;
        int start = chunk * ChunkCodes<TFormat>();
        bool inside = start + (((lane & 3) * 4) << TFormat.CodesPerWordShift) < a.K;
        if (inside)
        {
            rest = Load<TFormat>(a, place, chunk);
            inputs0 = LoadInputs<TFormat>(place.Input0, start >> 1);
            inputs1 = LoadInputs<TFormat>(place.Input1, start >> 1);
        }
        else if (!TFormat.HasGroupScales)
        {
            // The sums of lanes without words are scaled too: the products of the whole quad end up in each.
            LoadScales<TFormat>(a, place, chunk, ref rest);
        }
        SkinnyProducts.Multiply<TFormat, TTiles>(rest, inputs0, inputs1, ref sums);
    }

    // The inputs of one word of weights. Plain loads: x may be the output of the launch before.
    private static SkinnyInputs LoadInputs<TFormat>(ArrayView<uint> x, int word)
        where TFormat : struct, IStreamedFormat
    {
        SkinnyInputs inputs = default;
        inputs.X0 = Mem.LoadGlobal(ref x[word]);
        if (TFormat.CodesPerWordShift > 1)
            inputs.X1 = Mem.LoadGlobalAt(ref x[word], 16);
        if (TFormat.CodesPerWordShift > 2)
        {
            inputs.X2 = Mem.LoadGlobalAt(ref x[word], 32);
            inputs.X3 = Mem.LoadGlobalAt(ref x[word], 48);
        }
        return inputs;
    }
}
