using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>A matrix or a stack of them as the streaming kernels of a decode step read it.</summary>
internal struct StreamedWeights
{
    /// <summary>[Slabs, N, K] codes; rows are whole chunks.</summary>
    public ArrayView<byte> Codes;

    /// <summary>The multipliers of the codes.</summary>
    public ScaleTable ScaleTable;

    public int N;
    public int K;
}

/// <summary>One lane's weights of a chunk: a 16-byte word of the rows g and g + 8 of a tile, the bits of their multipliers, and what their decoder needs.</summary>
internal struct TileChunk
{
    public U4 Row0, Row1;
    public uint Scale0, Scale1;
    public uint Operand0, Operand1;
}

/// <summary>Where a lane reads the rows g and g + 8 of a tile in the first matrix of a stack.</summary>
internal struct TilePlace
{
    public long Row0, Row1;
    public long Scales0, Scales1;
    public long Zeros0, Zeros1;
}

/// <summary>One lane's inputs of a word of weights: eight BF16 a step.</summary>
internal struct TileInputs
{
    public U4 X0, X1, X2, X3;
}

/// <summary>
/// Tiles of 16 rows of weights as the 16-row operand of tensor cores, 64 bytes of each row at a time (a chunk): the parts that the
/// kernels of a decode step share. As in <see cref="SkinnyGemm"/> a lane feeds its own consecutive codes to consecutive mma's; the
/// tile is half as tall, so that the few rows of a layer still occupy every multiprocessor.
/// </summary>
internal static class TileStream
{
    public const int Rows = 16;
    public const int Columns = 8;

    /// <summary>Sums of one warp in one tile of x.</summary>
    public const int Sums = Rows * Columns;

    /// <summary>Codes of a row that a warp multiplies at once.</summary>
    public static int ChunkCodes<TFormat>()
        where TFormat : struct, IStreamedFormat => SkinnyGemm.ChunkCodes<TFormat>();

    /// <summary>A lane's places. Rows beyond the matrix repeat its last one; their sums are not stored.</summary>
    public static TilePlace Locate<TFormat>(StreamedWeights w, int firstRow, int lane)
        where TFormat : struct, IStreamedFormat
    {
        int word = (lane & 3) * 4, last = w.N - 1;
        int row0 = IntrinsicMath.Min(firstRow + (lane >> 2), last), row1 = IntrinsicMath.Min(firstRow + (lane >> 2) + 8, last);
        long words = w.K >> TFormat.CodesPerWordShift;
        // Groups are the lane's own, blocks the whole chunk's.
        int column = TFormat.HasGroupScales ? word << TFormat.CodesPerWordShift : 0;
        long zeroBytes = (w.ScaleTable.Columns + 1) >> 1;
        TilePlace place = default;
        place.Row0 = (row0 * words) + word;
        place.Row1 = (row1 * words) + word;
        place.Scales0 = w.ScaleTable.Index(0, TFormat.HasTileScales ? IntrinsicMath.Min(firstRow, last) : row0, column);
        place.Scales1 = w.ScaleTable.Index(0, row1, column);
        place.Zeros0 = (row0 >> w.ScaleTable.RowShift) * zeroBytes;
        place.Zeros1 = (row1 >> w.ScaleTable.RowShift) * zeroBytes;
        return place;
    }

    /// <summary>The same in one matrix of the stack.</summary>
    public static TilePlace Locate<TFormat>(StreamedWeights w, int slab, int firstRow, int lane)
        where TFormat : struct, IStreamedFormat
    {
        TilePlace place = Locate<TFormat>(w, firstRow, lane);
        long codes = (long)slab * w.N * (w.K >> TFormat.CodesPerWordShift), scales = (long)slab * w.ScaleTable.PerSlab, zeros = (long)slab * w.ScaleTable.ZeroBytesPerSlab;
        place.Row0 += codes;
        place.Row1 += codes;
        place.Scales0 += scales;
        place.Scales1 += scales;
        place.Zeros0 += zeros;
        place.Zeros1 += zeros;
        return place;
    }

