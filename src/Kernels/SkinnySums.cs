using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>The end of a tile of <see cref="SkinnyGemm"/>: the warps' sums meet in shared memory.</summary>
internal static class SkinnySums
{
    /// <summary>Puts a lane's part of its warp's sums into <c>partials[warp][tile of x][row][column]</c>.</summary>
    public static void Publish<TTiles>(ArrayView<float> partials, int warp, int lane, F4 sum, int tile)
        where TTiles : struct, ITiles
    {
        int start = ((warp * TTiles.Count) + tile) * SkinnyGemm.Rows * SkinnyGemm.Columns;
        partials[start + (MmaFragment.CRow(lane, 0) * SkinnyGemm.Columns) + MmaFragment.CColumn(lane, 0)] = sum.X;
        partials[start + (MmaFragment.CRow(lane, 1) * SkinnyGemm.Columns) + MmaFragment.CColumn(lane, 1)] = sum.Y;
        partials[start + (MmaFragment.CRow(lane, 2) * SkinnyGemm.Columns) + MmaFragment.CColumn(lane, 2)] = sum.Z;
        partials[start + (MmaFragment.CRow(lane, 3) * SkinnyGemm.Columns) + MmaFragment.CColumn(lane, 3)] = sum.W;
    }

    /// <summary>Adds one output over the warps, in their order, and stores it.</summary>
    public static void Store<TOutput, TTiles>(LinearArgs a, ArrayView<float> partials, int index, int warps, int tile)
        where TOutput : struct, IOutput
        where TTiles : struct, ITiles
    {
        int m = ((index >> 7) * SkinnyGemm.Columns) + (index & 7), n = (tile * SkinnyGemm.Rows) + ((index >> 3) & 15);
        if (n >= a.N || m >= a.M)
            return;
        float sum = 0;
        for (int warp = 0; warp < warps; warp++)
            sum += partials[(warp * TTiles.Count * SkinnyGemm.Rows * SkinnyGemm.Columns) + index];
        TOutput.Store(a.Y, ((long)m * a.YStride) + n, sum);
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
