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

/// <summary>
/// Global to shared memory, asynchronously, 16 bytes a copy. Rows of x, and BF16 rows of W, are 64 columns (128 bytes) long in shared
/// memory, their eight 16-byte units exchanged by the row's last three bits: neither eight rows at one place nor two rows at four
/// places meet in a bank. Codes are narrower and lie as they are, which has the same effect.
/// </summary>
/// <remarks>Nothing here branches: what lies beyond K, and rows that are none, are copies of no bytes, which fill zeros.</remarks>
internal static class GemmCopies
{
    /// <summary>Bytes of a row of x in shared memory.</summary>
    public const int RowBytes = 128;

    private const int UnitBytes = 16;

    /// <summary>Rows of x, columns from <paramref name="k"/>.</summary>
    public static void Inputs<TFormat, TTile, TStages, TWarp>(LinearArgs a, ArrayView<byte> shared, int stage, int k)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
    {
        int unitsShift = GemmSizes<TFormat, TTile, TStages, TWarp>.Log2(TTile.K) - 3;
        int threadsShift = GemmSizes<TFormat, TTile, TStages, TWarp>.ThreadsShift;
        int unit = Group.IdxX & ((1 << unitsShift) - 1), row = Group.IdxX >> unitsShift;
        int column = k + (unit * 8);
        // K is a multiple of 8: a unit lies within it or beyond it.
        int bytes = IntrinsicMath.Min(IntrinsicMath.Max(a.K - column, 0), 8) * 2;
        InputCopy copy;
        copy.Sources = shared.SubView(GemmSizes<TFormat, TTile, TStages, TWarp>.RowsStart + (TTile.M * sizeof(int)), TTile.M * sizeof(int)).Cast<int>();
        copy.X = a.X.Cast<uint>();
        copy.Target = shared.Cast<uint>();
        copy.RowWords = a.K >> 1;
        copy.Word = IntrinsicMath.Min(column, a.K - 8) >> 1;
        copy.Bytes = bytes;
        copy.Row = row;
        copy.Start = ((stage * GemmSizes<TFormat, TTile, TStages, TWarp>.StageBytes) + ((unit >> 3) * TTile.M * RowBytes) + (row * RowBytes) + (((unit & 7) ^ (row & 7)) * UnitBytes)) >> 2;
        // Rows that a thread copies are a multiple of eight apart: the exchange is the same for all.
        copy.Step = 1 << (threadsShift - unitsShift);
        int passes = (TTile.M << unitsShift) >> threadsShift;
        if (passes == 8)
            Eight(copy);
        else if (passes == 4)
            Four(copy, 0);
        else if (passes == 2)
            Two(copy, 0);
        else
            One(copy, 0);
    }

