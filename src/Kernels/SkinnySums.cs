using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>The end of a block of <see cref="SkinnyGemm"/>: the warps' sums meet in shared memory.</summary>
internal static class SkinnySums
{
    // Sums of one warp in one tile of x.
    private const int TileSums = SkinnyGemm.Rows * SkinnyGemm.Columns;

    /// <summary>Adds the sums of the warps, in their order, and stores them. Called once by every thread of the block.</summary>
    public static void Add<TFormat, TInput, TOutput, TTiles>(LinearArgs a, SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TOutput : struct, IOutput
        where TTiles : struct, ITiles
    {
        ArrayView<float> partials = SharedMemory.GetDynamic<byte>().Cast<float>();
        int lane = Group.IdxX & 31, warps = Group.DimX >> 5;
        int start = (Group.IdxX >> 5) * TTiles.Count * TileSums;
        Publish(partials, start, lane, sums.Upper0);
        Publish(partials, start + (TileSums / 2), lane, sums.Lower0);
        if (TTiles.Count == 2)
        {
            Publish(partials, start + TileSums, lane, sums.Upper1);
            Publish(partials, start + (TileSums * 3 / 2), lane, sums.Lower1);
        }
        // All warps' sums are there before they are added.
        Block.Barrier();
        for (int i = Group.IdxX; i < TileSums * TTiles.Count; i += Group.DimX)
        {
            bool halves = TInput.ScaleColumns == 32;
            int m = SkinnyGemm.FirstInput<TInput>(a) + ((i >> 8) * SkinnyGemm.TileRows(halves)) + (i & 7);
            long n = SkinnyGemm.FirstRow<TInput>(a) + ((i >> 3) & 31);
            if (n >= a.N || m >= a.M || (halves && (i & 7) >= SkinnyGemm.TileRows(halves)))
                continue;
            float sum = TInput.AreIntegers ? SumIntegers(partials, i, TTiles.Count * TileSums, warps)
                : halves ? SumHalves(partials, i, TTiles.Count * TileSums, warps)
                : Sum(partials, i, TTiles.Count * TileSums, warps);
            TOutput.Store(a.Y, ((long)m * a.YStride) + n, Finish<TFormat, TInput>(a, sum, m, (int)n));
        }
    }

    private static float Sum(ArrayView<float> partials, int first, int step, int warps)
    {
        float sum = 0;
        for (int warp = 0; warp < warps; warp++)
            sum += partials[(warp * step) + first];
        return sum;
    }

    // A row's first halves, then its second ones.
    private static float SumHalves(ArrayView<float> partials, int first, int step, int warps)
    {
        float firsts = 0, seconds = 0;
        for (int warp = 0; warp < warps; warp++)
        {
            firsts += partials[(warp * step) + first];
            seconds += partials[(warp * step) + first + SkinnyGemm.TileRows(true)];
        }
        return firsts + seconds;
    }

    private static float SumIntegers(ArrayView<float> partials, int first, int step, int warps)
    {
        ArrayView<int> integers = partials.Cast<int>();
        int sum = 0;
        for (int warp = 0; warp < warps; warp++)
            sum += integers[(warp * step) + first];
        return sum;
    }

    // What multiplies whole sums: weights' first, as everywhere.
    public static float Finish<TFormat, TInput>(LinearArgs a, float sum, int m, int n)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        if (TFormat.HasGroupScales)
            sum *= a.Scales[0] * (TInput.AreCodes ? TFormat.Correction * TFormat.Correction : TFormat.Correction);
        if (TInput.AreIntegers)
            sum = Fast.Mul(sum, a.Scales[a.ScaleIndex(0, n, 0)]);
        return TInput.HasRowScales ? Fast.Mul(sum, a.InputScales.Blocks[m]) : sum;
    }

    // partials[warp][tile of x][row][column]
    private static void Publish(ArrayView<float> partials, int start, int lane, F4 sum)
    {
        partials[start + (MmaFragment.CRow(lane, 0) * SkinnyGemm.Columns) + MmaFragment.CColumn(lane, 0)] = sum.X;
        partials[start + (MmaFragment.CRow(lane, 1) * SkinnyGemm.Columns) + MmaFragment.CColumn(lane, 1)] = sum.Y;
        partials[start + (MmaFragment.CRow(lane, 2) * SkinnyGemm.Columns) + MmaFragment.CColumn(lane, 2)] = sum.Z;
        partials[start + (MmaFragment.CRow(lane, 3) * SkinnyGemm.Columns) + MmaFragment.CColumn(lane, 3)] = sum.W;
    }
}

/// <summary>Tiles of 8 columns, rows of x, that share the decoded weights.</summary>
internal interface ITiles
{
    static abstract int Count { get; }
}

/// <summary>1..8 rows; 1..4 where halves of a chunk are scaled apart.</summary>
internal readonly struct OneTile : ITiles
{
    public static int Count => 1;
}

/// <summary>Up to twice as many.</summary>
internal readonly struct TwoTiles : ITiles
{
    public static int Count => 2;
}