    /// <summary>A chunk of one matrix of the stack.</summary>
    public static TileChunk Load<TFormat>(StreamedWeights w, TilePlace place, int slab, int chunk)
        where TFormat : struct, IStreamedFormat
    {
        ArrayView<uint> words = w.Codes.Cast<uint>();
        // The size of a matrix is the same for all of a kernel's chunks.
        long size = (long)w.N * (w.K >> TFormat.CodesPerWordShift), start = (slab * size) + (chunk * SkinnyGemm.ChunkWords);
        TileChunk loaded = default;
        loaded.Row0 = Mem.LoadStream(ref words[place.Row0 + start]);
        loaded.Row1 = Mem.LoadStream(ref words[place.Row1 + start]);
        LoadMultipliers<TFormat>(w, place, slab, chunk, ref loaded);
        return loaded;
    }

    /// <summary>What goes with a chunk's codes.</summary>
    public static void LoadMultipliers<TFormat>(StreamedWeights w, TilePlace place, int slab, int chunk, ref TileChunk loaded)
        where TFormat : struct, IStreamedFormat
    {
        int first = chunk * ChunkCodes<TFormat>(), block = first >> w.ScaleTable.ColumnShift;
        long table = (long)slab * w.ScaleTable.PerSlab;
        if (TFormat.HasGroupScales)
        {
            ArrayView<byte> groups = w.ScaleTable.Groups;
            loaded.Operand0 = Mem.LoadReadOnlyHalf(ref groups[table + place.Scales0 + (first >> 4)]);
            loaded.Operand1 = Mem.LoadReadOnlyHalf(ref groups[table + place.Scales1 + (first >> 4)]);
        }
        if (TFormat.HasZeroPoints)
        {
            ArrayView<byte> zeros = w.ScaleTable.ZeroPoints;
            long at = ((long)slab * w.ScaleTable.ZeroBytesPerSlab) + (block >> 1);
            int shift = 4 * (block & 1);
            loaded.Operand0 = ((uint)zeros[at + place.Zeros0] >> shift) & 15;
            loaded.Operand1 = ((uint)zeros[at + place.Zeros1] >> shift) & 15;
        }
        ArrayView<uint> scales = w.ScaleTable.Blocks.Cast<uint>();
        if (TFormat.HasTileScales || TFormat.HasRowScales)
            loaded.Scale0 = Mem.LoadReadOnly1(ref scales[table + place.Scales0 + block]);
        if (TFormat.HasRowScales)
            loaded.Scale1 = Mem.LoadReadOnly1(ref scales[table + place.Scales1 + block]);
    }

    /// <summary>What multiplies whole sums of one matrix, in formats that have such a number.</summary>
    public static float MatrixScale<TFormat>(StreamedWeights w, int slab)
        where TFormat : struct, IStreamedFormat => TFormat.HasGroupScales ? w.ScaleTable.Blocks[slab] * TFormat.Correction : 1f;

    /// <summary>First word of a lane's inputs in a row of x.</summary>
    public static int InputWord<TFormat>(int lane)
        where TFormat : struct, IStreamedFormat => ((lane & 3) * 4) << (TFormat.CodesPerWordShift - 1);

    /// <summary>A lane's inputs of a chunk, from its first word in a row of x.</summary>
    public static TileInputs Inputs<TFormat, TMemory>(ArrayView<uint> x, long word, int chunk)
        where TFormat : struct, IStreamedFormat
        where TMemory : struct, ITileMemory
    {
        long first = word + (chunk * (ChunkCodes<TFormat>() / 2));
        TileInputs inputs = default;
        inputs.X0 = TMemory.Load(ref x[first]);
        if (TFormat.CodesPerWordShift > 1)
            inputs.X1 = TMemory.Load(ref x[first + 4]);
        if (TFormat.CodesPerWordShift > 2)
        {
            inputs.X2 = TMemory.Load(ref x[first + 8]);
            inputs.X3 = TMemory.Load(ref x[first + 12]);
        }
        return inputs;
    }