    /// <summary>Rows of W as they are stored, columns from <paramref name="k"/>.</summary>
    public static void Weights<TFormat, TTile, TStages, TWarp, TEpilogue>(LinearArgs a, ArrayView<byte> shared, GemmSource source, int stage, int slab, int k)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
        where TEpilogue : struct, IGemmEpilogue
    {
        int codesShift = TFormat.CodesPerWordShift + 2;
        int unitsShift = GemmSizes<TFormat, TTile, TStages, TWarp>.Log2(TTile.K) - codesShift;
        int threadsShift = GemmSizes<TFormat, TTile, TStages, TWarp>.ThreadsShift;
        // Units of a row and 64 columns.
        int innerShift = 6 - codesShift;
        int unit = Group.IdxX & ((1 << unitsShift) - 1), row = Group.IdxX >> unitsShift;
        int column = k + (unit << codesShift), inner = unit & ((1 << innerShift) - 1);
        int place = TFormat.CodesPerWordShift == 1 ? inner ^ (row & 7) : inner;
        WeightCopy<TTile, TEpilogue> copy;
        copy.Codes = a.Codes.Cast<uint>();
        copy.Target = shared.Cast<uint>();
        copy.RowWords = a.K >> TFormat.CodesPerWordShift;
        copy.Slab = (long)slab * a.N;
        copy.Word = IntrinsicMath.Min(column, a.K - (1 << codesShift)) >> TFormat.CodesPerWordShift;
        copy.Bytes = (IntrinsicMath.Min(IntrinsicMath.Max(a.K - column, 0), 1 << codesShift) << 4) >> codesShift;
        copy.Row = row;
        copy.FirstColumn = source.FirstColumn;
        copy.N = a.N;
        copy.RowStep = 1 << (threadsShift - unitsShift);
        copy.WordStep = 1 << (threadsShift - unitsShift + GemmSizes<TFormat, TTile, TStages, TWarp>.CodeRowShift - 2);
        copy.Start = ((stage * GemmSizes<TFormat, TTile, TStages, TWarp>.StageBytes) + GemmSizes<TFormat, TTile, TStages, TWarp>.InputBytes
            + ((((unit >> innerShift) * TTile.N) + row) << GemmSizes<TFormat, TTile, TStages, TWarp>.CodeRowShift) + (place * UnitBytes)) >> 2;
        int passes = (TTile.N << unitsShift) >> threadsShift;
        if (passes == 8)
            Eight(copy);
        else if (passes == 4)
            Four(copy, 0);
        else if (passes == 2)
            Two(copy, 0);
        else
            One(copy, 0);
    }

    private struct InputCopy
    {
        public ArrayView<int> Sources;
        public ArrayView<uint> X, Target;
        public int RowWords, Word, Bytes, Row, Start, Step;
    }

    private struct WeightCopy<TTile, TEpilogue>
    {
        public ArrayView<uint> Codes, Target;
        public long Slab;
        public int RowWords, Word, Bytes, Row, FirstColumn, N, Start, RowStep, WordStep;
    }

    private static void One(InputCopy c, int pass)
    {
        int source = c.Sources[c.Row + (pass * c.Step)];
        // All ones for a row that is none.
        int none = source >> 31;
        long word = ((long)(source & ~none) * c.RowWords) + c.Word;
        CpAsync.Copy16ZeroFill(ref c.Target[c.Start + (pass * c.Step * (RowBytes / 4))], ref c.X[word], c.Bytes & ~none);
    }

    private static void Two(InputCopy c, int pass)
    {
        One(c, pass);
        One(c, pass + 1);
    }

    private static void Four(InputCopy c, int pass)
    {
        Two(c, pass);
        Two(c, pass + 2);
    }

    private static void Eight(InputCopy c)
    {
        Four(c, 0);
        Four(c, 4);
    }

    // Rows beyond the matrix repeat its last: they are not stored.
    private static void One<TTile, TEpilogue>(WeightCopy<TTile, TEpilogue> c, int pass)
        where TTile : struct, IGemmTile
        where TEpilogue : struct, IGemmEpilogue
    {
        long row = c.Slab + GemmOutput.WeightRow<TTile, TEpilogue>(c.Row + (pass * c.RowStep), c.FirstColumn, c.N);
        CpAsync.Copy16ZeroFill(ref c.Target[c.Start + (pass * c.WordStep)], ref c.Codes[(row * c.RowWords) + c.Word], c.Bytes);
    }

    private static void Two<TTile, TEpilogue>(WeightCopy<TTile, TEpilogue> c, int pass)
        where TTile : struct, IGemmTile
        where TEpilogue : struct, IGemmEpilogue
    {
        One(c, pass);
        One(c, pass + 1);
    }

    private static void Four<TTile, TEpilogue>(WeightCopy<TTile, TEpilogue> c, int pass)
        where TTile : struct, IGemmTile
        where TEpilogue : struct, IGemmEpilogue
    {
        Two(c, pass);
        Two(c, pass + 2);
    }

    private static void Eight<TTile, TEpilogue>(WeightCopy<TTile, TEpilogue> c)
        where TTile : struct, IGemmTile
        where TEpilogue : struct, IGemmEpilogue
    {
        Four(c, 0);
        Four(c, 4);
    }
}
