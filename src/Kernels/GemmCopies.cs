using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>What a block copies from: the same for all threads.</summary>
internal struct GemmSource
{
    /// <summary>The first of the matrix's slabs.</summary>
    public int Slab;

    /// <summary>The first column of y (and, unless it is gated, row of W) of the tile.</summary>
    public int FirstColumn;
}

/// <summary>Where the rows begin that a thread copies a 16-byte unit of, in such units; negative for a row that is none.</summary>
internal struct GemmCopyRows
{
    public int Row0, Row1, Row2, Row3, Row4, Row5, Row6, Row7;
}

/// <summary>What a thread copies every turn: found once, so that a copy in the loop is an address and an instruction.</summary>
internal struct GemmCopy
{
    public GemmCopyRows Inputs, Weights;

    /// <summary>Bytes from the beginning of a stage to the thread's first unit of x and of W.</summary>
    public int InputTarget, WeightTarget;

    /// <summary>The thread's first column of a turn in x and in W.</summary>
    public int InputColumn, WeightColumn;
}

/// <summary>
/// Global to shared memory, asynchronously, 16 bytes a copy. Rows of x, and BF16 rows of W, are 64 columns (128 bytes) long in shared
/// memory, their eight 16-byte units exchanged by the row's last three bits: neither eight rows at one place nor two rows at four
/// places meet in a bank. Codes are narrower and lie as they are, which has the same effect.
/// </summary>
/// <remarks>Nothing here branches: what lies beyond K, and rows of experts that are none, are copies of no bytes, which fill zeros.</remarks>
internal static class GemmCopies
{
    /// <summary>Bytes of a row of x in shared memory.</summary>
    public const int RowBytes = 128;

    private const int UnitBytes = 16;

    /// <summary>A thread's rows and places.</summary>
    public static GemmCopy Locate<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(LinearArgs a, ArrayView<byte> shared, GemmSource source)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
        where TRows : struct, IRowMap
        where TEpilogue : struct, IGemmEpilogue
    {
        GemmCopy copy;
        int unitsShift = InputUnitsShift<TTile>(), unit = Group.IdxX & ((1 << unitsShift) - 1), row = Group.IdxX >> unitsShift;
        copy.InputColumn = unit * 8;
        copy.InputTarget = ((unit >> 3) * TTile.M * RowBytes) + (row * RowBytes) + (((unit & 7) ^ (row & 7)) * UnitBytes);
        copy.Inputs = InputRows<TRows>(a, Sources<TFormat, TTile, TStages, TWarp>(shared), row, 1 << (GemmSizes<TFormat, TTile, TStages, TWarp>.ThreadsShift - unitsShift), InputPasses<TFormat, TTile, TStages, TWarp>());

        int codesShift = TFormat.CodesPerWordShift + 2;
        unitsShift = WeightUnitsShift<TFormat, TTile>();
        // Units of a row and 64 columns.
        int innerShift = 6 - codesShift;
        unit = Group.IdxX & ((1 << unitsShift) - 1);
        row = Group.IdxX >> unitsShift;
        int inner = unit & ((1 << innerShift) - 1), place = TFormat.CodesPerWordShift == 1 ? inner ^ (row & 7) : inner;
        copy.WeightColumn = unit << codesShift;
        copy.WeightTarget = GemmSizes<TFormat, TTile, TStages, TWarp>.InputBytes + ((((unit >> innerShift) * TTile.N) + row) << GemmSizes<TFormat, TTile, TStages, TWarp>.CodeRowShift) + (place * UnitBytes);
        WeightRows<TTile, TEpilogue> rows;
        rows.First = row;
        rows.Step = 1 << (GemmSizes<TFormat, TTile, TStages, TWarp>.ThreadsShift - unitsShift);
        rows.FirstColumn = source.FirstColumn;
        rows.N = a.N;
        rows.Units = a.K >> codesShift;
        copy.Weights = Rows(rows, WeightPasses<TFormat, TTile, TStages, TWarp>());
        return copy;
    }

