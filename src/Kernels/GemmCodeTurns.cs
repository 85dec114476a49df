using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>A lane's rows of W: of each of two fragments the row g and the row g + 8.</summary>
internal struct GemmLaneRows
{
    public int Upper0, Lower0, Upper1, Lower1;
}

/// <summary>
/// The loop of <see cref="Gemm"/> over weights that are codes, at most 32 rows of them a warp: 64 columns are decoded and then multiplied with all rows of x, whose
/// units are loaded a pair of fragments ahead.
/// </summary>
internal static class GemmCodeTurns
{
    /// <summary>The products of all turns; the first stages are on their way.</summary>
    public static void Multiply<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(LinearArgs a, GemmCopy copy, ArrayView<byte> shared, GemmSource source, GemmPlace place, int turns, ref TWarp sums)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
        where TRows : struct, IRowMap
        where TEpilogue : struct, IGemmEpilogue
    {
        const int HalfColumns = 64;
        GemmLaneRows rows = Rows<TTile, TWarp, TEpilogue>(place.WeightRow, source.FirstColumn, a.N);
        int total = turns * TFormat.Terms, full = 0, empty = TStages.Count - 1;
        GemmCodes codes = default;
        GemmScales scales = Multipliers<TFormat, TWarp>(a, rows, (source.Slab, place.Column), ref codes);
        for (int turn = 0; turn < total; turn++)
        {
            CpAsync.Wait(TStages.Count - 2);
            // Everyone's copies of this turn are complete, and everyone has read the stage that is filled next.
            Block.Barrier();
            int start = full * GemmSizes<TFormat, TTile, TStages, TWarp>.StageBytes;
            GemmUnitRows inputs = UnitRows(shared, start + place.Input);
            LoadCodes<TFormat, TWarp>(shared, start + place.Weight, ref codes);
            GemmUnits x = default;
            x.LoadEven(inputs, 0);
            x.LoadOdd(inputs, 0);
            GemmChunk w = Decode<TFormat, TWarp>(codes, scales);
            (int slab, int k) = Gemm.At<TFormat, TTile>(source, turn, turns);
            (int nextSlab, int nextK) = Gemm.At<TFormat, TTile>(source, turn + 1, turns);
            scales = Multipliers<TFormat, TWarp>(a, rows, TTile.K == 128 ? (slab, k + HalfColumns + place.Column) : (nextSlab, nextK + place.Column), ref codes);
            Gemm.Request<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(a, copy, shared, source, empty, Gemm.At<TFormat, TTile>(source, turn + TStages.Count - 1, turns));
            TWarp.AllButLast<TFormat>(ref sums, ref x, inputs, 0, w);
            TWarp.Last<TFormat>(ref sums, x, w);
            if (TTile.K == 128)
            {
                inputs = UnitRows(shared, start + (TTile.M * GemmCopies.RowBytes) + place.Input);
                LoadCodes<TFormat, TWarp>(shared, start + (TTile.N << GemmSizes<TFormat, TTile, TStages, TWarp>.CodeRowShift) + place.Weight, ref codes);
                x.LoadEven(inputs, 0);
                x.LoadOdd(inputs, 0);
                w = Decode<TFormat, TWarp>(codes, scales);
                scales = Multipliers<TFormat, TWarp>(a, rows, (nextSlab, nextK + place.Column), ref codes);
                TWarp.AllButLast<TFormat>(ref sums, ref x, inputs, 0, w);
                TWarp.Last<TFormat>(ref sums, x, w);
            }
            empty = full;
            full = full + 1 == TStages.Count ? 0 : full + 1;
        }
    }

    private static GemmChunk Decode<TFormat, TWarp>(GemmCodes codes, GemmScales scales)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp>
    {
        GemmChunk w;
        w.Scales = scales;
        w.Step0 = GemmProducts.Decode<TFormat, TWarp>(codes, 0);
        w.Step1 = GemmProducts.Decode<TFormat, TWarp>(codes, 1);
        w.Step2 = GemmProducts.Decode<TFormat, TWarp>(codes, 2);
        w.Step3 = GemmProducts.Decode<TFormat, TWarp>(codes, 3);
        return w;
    }

