using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// One lane's weights of a chunk: a 16-byte word of the rows g, g + 8, g + 16 and g + 24, the float32 bits that multiply their
/// sums (in a format with tile scales the first for all rows, and the second for its second half where halves are scaled apart), and
/// what their decoder needs.
/// </summary>
internal struct SkinnyChunk
{
    public U4 Row0, Row1, Row2, Row3;
    public uint Scale0, Scale1, Scale2, Scale3;
    public uint Operand0, Operand1, Operand2, Operand3;
}

/// <summary>
/// One lane's inputs of a word of weights in one tile of x: eight BF16 a step, or a word of codes in X0 with what their decoder
/// needs; and the multipliers of the two columns of the tile whose sums the lane has, for the chunk or its first half, and the second.
/// </summary>
internal struct SkinnyInputs
{
    public U4 X0, X1, X2, X3;
    public uint Operand;
    public float Column0, Column1, SecondColumn0, SecondColumn1;
}

/// <summary>Where a lane reads a tile of x: its words of a row, that row's groups, and the multipliers of two columns.</summary>
internal struct SkinnyInputPlace
{
    public ArrayView<uint> Row;
    public int Groups;
    public int Scales0, Scales1;
}

/// <summary>Where a lane reads: its words of four rows of W and their multipliers and zero points, and two tiles of x.</summary>
internal struct SkinnyPlace
{
    public ArrayView<uint> Row0, Row1, Row2, Row3;
    public int Scales0, Scales1, Scales2, Scales3;
    public int Zeros0, Zeros1, Zeros2, Zeros3;
    public SkinnyInputPlace Input0, Input1;
}