    /// <summary>Adds a chunk's products; the sums of the lane's two columns are multiplied by a number each.</summary>
    public static F4 Multiply<TFormat>(TileChunk w, TileInputs x, float column0, float column1, F4 sum)
        where TFormat : struct, IStreamedFormat
    {
        if (TFormat.HasGroupScales || TFormat.HasZeroPoints)
        {
            w.Operand0 = TFormat.PrepareOperand(w.Operand0);
            w.Operand1 = TFormat.PrepareOperand(w.Operand1);
        }
        F4 part = Step<TFormat>(w, 0, x.X0, default);
        if (TFormat.CodesPerWordShift > 1)
            part = Step<TFormat>(w, 1, x.X1, part);
        if (TFormat.CodesPerWordShift > 2)
        {
            part = Step<TFormat>(w, 2, x.X2, part);
            part = Step<TFormat>(w, 3, x.X3, part);
        }
        bool scaled = TFormat.HasTileScales || TFormat.HasRowScales;
        float upper = scaled ? Interop.IntAsFloat(w.Scale0) * TFormat.Correction : 1f;
        float lower = TFormat.HasRowScales ? Interop.IntAsFloat(w.Scale1) * TFormat.Correction : upper;
        sum.X = Fast.Fma(part.X, upper * column0, sum.X);
        sum.Y = Fast.Fma(part.Y, upper * column1, sum.Y);
        sum.Z = Fast.Fma(part.Z, lower * column0, sum.Z);
        sum.W = Fast.Fma(part.W, lower * column1, sum.W);
        return sum;
    }

    // Eight codes of each row: two mma's.
    private static F4 Step<TFormat>(TileChunk w, int step, U4 x, F4 part)
        where TFormat : struct, IStreamedFormat
    {
        U4 inputs = TFormat.Arrange(x);
        U4 upper = TFormat.Decode(w.Row0, step, w.Operand0), lower = TFormat.Decode(w.Row1, step, w.Operand1);
        part = SkinnyProducts.Multiply<TFormat>(upper.X, lower.X, upper.Y, lower.Y, inputs.X, inputs.Y, part);
        return SkinnyProducts.Multiply<TFormat>(upper.Z, lower.Z, upper.W, lower.W, inputs.Z, inputs.W, part);
    }

    /// <summary>A lane's sums into a warp's part of shared memory: [row][column].</summary>
    public static void Publish(ArrayView<float> partials, int start, int lane, F4 sum)
    {
        partials[start + (MmaFragment.CRow(lane, 0) * Columns) + MmaFragment.CColumn(lane, 0)] = sum.X;
        partials[start + (MmaFragment.CRow(lane, 1) * Columns) + MmaFragment.CColumn(lane, 1)] = sum.Y;
        partials[start + (MmaFragment.CRow(lane, 2) * Columns) + MmaFragment.CColumn(lane, 2)] = sum.Z;
        partials[start + (MmaFragment.CRow(lane, 3) * Columns) + MmaFragment.CColumn(lane, 3)] = sum.W;
    }

    /// <summary>One sum over the warps, in their order.</summary>
    public static float Collect(ArrayView<float> partials, int first, int step, int warps)
    {
        float sum = 0;
        for (int warp = 0; warp < warps; warp++)
            sum += partials[(warp * step) + first];
        return sum;
    }

    /// <summary>
    /// One row's sum of the first column over the warps, by eight lanes beside each other that all get it: the first 128 threads, row by row.
    /// The order is fixed by the number of warps. Whole warps call.
    /// </summary>
    public static float CollectRow(ArrayView<float> partials, int warps)
    {
        int row = Group.IdxX >> 3;
        float sum = 0;
        for (int warp = Group.IdxX & 7; warp < warps; warp += 8)
            sum += partials[(warp * Sums) + (row * Columns)];
        sum += WarpOps.ShuffleXor(sum, 1);
        sum += WarpOps.ShuffleXor(sum, 2);
        return sum + WarpOps.ShuffleXor(sum, 4);
    }

    /// <summary>One sum over the warps by one thread, in the order of <see cref="CollectRow"/>.</summary>
    public static float CollectAlone(ArrayView<float> partials, int first, int step, int warps)
    {
        float s01 = Eighth(partials, first, step, (0, warps)) + Eighth(partials, first, step, (1, warps));
        float s23 = Eighth(partials, first, step, (2, warps)) + Eighth(partials, first, step, (3, warps));
        float s45 = Eighth(partials, first, step, (4, warps)) + Eighth(partials, first, step, (5, warps));
        float s67 = Eighth(partials, first, step, (6, warps)) + Eighth(partials, first, step, (7, warps));
        return (s01 + s23) + (s45 + s67);
    }

    private static float Eighth(ArrayView<float> partials, int first, int step, (int First, int Count) warps)
    {
        float sum = 0;
        for (int warp = warps.First; warp < warps.Count; warp += 8)
            sum += partials[(warp * step) + first];
        return sum;
    }
}
