using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Reductions over a block: a warp butterfly, then the warps in ascending order, so the order of a sum is fixed by the block
/// size. All threads of the block must call, and all get the same result. A block of one warp needs no barrier.
/// </summary>
internal static class BlockOps
{
    /// <summary>Warps of the largest block: the length of every scratch view.</summary>
    public const int MaxWarps = 32;

    public static float Sum(float x, ArrayView<float> scratch)
    {
        float sum = WarpOps.Sum(x);
        if (Group.DimX <= Warp.WarpSize)
            return sum;
        if (Warp.LaneIdx == 0)
            scratch[Warp.WarpIdx] = sum;
        Block.Barrier(); // the warps' sums are written before they are read
        sum = scratch[0];
        int warp = 1;
        for (int first = Warp.WarpSize; first < Group.DimX; first += Warp.WarpSize)
            sum += scratch[warp++];
        Block.Barrier(); // the sums are read before the next reduction overwrites them
        return sum;
    }

    /// <summary>The largest value; NaN in any thread gives NaN.</summary>
    public static float Max(float x, ArrayView<float> scratch)
    {
        float max = WarpOps.Max(x);
        if (Group.DimX <= Warp.WarpSize)
            return max;
        if (Warp.LaneIdx == 0)
            scratch[Warp.WarpIdx] = max;
        Block.Barrier(); // the warps' maxima are written before they are read
        max = scratch[0];
        int warp = 1;
        for (int first = Warp.WarpSize; first < Group.DimX; first += Warp.WarpSize)
            max = Larger(max, scratch[warp++]);
        Block.Barrier(); // the maxima are read before the next reduction overwrites them
        return max;
    }

    /// <summary>The larger of two values; NaN if either is: both comparisons fail then, and the sum of both is NaN.</summary>
    public static float Larger(float a, float b) => b <= a ? a : b > a ? b : a + b;

    /// <summary>The largest value and the lowest index that has it. No value may be NaN; a thread without one passes (−∞, <see cref="int.MaxValue"/>).</summary>
    public static ArgMaxResult ArgMax(float value, int index, ArrayView<float> values, ArrayView<int> indices)
    {
        ArgMaxResult best = WarpOps.ArgMax(value, index);
        if (Group.DimX <= Warp.WarpSize)
            return best;
        if (Warp.LaneIdx == 0)
        {
            values[Warp.WarpIdx] = best.Value;
            indices[Warp.WarpIdx] = best.Index;
        }
        Block.Barrier(); // the warps' candidates are written before they are read
        best.Value = values[0];
        best.Index = indices[0];
        int warp = 1;
        for (int first = Warp.WarpSize; first < Group.DimX; first += Warp.WarpSize)
        {
            float other = values[warp];
            int otherIndex = indices[warp];
            bool better = other > best.Value || (other == best.Value && otherIndex < best.Index);
            best.Value = better ? other : best.Value;
            best.Index = better ? otherIndex : best.Index;
            warp++;
        }
        Block.Barrier(); // the candidates are read before the next reduction overwrites them
        return best;
    }
}