    /// <summary>Rows of x, columns from <paramref name="k"/>.</summary>
    public static void Inputs<TFormat, TTile, TStages, TWarp, TRows>(LinearArgs a, GemmCopy copy, ArrayView<byte> shared, int stage, int k)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
        where TRows : struct, IRowMap
    {
        // K is a multiple of 8: a unit lies within it or beyond it.
        int column = k + copy.InputColumn;
        ArrayView<U4> from = a.X.Cast<U4>().SubView(IntrinsicMath.Min(column, a.K - 8) >> 3);
        ArrayView<uint> to = shared.SubView((stage * GemmSizes<TFormat, TTile, TStages, TWarp>.StageBytes) + copy.InputTarget).Cast<uint>();
        // Rows that a thread copies are a multiple of eight apart: the exchange is the same for all.
        int step = RowBytes << (GemmSizes<TFormat, TTile, TStages, TWarp>.ThreadsShift - InputUnitsShift<TTile>());
        if (LooksUp<TFormat, TTile, TStages, TWarp, TRows>())
        {
            ArrayView<int> sources = Sources<TFormat, TTile, TStages, TWarp>(shared);
            int row = Group.IdxX >> InputUnitsShift<TTile>(), rows = 1 << (GemmSizes<TFormat, TTile, TStages, TWarp>.ThreadsShift - InputUnitsShift<TTile>());
            copy.Inputs.Row6 = sources[row + (6 * rows)];
            copy.Inputs.Row7 = sources[row + (7 * rows)];
        }
        Copy<TRows>(from, to, copy.Inputs, column < a.K ? 1 : 0, (InputPasses<TFormat, TTile, TStages, TWarp>(), step));
    }

    /// <summary>Rows of W as they are stored, columns from <paramref name="k"/>.</summary>
    public static void Weights<TFormat, TTile, TStages, TWarp>(LinearArgs a, GemmCopy copy, ArrayView<byte> shared, int stage, int slab, int k)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
    {
        int codesShift = TFormat.CodesPerWordShift + 2, column = k + copy.WeightColumn;
        long start = ((long)slab * a.N * (a.K >> codesShift)) + (IntrinsicMath.Min(column, a.K - (1 << codesShift)) >> codesShift);
        ArrayView<U4> from = a.Codes.Cast<U4>().SubView(start);
        ArrayView<uint> to = shared.SubView((stage * GemmSizes<TFormat, TTile, TStages, TWarp>.StageBytes) + copy.WeightTarget).Cast<uint>();
        int step = 1 << (GemmSizes<TFormat, TTile, TStages, TWarp>.ThreadsShift - WeightUnitsShift<TFormat, TTile>() + GemmSizes<TFormat, TTile, TStages, TWarp>.CodeRowShift);
        Copy<OneMatrix>(from, to, copy.Weights, column < a.K ? 1 : 0, (WeightPasses<TFormat, TTile, TStages, TWarp>(), step));
    }

    // Rows of an expert are in no order, a register each. Where sums of 128 × 128 and what decodes groups leave too few, two of eight are looked up in shared memory every turn (docs/kernels/gemm.md).
    private static bool LooksUp<TFormat, TTile, TStages, TWarp, TRows>()
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
        where TRows : struct, IRowMap => TRows.IsGrouped && TFormat.HasMatrixScale && InputPasses<TFormat, TTile, TStages, TWarp>() == 8;

    private static ArrayView<int> Sources<TFormat, TTile, TStages, TWarp>(ArrayView<byte> shared)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp> =>
        shared.SubView(GemmSizes<TFormat, TTile, TStages, TWarp>.RowsStart + (TTile.M * sizeof(int)), TTile.M * sizeof(int)).Cast<int>();

    private struct WeightRows<TTile, TEpilogue>
    {
        public int First, Step, FirstColumn, N, Units;
    }

    private static int InputUnitsShift<TTile>()
        where TTile : struct, IGemmTile => GemmSizes.Log2(TTile.K) - 3;

    private static int WeightUnitsShift<TFormat, TTile>()
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile => GemmSizes.Log2(TTile.K) - TFormat.CodesPerWordShift - 2;

    private static int InputPasses<TFormat, TTile, TStages, TWarp>()
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp> => (TTile.M << InputUnitsShift<TTile>()) >> GemmSizes<TFormat, TTile, TStages, TWarp>.ThreadsShift;

