using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>A lane's addresses of the codes of x in the four steps of a turn, and of the multipliers of its row.</summary>
internal struct Nvfp4Inputs
{
    public ArrayView<ushort> Step0, Step1, Step2, Step3;
    public ArrayView<uint> Scales;
}

/// <summary>A warp's fragments of W of the four steps of a turn, and the lane's multipliers of two of them, a word a step.</summary>
internal struct Nvfp4Weights
{
    public GemmFragments Step0, Step1, Step2, Step3;
    public U4 Row0, Row1;
}

/// <summary>
/// A turn of <see cref="Gemm"/> with E2M1 codes on both sides: 256 columns. Tensor cores multiply the multipliers of 16 columns themselves, so that sums
/// are totals.
/// </summary>
/// <remarks>
/// Codes are moved four at a time, as if they were a BF16 number; <see cref="LinearArgs.K"/> counts fours. A row's multipliers of a turn are 16 bytes, requested
/// in words of four, so K is a multiple of 64.
/// </remarks>
internal static class Nvfp4Products
{
    /// <summary>What K must be a multiple of.</summary>
    public const int Columns = 64;

    // A row's multipliers of a turn: 16 bytes, four words.
    private const int ScaleBytes = 16, WordsShift = 2;

    // Rows of codes are 128 bytes, those of multipliers 16.
    private const int RowShift = 3;

    // Fours of codes that a word of multipliers is for: 16.
    private const int FoursShift = 4;

    /// <summary>Requests the multipliers of a turn; <paramref name="k"/> counts fours. Beyond K they are zeros, as the codes are.</summary>
    public static void RequestScales<TFormat, TTile, TStages, TWarp, TEpilogue>(LinearArgs a, ArrayView<byte> shared, GemmSource source, int stage, int k)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
        where TEpilogue : struct, IGemmEpilogue
    {
        ArrayView<uint> target = shared.SubView(Start<TFormat, TTile, TStages, TWarp>(stage), (TTile.M + TTile.N) * ScaleBytes).Cast<uint>();
        ArrayView<int> rows = shared.SubView(GemmSizes<TFormat, TTile, TStages, TWarp>.RowsStart + (TTile.M * sizeof(int)), TTile.M * sizeof(int)).Cast<int>();
        ArrayView<uint> inputs = a.InputScales.Groups.Cast<uint>(), weights = a.ScaleTable.Groups.Cast<uint>();
        int wordsInRow = a.K >> FoursShift, word = Group.IdxX & ((1 << WordsShift) - 1);
        int column = (k >> FoursShift) + word, bytes = column < wordsInRow ? sizeof(uint) : 0;
        column = IntrinsicMath.Min(column, wordsInRow - 1);
        for (int i = Group.IdxX >> WordsShift; i < TTile.M; i += Group.DimX >> WordsShift)
        {
            // A row's number, since there are no experts here; all ones for a row that is none.
            int row = rows[i], none = row >> 31;
            CpAsync.Copy4ZeroFill(ref target[(i << WordsShift) + word], ref inputs[((long)(row & ~none) * wordsInRow) + column], bytes & ~none);
        }
        for (int i = Group.IdxX >> WordsShift; i < TTile.N; i += Group.DimX >> WordsShift)
        {
            long row = ((long)source.Slab * a.N) + GemmOutput.WeightRow<TTile, TEpilogue>(i, source.FirstColumn, a.N);
            CpAsync.Copy4ZeroFill(ref target[((TTile.M + i) << WordsShift) + word], ref weights[(row * wordsInRow) + column], bytes);
        }
    }

    /// <summary>The products of one stage.</summary>
    public static void Turn<TFormat, TTile, TStages, TWarp>(ArrayView<byte> shared, GemmPlace place, int stage, ref TWarp sums)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
    {
        int start = stage * GemmSizes<TFormat, TTile, TStages, TWarp>.StageBytes, scales = Start<TFormat, TTile, TStages, TWarp>(stage);
        int lane = Group.IdxX & 31, firstInput = ((Group.IdxX >> 5) >> GemmSizes<TFormat, TTile, TStages, TWarp>.WarpsShift) * TWarp.InputTiles * 8;
        Nvfp4Inputs x;
        x.Step0 = GemmProducts.Rows(shared, start, place.Input, 0);
        x.Step1 = GemmProducts.Rows(shared, start, place.Input, 1);
        x.Step2 = GemmProducts.Rows(shared, start, place.Input, 2);
        x.Step3 = GemmProducts.Rows(shared, start, place.Input, 3);
        x.Scales = shared.SubView(scales + ((firstInput + MmaFragment.BScaleColumn(lane)) * ScaleBytes), ScaleBytes).Cast<uint>();
        ArrayView<uint> rows = shared.SubView(scales + ((TTile.M + place.WeightRow + MmaFragment.AScaleRow(lane)) * ScaleBytes), ScaleBytes).Cast<uint>();
        Nvfp4Weights w = default;
        w.Step0 = GemmProducts.Fragments<TWarp>(shared, place, start, 0);
        w.Step1 = GemmProducts.Fragments<TWarp>(shared, place, start, 1);
        w.Step2 = GemmProducts.Fragments<TWarp>(shared, place, start, 2);
        w.Step3 = GemmProducts.Fragments<TWarp>(shared, place, start, 3);
        w.Row0 = Mem.LoadSharedAt(ref rows[0], 0);
        if (TWarp.WeightTiles > 1)
            w.Row1 = Mem.LoadSharedAt(ref rows[0], 16 * ScaleBytes);
        TWarp.Codes(ref sums, x, 0, w);
    }

    /// <summary>The lane's multipliers of the fragment of x at this place, a word a step.</summary>
    public static U4 Scales(Nvfp4Inputs x, int bytes) => Mem.LoadSharedAt(ref x.Scales[0], bytes >> RowShift);

    /// <summary>Those of one step.</summary>
    public static GroupScales Join(uint row0, uint row1, uint first, uint second)
    {
        GroupScales scales;
        scales.Row0 = row0;
        scales.Row1 = row1;
        scales.First = first;
        scales.Second = second;
        return scales;
    }

    private static int Start<TFormat, TTile, TStages, TWarp>(int stage)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp> =>
        (stage * GemmSizes<TFormat, TTile, TStages, TWarp>.StageBytes) + GemmSizes<TFormat, TTile, TStages, TWarp>.OperandBytes;
}
