using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// One lane's weights of a chunk: a 16-byte word of the rows g, g + 8, g + 16 and g + 24, the float32 bits that multiply their
/// sums (in a format with tile scales the first for all rows), and what their decoder needs; both are filled in when the chunk is multiplied where they lie in shared memory
/// (<see cref="SkinnyAside"/>).
/// </summary>
internal struct SkinnyChunk
{
    public U4 Row0, Row1, Row2, Row3;
    public uint Scale0, Scale1, Scale2, Scale3;
    public uint Operand0, Operand1, Operand2, Operand3;
}

/// <summary>
/// One lane's inputs of a word of weights in one tile of x: eight BF16 a step, or a word of codes in X0 with what their decoder
/// needs; and the multipliers of the two columns of the tile whose sums the lane has.
/// </summary>
internal struct SkinnyInputs
{
    public U4 X0, X1, X2, X3;
    public uint Operand;
    public float Column0, Column1;
}

/// <summary>Where a lane reads a tile of x: its words of a row, that row's groups, and the multipliers of two columns.</summary>
internal struct SkinnyInputPlace
{
    public ArrayView<uint> Row;
    public int Groups;
    public int Scales0, Scales1;
}

/// <summary>Where a lane reads: its words of four rows of W, the multipliers of their tile (FP8) or of the rows, and two tiles of x.</summary>
internal struct SkinnyPlace
{
    public ArrayView<uint> Row0, Row1, Row2, Row3;
    public int Scales;
    public SkinnyInputPlace Input0, Input1;
    public SkinnyAsidePlace Aside;

    /// <summary>The lane's own sums in shared memory where <see cref="SkinnyStash"/> serves the format.</summary>
    public ArrayView<uint> Stash;

    /// <summary>The block's shared memory, behind whose sums <see cref="Aside"/> is. Nothing that is kept while the warps multiply may need it: registers are short there.</summary>
    public ArrayView<byte> Shared;
}

/// <summary>What <see cref="SkinnyGemm"/> loads, and from where.</summary>
internal static class SkinnyLoads
{
    /// <summary>Words that the four lanes of a quad are apart.</summary>
    public const int WordStep = 4;

    // Of each row, measured: 1,024 bytes are as good or worse, 4,096 worse (docs/kernels/gemv.md).
    private const int PrefetchedWords = 256 / 4, LineWords = 128 / 4;