    // Units 2t and 2t + 1 of a row of x: exchanging units keeps them neighbours.
    private static GemmUnitRows UnitRows(ArrayView<byte> shared, int bytes)
    {
        GemmUnitRows rows;
        rows.Even = shared.SubView(bytes, 16).Cast<uint>();
        rows.Odd = shared.SubView(bytes ^ 16, 16).Cast<uint>();
        return rows;
    }

    private static GemmLaneRows Rows<TTile, TWarp, TEpilogue>(int first, int firstColumn, int n)
        where TTile : struct, IGemmTile
        where TWarp : struct, IGemmWarp<TWarp>
        where TEpilogue : struct, IGemmEpilogue
    {
        GemmLaneRows rows = default;
        rows.Upper0 = GemmOutput.WeightRow<TTile, TEpilogue>(first, firstColumn, n);
        rows.Lower0 = GemmOutput.WeightRow<TTile, TEpilogue>(first + 8, firstColumn, n);
        if (TWarp.WeightTiles > 1)
        {
            rows.Upper1 = GemmOutput.WeightRow<TTile, TEpilogue>(first + 16, firstColumn, n);
            rows.Lower1 = GemmOutput.WeightRow<TTile, TEpilogue>(first + 24, firstColumn, n);
        }
        return rows;
    }

    // What is in global memory of the 16 columns from a place: multipliers of sums, and what decoding needs. Beyond K codes are zeros, and any will do.
    private static GemmScales Multipliers<TFormat, TWarp>(LinearArgs a, GemmLaneRows rows, (int Slab, int K) from, ref GemmCodes codes)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp>
    {
        int k = IntrinsicMath.Min(from.K, a.K - 1);
        GemmScales scales = default;
        if (TFormat.HasOperands)
        {
            codes.UpperOperand0 = TFormat.Operand(a.ScaleTable, from.Slab, rows.Upper0, k);
            codes.LowerOperand0 = TFormat.Operand(a.ScaleTable, from.Slab, rows.Lower0, k);
            if (TWarp.WeightTiles > 1)
            {
                codes.UpperOperand1 = TFormat.Operand(a.ScaleTable, from.Slab, rows.Upper1, k);
                codes.LowerOperand1 = TFormat.Operand(a.ScaleTable, from.Slab, rows.Lower1, k);
            }
        }
        if (TFormat.HasRowScales)
        {
            ArrayView<uint> table = a.Scales.Cast<uint>().SubView(((long)from.Slab * a.ScaleTable.PerSlab) + (k >> a.ColumnShift));
            scales.Upper0 = Multiplier(a, table, rows.Upper0);
            scales.Lower0 = Multiplier(a, table, rows.Lower0);
            if (TWarp.WeightTiles > 1)
            {
                scales.Upper1 = Multiplier(a, table, rows.Upper1);
                scales.Lower1 = Multiplier(a, table, rows.Lower1);
            }
        }
        return scales;
    }

    private static float Multiplier(LinearArgs a, ArrayView<uint> table, int row) =>
        Interop.IntAsFloat(Mem.LoadReadOnly1(ref table[(row >> a.ScaleTable.RowShift) * a.ScaleTable.Columns]));

    // The lane's codes of rows g, g + 8, g + 16 and g + 24 of its warp.
    private static void LoadCodes<TFormat, TWarp>(ArrayView<byte> shared, int bytes, ref GemmCodes codes)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp>
    {
        ArrayView<uint> words = shared.SubView(bytes, 8).Cast<uint>();
        int eightRows = 8 << (8 - TFormat.CodesPerWordShift);
        codes.Upper0 = Load<TFormat>(words, 0);
        codes.Lower0 = Load<TFormat>(words, eightRows);
        if (TWarp.WeightTiles > 1)
        {
            codes.Upper1 = Load<TFormat>(words, 2 * eightRows);
            codes.Lower1 = Load<TFormat>(words, 3 * eightRows);
        }
    }

    /// <summary>A lane's 16 codes of a row in shared memory: 16 bytes, or 8 of four-bit codes.</summary>
    public static U4 Load<TFormat>(ArrayView<uint> codes, int bytes)
        where TFormat : struct, ITiledFormat
    {
        if (TFormat.CodesPerWordShift == 2)
            return Mem.LoadSharedAt(ref codes[0], bytes);
        U2 half = Mem.LoadShared2At(ref codes[0], bytes);
        U4 word = default;
        word.X = half.X;
        word.Y = half.Y;
        return word;
    }
}
