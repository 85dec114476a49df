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
    public static void Add<TFormat, TOutput, TTiles>(LinearArgs a, SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
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
        Group.Barrier();
        float scale = TFormat.HasGroupScales ? a.Scales[0] * TFormat.Correction : 1f;
        for (int i = Group.IdxX; i < TileSums * TTiles.Count; i += Group.DimX)
        {
            int m = ((i >> 8) * SkinnyGemm.Columns) + (i & 7);
            long n = ((long)Grid.IdxX * SkinnyGemm.Rows) + ((i >> 3) & 31);
            if (n >= a.N || m >= a.M)
                continue;
            float sum = 0;
            for (int warp = 0; warp < warps; warp++)
                sum += partials[(warp * TTiles.Count * TileSums) + i];
            TOutput.Store(a.Y, ((long)m * a.YStride) + n, TFormat.HasGroupScales ? sum * scale : sum);
        }
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

/// <summary>Tiles of 8 rows of x that share the decoded weights.</summary>
internal interface ITiles
{
    static abstract int Count { get; }
}

/// <summary>1..8 rows.</summary>
internal readonly struct OneTile : ITiles
{
    public static int Count => 1;
}

/// <summary>9..16 rows.</summary>
internal readonly struct TwoTiles : ITiles
{
    public static int Count => 2;
}