    private static int WeightPasses<TFormat, TTile, TStages, TWarp>()
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp> => (TTile.N << WeightUnitsShift<TFormat, TTile>()) >> GemmSizes<TFormat, TTile, TStages, TWarp>.ThreadsShift;

    private static GemmCopyRows InputRows<TRows>(LinearArgs a, ArrayView<int> sources, int first, int step, int passes)
        where TRows : struct, IRowMap
    {
        GemmCopyRows rows = default;
        rows.Row0 = InputRow<TRows>(a, sources, first);
        if (passes > 1)
            rows.Row1 = InputRow<TRows>(a, sources, first + step);
        if (passes > 2)
        {
            rows.Row2 = InputRow<TRows>(a, sources, first + (2 * step));
            rows.Row3 = InputRow<TRows>(a, sources, first + (3 * step));
        }
        if (passes > 4)
        {
            rows.Row4 = InputRow<TRows>(a, sources, first + (4 * step));
            rows.Row5 = InputRow<TRows>(a, sources, first + (5 * step));
            rows.Row6 = InputRow<TRows>(a, sources, first + (6 * step));
            rows.Row7 = InputRow<TRows>(a, sources, first + (7 * step));
        }
        return rows;
    }

    // Past the last row of one matrix its first ones once more, where half of the tile or more exists: they are not stored. One row for all of them takes up to twice as long (docs/kernels/gemm.md). Experts have many such rows, which are not read.
    private static int InputRow<TRows>(LinearArgs a, ArrayView<int> sources, int row)
        where TRows : struct, IRowMap
    {
        int source = sources[row];
        if (TRows.IsGrouped)
            return source;
        int other = row < a.M ? row : IntrinsicMath.Min(row - a.M, a.M - 1);
        return (source < 0 ? other : source) * (a.K >> 3);
    }

    private static GemmCopyRows Rows<TTile, TEpilogue>(WeightRows<TTile, TEpilogue> w, int passes)
        where TTile : struct, IGemmTile
        where TEpilogue : struct, IGemmEpilogue
    {
        GemmCopyRows rows = default;
        rows.Row0 = Row(w, 0);
        if (passes > 1)
            rows.Row1 = Row(w, 1);
        if (passes > 2)
        {
            rows.Row2 = Row(w, 2);
            rows.Row3 = Row(w, 3);
        }
        if (passes > 4)
        {
            rows.Row4 = Row(w, 4);
            rows.Row5 = Row(w, 5);
            rows.Row6 = Row(w, 6);
            rows.Row7 = Row(w, 7);
        }
        return rows;
    }

    // Rows beyond the matrix repeat its last: they are not stored.
    private static int Row<TTile, TEpilogue>(WeightRows<TTile, TEpilogue> w, int pass)
        where TTile : struct, IGemmTile
        where TEpilogue : struct, IGemmEpilogue => GemmOutput.WeightRow<TTile, TEpilogue>(w.First + (pass * w.Step), w.FirstColumn, w.N) * w.Units;

    private static void Copy<TRows>(ArrayView<U4> from, ArrayView<uint> to, GemmCopyRows rows, int present, (int Passes, int Step) size)
        where TRows : struct, IRowMap
    {
        One<TRows>(from, to, 0, rows.Row0, present);
        if (size.Passes > 1)
            One<TRows>(from, to, size.Step, rows.Row1, present);
        if (size.Passes > 2)
        {
            One<TRows>(from, to, 2 * size.Step, rows.Row2, present);
            One<TRows>(from, to, 3 * size.Step, rows.Row3, present);
        }
        if (size.Passes > 4)
        {
            One<TRows>(from, to, 4 * size.Step, rows.Row4, present);
            One<TRows>(from, to, 5 * size.Step, rows.Row5, present);
            One<TRows>(from, to, 6 * size.Step, rows.Row6, present);
            One<TRows>(from, to, 7 * size.Step, rows.Row7, present);
        }
    }

    private static void One<TRows>(ArrayView<U4> from, ArrayView<uint> to, int bytes, int row, int present)
        where TRows : struct, IRowMap
    {
        // All ones for a row that is none.
        int none = TRows.IsGrouped ? row >> 31 : 0;
        CpAsync.Copy16At(ref to[0], bytes, ref from[row & ~none], present & ~none);
    }
}