    /// <summary>A lane's places. Rows beyond the matrix repeat its last row, columns of x beyond M the last one; they are not stored.</summary>
    public static SkinnyPlace Locate<TFormat, TInput>(LinearArgs a, int lane)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        int group = lane >> 2, word = (lane & 3) * WordStep;
        long first = SkinnyGemm.FirstRow<TInput>(a), row = first + group, last = a.N - 1;
        int row0 = (int)IntrinsicMath.Min(row, last), row1 = (int)IntrinsicMath.Min(row + 8, last);
        int row2 = (int)IntrinsicMath.Min(row + 16, last), row3 = (int)IntrinsicMath.Min(row + 24, last);
        int words = a.K >> TFormat.CodesPerWordShift;
        SkinnyPlace place = default;
        place.Row0 = From(a.Codes.Cast<uint>(), ((long)row0 * words) + word);
        place.Row1 = From(a.Codes.Cast<uint>(), ((long)row1 * words) + word);
        place.Row2 = From(a.Codes.Cast<uint>(), ((long)row2 * words) + word);
        place.Row3 = From(a.Codes.Cast<uint>(), ((long)row3 * words) + word);
        place.Scales = TFormat.HasTileScales ? (int)a.ScaleIndex(0, (int)first, 0) : 0;
        int firstInput = SkinnyGemm.FirstInput<TInput>(a);
        place.Input0 = LocateInputs<TFormat, TInput>(a, lane, firstInput);
        place.Input1 = LocateInputs<TFormat, TInput>(a, lane, firstInput + SkinnyGemm.TileRows(TInput.ScaleColumns == 32));
        return place;
    }

    /// <summary>
    /// Asks for what follows the chunks that the block's warps have loaded to be brought into L2: the memory then has something to do until the launch before has ended. Formats of four bits gain nothing. A
    /// lane a row, a warp each 128 bytes. Of two terms it is the first one's, some chunks further on.
    /// </summary>
    public static void Prefetch<TFormat, TInput>(LinearArgs a, int loadedChunks)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        if (TFormat.CodesPerWordShift > 2)
            return;
        int warps = Group.DimX >> 5, words = a.K >> TFormat.CodesPerWordShift;
        long row = IntrinsicMath.Min(SkinnyGemm.FirstRow<TInput>(a) + (Group.IdxX & 31), a.N - 1);
        ArrayView<uint> codes = a.Codes.Cast<uint>();
        int loaded = warps * loadedChunks * SkinnyGemm.ChunkWords, end = IntrinsicMath.Min(loaded + PrefetchedWords, words);
        for (int word = loaded + ((Group.IdxX >> 5) * LineWords); word < end; word += warps * LineWords)
            Mem.PrefetchL2(ref codes[(row * words) + word]);
    }

    /// <summary>A chunk of W, all of it inside the matrix, by its number; of two terms by the warp's own count of chunks of both.</summary>
    public static SkinnyChunk Chunk<TFormat, TInput>(LinearArgs a, SkinnyPlace place, int chunk)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs => Chunk<TFormat, TInput>(a, place, Within<TFormat>(chunk), chunk & (TFormat.Terms - 1));

    // Of a format with two terms a warp counts its own chunks, each once a term.
    private static int Within<TFormat>(int chunk)
        where TFormat : struct, IStreamedFormat => TFormat.Terms == 1 ? chunk : (Group.IdxX >> 5) + ((chunk >> 1) * (Group.DimX >> 5));

    private static SkinnyChunk Chunk<TFormat, TInput>(LinearArgs a, SkinnyPlace place, int chunk, int term)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        SkinnyChunk loaded = default;
        int word = chunk * SkinnyGemm.ChunkWords;
        long skip = TFormat.Terms > 1 ? term * ((long)a.N * (a.K >> TFormat.CodesPerWordShift)) : 0;
        loaded.Row0 = Word<TFormat>(place.Row0, word, skip);
        loaded.Row1 = Word<TFormat>(place.Row1, word, skip);
        loaded.Row2 = Word<TFormat>(place.Row2, word, skip);
        loaded.Row3 = Word<TFormat>(place.Row3, word, skip);
        Scale<TFormat, TInput>(a, place, chunk, term, ref loaded);
        return loaded;
    }

    /// <summary>A lane's inputs of a chunk, numbered likewise, in one tile of x. Plain loads: x may be the output of the launch before.</summary>
    public static SkinnyInputs Inputs<TFormat, TInput>(LinearArgs a, SkinnyInputPlace place, int chunk)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs => InputsOf<TFormat, TInput>(a, place, Within<TFormat>(chunk));

    private static SkinnyInputs InputsOf<TFormat, TInput>(LinearArgs a, SkinnyInputPlace place, int chunk)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        SkinnyInputs inputs = default;
        ArrayView<uint> x = place.Row;
        if (TInput.AreCodes)
        {
            int word = chunk * SkinnyGemm.ChunkWords;
            inputs.X0 = TInput.ScaleColumns == 32 ? Mem.LoadGlobalOver(ref x[word], 0, IsOwnHalf(), default) : Mem.LoadGlobal(ref x[word]);
            InputScales<TFormat, TInput>(a, place, chunk, ref inputs);
            return inputs;
        }
        int first = chunk * (SkinnyGemm.ChunkCodes<TFormat>() / 2);
        inputs.X0 = Mem.LoadGlobal(ref x[first]);
        if (TFormat.CodesPerWordShift > 1)
            inputs.X1 = Mem.LoadGlobalAt(ref x[first], 16);
        if (TFormat.CodesPerWordShift > 2)
        {
            inputs.X2 = Mem.LoadGlobalAt(ref x[first], 32);
            inputs.X3 = Mem.LoadGlobalAt(ref x[first], 48);
        }
        return inputs;
    }

    /// <summary>A term's chunk of which K covers only the first words, and its inputs: the others are zeros on both sides.</summary>
    public static SkinnyChunk Rest<TFormat, TInput, TTiles>(LinearArgs a, SkinnyPlace place, (int Chunk, int Term) at, int lane, ref SkinnyInputTiles inputs)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        SkinnyChunk rest = default;
        int start = at.Chunk * SkinnyGemm.ChunkCodes<TFormat>(), column = ((lane & 3) * WordStep) << TFormat.CodesPerWordShift;
        if (start + column < a.K)
        {
            rest = Chunk<TFormat, TInput>(a, place, at.Chunk, at.Term);
            if (TFormat.HasGroupScales)
                SkinnyAside.Load<TFormat>(a, place.Aside, at.Chunk, ref rest);
            inputs.Tile0 = InputsOf<TFormat, TInput>(a, place.Input0, at.Chunk);
            // Of BF16 also where there is no second tile: without, the compiler spilt when multipliers were still in registers; not measured since.
            if (TTiles.Count == 2 || !TInput.AreCodes)
                inputs.Tile1 = InputsOf<TFormat, TInput>(a, place.Input1, at.Chunk);
        }
        // A quad's products end up in each of its lanes: those without words scale them too.
        Scale<TFormat, TInput>(a, place, at.Chunk, at.Term, ref rest);
        if (SkinnyAside.Serves<TFormat, TInput>() && !TFormat.HasGroupScales)
            SkinnyAside.Load<TFormat>(a, place.Aside, at.Chunk, ref rest);
        if (TInput.ScaleColumns > 0)
        {
            InputScales<TFormat, TInput>(a, place.Input0, at.Chunk, ref inputs.Tile0);
            if (TTiles.Count == 2)
                InputScales<TFormat, TInput>(a, place.Input1, at.Chunk, ref inputs.Tile1);
        }
        return rest;
    }

    // A row's words from a lane's first one on; a lane that has none in a short row is given a place where it reads nothing.
    private static ArrayView<uint> From(ArrayView<uint> words, long start)
    {
        start = IntrinsicMath.Min(start, words.Length - WordStep);
        return words.SubView(start, words.Length - start);
    }

    private static SkinnyInputPlace LocateInputs<TFormat, TInput>(LinearArgs a, int lane, int firstRow)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        // Each row has two columns of a tile where halves of a chunk are scaled apart.
        int word = (lane & 3) * WordStep, own = TInput.ScaleColumns == 32 ? (lane >> 2) & (SkinnyGemm.TileRows(true) - 1) : lane >> 2;
        int row = IntrinsicMath.Min(own + firstRow, a.M - 1);
        // The sums that a lane has are of two neighbouring columns of the tile.
        int column = (TInput.ScaleColumns == 32 ? (lane & 1) * 2 : (lane & 3) * 2) + firstRow;
        SkinnyInputPlace place = default;
        place.Row = TInput.AreCodes
            ? From(a.X.Cast<uint>(), ((long)row * (a.K >> TFormat.CodesPerWordShift)) + word)
            : From(a.X.Cast<uint>(), ((long)row * (a.K >> 1)) + (word << (TFormat.CodesPerWordShift - 1)));
        place.Groups = (row * a.InputScales.Columns) + ((word << TFormat.CodesPerWordShift) >> 4);
        place.Scales0 = IntrinsicMath.Min(column, a.M - 1) * a.InputScales.Columns;
        place.Scales1 = IntrinsicMath.Min(column + 1, a.M - 1) * a.InputScales.Columns;
        return place;
    }

    private static U4 Word<TFormat>(ArrayView<uint> row, int word, long skip)
        where TFormat : struct, IStreamedFormat => TFormat.Terms > 1 ? Mem.LoadStream(ref row[word + skip]) : Mem.LoadStream(ref row[word]);

    private static void Scale<TFormat, TInput>(LinearArgs a, SkinnyPlace place, int chunk, int term, ref SkinnyChunk loaded)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        if (!TFormat.HasTileScales)
            return;
        ArrayView<uint> scales = a.Scales.Cast<uint>();
        int start = chunk * SkinnyGemm.ChunkCodes<TFormat>(), column = TInput.ScaleColumns == 32 ? OwnColumn(start, a.K) : start;
        loaded.Scale0 = Mem.LoadReadOnly1(ref scales[place.Scales + (TFormat.Terms > 1 ? term * a.ScaleTable.PerSlab : 0) + (column >> a.ColumnShift)]);
    }

    private static void InputScales<TFormat, TInput>(LinearArgs a, SkinnyInputPlace place, int chunk, ref SkinnyInputs inputs)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        int start = chunk * SkinnyGemm.ChunkCodes<TFormat>();
        if (TFormat.HasGroupScales)
            inputs.Operand = Mem.LoadGlobalHalf(ref a.InputScales.Groups[place.Groups + (start >> 4)]);
        if (TInput.ScaleColumns > 0)
        {
            ArrayView<float> scales = a.InputScales.Blocks;
            int group = TInput.ScaleColumns == 32 ? OwnColumn(start, a.K) / 32 : start / TInput.ScaleColumns;
            inputs.Column0 = scales[place.Scales0 + group];
            inputs.Column1 = scales[place.Scales1 + group];
        }
    }

    // Of a chunk's halves, which are scaled apart, a tile's columns 0..3 have four rows' first and 4..7 the same rows' second: nothing else is loaded, or multiplied.
    private static uint IsOwnHalf() => (uint)~((Group.IdxX >> 4) ^ (Group.IdxX >> 1)) & 1;

    // The first column of the half of a chunk whose sums a lane has, in matrices that end with the first half the last column.
    private static int OwnColumn(int start, int k) => IntrinsicMath.Min(start + (32 * ((Group.IdxX >> 1) & 1)), k - 1);
}