/// <summary>What <see cref="SkinnyGemm"/> loads, and from where.</summary>
internal static class SkinnyLoads
{
    /// <summary>A lane's places. Rows beyond the matrix repeat its last row, columns of x beyond M the last one; they are not stored.</summary>
    public static SkinnyPlace Locate<TFormat, TInput>(LinearArgs a, int lane)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        int group = lane >> 2, word = (lane & 3) * WordStep<TInput>();
        long first = (long)Grid.IdxX * SkinnyGemm.Rows, row = first + group, last = a.N - 1;
        int row0 = (int)IntrinsicMath.Min(row, last), row1 = (int)IntrinsicMath.Min(row + 8, last);
        int row2 = (int)IntrinsicMath.Min(row + 16, last), row3 = (int)IntrinsicMath.Min(row + 24, last);
        // Groups are the lane's own, blocks the whole chunk's.
        int column = TFormat.HasGroupScales ? word << TFormat.CodesPerWordShift : 0;
        int words = a.K >> TFormat.CodesPerWordShift;
        SkinnyPlace place = default;
        place.Row0 = From(a.Codes.Cast<uint>(), ((long)row0 * words) + word);
        place.Row1 = From(a.Codes.Cast<uint>(), ((long)row1 * words) + word);
        place.Row2 = From(a.Codes.Cast<uint>(), ((long)row2 * words) + word);
        place.Row3 = From(a.Codes.Cast<uint>(), ((long)row3 * words) + word);
        place.Scales0 = (int)a.ScaleIndex(0, TFormat.HasTileScales ? (int)first : row0, column);
        place.Scales1 = (int)a.ScaleIndex(0, row1, column);
        place.Scales2 = (int)a.ScaleIndex(0, row2, column);
        place.Scales3 = (int)a.ScaleIndex(0, row3, column);
        int zeroBytes = (a.ScaleTable.Columns + 1) >> 1;
        place.Zeros0 = (row0 >> a.ScaleTable.RowShift) * zeroBytes;
        place.Zeros1 = (row1 >> a.ScaleTable.RowShift) * zeroBytes;
        place.Zeros2 = (row2 >> a.ScaleTable.RowShift) * zeroBytes;
        place.Zeros3 = (row3 >> a.ScaleTable.RowShift) * zeroBytes;
        place.Input0 = LocateInputs<TFormat, TInput>(a, lane, 0);
        place.Input1 = LocateInputs<TFormat, TInput>(a, lane, SkinnyGemm.Columns);
        return place;
    }

    /// <summary>A chunk of W: all of it inside the matrix.</summary>
    public static SkinnyChunk Chunk<TFormat, TInput>(LinearArgs a, SkinnyPlace place, int chunk)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        SkinnyChunk loaded = default;
        int word = chunk * SkinnyGemm.ChunkWords;
        loaded.Row0 = Word<TInput>(place.Row0, word);
        loaded.Row1 = Word<TInput>(place.Row1, word);
        loaded.Row2 = Word<TInput>(place.Row2, word);
        loaded.Row3 = Word<TInput>(place.Row3, word);
        Operands<TFormat>(a, place, chunk, ref loaded);
        Scales<TFormat, TInput>(a, place, chunk, a.K, ref loaded);
        return loaded;
    }

    /// <summary>A lane's inputs of a chunk, in one tile of x. Plain loads: x may be the output of the launch before.</summary>
    public static SkinnyInputs Inputs<TFormat, TInput>(LinearArgs a, SkinnyInputPlace place, int chunk)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        SkinnyInputs inputs = default;
        ArrayView<uint> x = place.Row;
        if (TInput.AreCodes)
        {
            int word = chunk * SkinnyGemm.ChunkWords;
            inputs.X0 = TInput.ScaleColumns == 32 ? Join(Mem.LoadGlobal2(ref x[word]), Mem.LoadGlobal2At(ref x[word], 32)) : Mem.LoadGlobal(ref x[word]);
            InputScales<TFormat, TInput>(a, place, chunk, a.K, ref inputs);
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

    /// <summary>A chunk of which K covers only the first words, and its inputs: the others are zeros on both sides.</summary>
    public static SkinnyChunk Rest<TFormat, TInput>(LinearArgs a, SkinnyPlace place, int chunk, int lane, ref SkinnyInputs inputs0, ref SkinnyInputs inputs1)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        SkinnyChunk rest = default;
        int start = chunk * SkinnyGemm.ChunkCodes<TFormat>(), column = ((lane & 3) * WordStep<TInput>()) << TFormat.CodesPerWordShift;
        if (TInput.ScaleColumns == 32)
        {
            RestHalves<TFormat, TInput>(a, place, (chunk, start, column), ref rest, ref inputs0, ref inputs1);
        }
        else if (start + column < a.K)
        {
            rest = Chunk<TFormat, TInput>(a, place, chunk);
            inputs0 = Inputs<TFormat, TInput>(a, place.Input0, chunk);
            inputs1 = Inputs<TFormat, TInput>(a, place.Input1, chunk);
        }
        // A quad's products end up in each of its lanes: those without words scale them too.
        Scales<TFormat, TInput>(a, place, chunk, a.K, ref rest);
        if (TInput.ScaleColumns > 0)
        {
            InputScales<TFormat, TInput>(a, place.Input0, chunk, a.K, ref inputs0);
            InputScales<TFormat, TInput>(a, place.Input1, chunk, a.K, ref inputs1);
        }
        return rest;
    }

    // A load of 8 bytes: no row is shorter, no lane that reads begins later.
    private const int LeastWords = 2;

    // Words that the four lanes of a quad are apart.
    private static int WordStep<TInput>()
        where TInput : struct, IStreamedInputs => TInput.ScaleColumns == 32 ? 2 : 4;

    // A row's words from a lane's first one on; a lane that has none in a short row is given a place where it reads nothing.
    private static ArrayView<uint> From(ArrayView<uint> words, long start)
    {
        start = IntrinsicMath.Min(start, words.Length - LeastWords);
        return words.SubView(start, words.Length - start);
    }

    private static SkinnyInputPlace LocateInputs<TFormat, TInput>(LinearArgs a, int lane, int firstRow)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        int word = (lane & 3) * WordStep<TInput>(), row = IntrinsicMath.Min((lane >> 2) + firstRow, a.M - 1);
        // The sums that a lane has are of two neighbouring columns of the tile.
        int column = ((lane & 3) * 2) + firstRow;
        SkinnyInputPlace place = default;
        place.Row = TInput.AreCodes
            ? From(a.X.Cast<uint>(), ((long)row * (a.K >> TFormat.CodesPerWordShift)) + word)
            : From(a.X.Cast<uint>(), ((long)row * (a.K >> 1)) + (word << (TFormat.CodesPerWordShift - 1)));
        place.Groups = (row * a.InputScales.Columns) + ((word << TFormat.CodesPerWordShift) >> 4);
        place.Scales0 = IntrinsicMath.Min(column, a.M - 1) * a.InputScales.Columns;
        place.Scales1 = IntrinsicMath.Min(column + 1, a.M - 1) * a.InputScales.Columns;
        return place;
    }

    private static U4 Word<TInput>(ArrayView<uint> row, int word)
        where TInput : struct, IStreamedInputs =>
        TInput.ScaleColumns == 32 ? Join(Mem.LoadStream2(ref row[word]), Mem.LoadStream2At(ref row[word], 32)) : Mem.LoadStream(ref row[word]);

    private static U4 Join(U2 first, U2 second)
    {
        U4 word;
        word.X = first.X;
        word.Y = first.Y;
        word.Z = second.X;
        word.W = second.Y;
        return word;
    }

    private static void Operands<TFormat>(LinearArgs a, SkinnyPlace place, int chunk, ref SkinnyChunk loaded)
        where TFormat : struct, IStreamedFormat
    {
        if (TFormat.HasGroupScales)
        {
            ArrayView<byte> groups = a.ScaleTable.Groups;
            int first = chunk * (SkinnyGemm.ChunkCodes<TFormat>() >> 4);
            loaded.Operand0 = Mem.LoadReadOnlyHalf(ref groups[place.Scales0 + first]);
            loaded.Operand1 = Mem.LoadReadOnlyHalf(ref groups[place.Scales1 + first]);
            loaded.Operand2 = Mem.LoadReadOnlyHalf(ref groups[place.Scales2 + first]);
            loaded.Operand3 = Mem.LoadReadOnlyHalf(ref groups[place.Scales3 + first]);
        }
        if (TFormat.HasZeroPoints)
        {
            ArrayView<byte> zeros = a.ScaleTable.ZeroPoints;
            int block = (chunk * SkinnyGemm.ChunkCodes<TFormat>()) >> a.ColumnShift;
            int shift = 4 * (block & 1);
            loaded.Operand0 = ((uint)zeros[place.Zeros0 + (block >> 1)] >> shift) & 15;
            loaded.Operand1 = ((uint)zeros[place.Zeros1 + (block >> 1)] >> shift) & 15;
            loaded.Operand2 = ((uint)zeros[place.Zeros2 + (block >> 1)] >> shift) & 15;
            loaded.Operand3 = ((uint)zeros[place.Zeros3 + (block >> 1)] >> shift) & 15;
        }
    }

    private static void Scales<TFormat, TInput>(LinearArgs a, SkinnyPlace place, int chunk, int k, ref SkinnyChunk loaded)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        ArrayView<uint> scales = a.Scales.Cast<uint>();
        int start = chunk * SkinnyGemm.ChunkCodes<TFormat>(), block = start >> a.ColumnShift;
        if (TFormat.HasTileScales)
        {
            loaded.Scale0 = Mem.LoadReadOnly1(ref scales[place.Scales0 + block]);
            // The second half of the last chunk may lie beyond the matrix.
            if (TInput.ScaleColumns == 32)
                loaded.Scale1 = Mem.LoadReadOnly1(ref scales[place.Scales0 + (IntrinsicMath.Min(start + 32, k - 1) >> a.ColumnShift)]);
        }
        if (TFormat.HasRowScales && !TInput.AreIntegers)
        {
            loaded.Scale0 = Mem.LoadReadOnly1(ref scales[place.Scales0 + block]);
            loaded.Scale1 = Mem.LoadReadOnly1(ref scales[place.Scales1 + block]);
            loaded.Scale2 = Mem.LoadReadOnly1(ref scales[place.Scales2 + block]);
            loaded.Scale3 = Mem.LoadReadOnly1(ref scales[place.Scales3 + block]);
        }
    }

    private static void InputScales<TFormat, TInput>(LinearArgs a, SkinnyInputPlace place, int chunk, int k, ref SkinnyInputs inputs)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        int start = chunk * SkinnyGemm.ChunkCodes<TFormat>();
        if (TFormat.HasGroupScales)
            inputs.Operand = Mem.LoadGlobalHalf(ref a.InputScales.Groups[place.Groups + (start >> 4)]);
        if (TInput.ScaleColumns > 0)
        {
            ArrayView<float> scales = a.InputScales.Blocks;
            int group = start / TInput.ScaleColumns;
            inputs.Column0 = scales[place.Scales0 + group];
            inputs.Column1 = scales[place.Scales1 + group];
            if (TInput.ScaleColumns == 32)
            {
                int second = IntrinsicMath.Min(start + 32, k - 1) / TInput.ScaleColumns;
                inputs.SecondColumn0 = scales[place.Scales0 + second];
                inputs.SecondColumn1 = scales[place.Scales1 + second];
            }
        }
    }

    // The same where a word's halves lie apart: each may be beyond K.
    private static void RestHalves<TFormat, TInput>(LinearArgs a, SkinnyPlace place, (int Chunk, int Start, int Column) at, ref SkinnyChunk rest, ref SkinnyInputs inputs0, ref SkinnyInputs inputs1)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        int word = at.Chunk * SkinnyGemm.ChunkWords;
        U2 none = default;
        if (at.Start + at.Column < a.K)
        {
            rest.Row0 = Join(Mem.LoadStream2(ref place.Row0[word]), none);
            rest.Row1 = Join(Mem.LoadStream2(ref place.Row1[word]), none);
            rest.Row2 = Join(Mem.LoadStream2(ref place.Row2[word]), none);
            rest.Row3 = Join(Mem.LoadStream2(ref place.Row3[word]), none);
            inputs0.X0 = Join(Mem.LoadGlobal2(ref place.Input0.Row[word]), none);
            inputs1.X0 = Join(Mem.LoadGlobal2(ref place.Input1.Row[word]), none);
        }
        if (at.Start + at.Column + 32 < a.K)
        {
            rest.Row0 = WithSecond(rest.Row0, Mem.LoadStream2At(ref place.Row0[word], 32));
            rest.Row1 = WithSecond(rest.Row1, Mem.LoadStream2At(ref place.Row1[word], 32));
            rest.Row2 = WithSecond(rest.Row2, Mem.LoadStream2At(ref place.Row2[word], 32));
            rest.Row3 = WithSecond(rest.Row3, Mem.LoadStream2At(ref place.Row3[word], 32));
            inputs0.X0 = WithSecond(inputs0.X0, Mem.LoadGlobal2At(ref place.Input0.Row[word], 32));
            inputs1.X0 = WithSecond(inputs1.X0, Mem.LoadGlobal2At(ref place.Input1.Row[word], 32));
        }
    }

    private static U4 WithSecond(U4 word, U2 second)
    {
        word.Z = second.X;
        word.W = second.Y;
        return word;
    }
}
