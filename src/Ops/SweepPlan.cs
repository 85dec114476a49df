using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;

namespace GpuKit.Ilgpu;

/// <summary>Which products of at most 16 rows <see cref="SkinnySweep"/> takes, and how it is spread: pure functions of shape and device, not of the number of rows.</summary>
/// <param name="Blocks">Blocks, each with an equal share of the rows of W.</param>
/// <param name="Warps">Warps of a block, which take turns along K.</param>
internal readonly record struct SweepPlan(int Blocks, int Warps)
{
    private const int ChunkColumns = 2 * SkinnyGemm.ChunkBytes;

    // With fewer rows a block the inputs are loaded for too few of them to pay for a block without another beside it (docs/kernels/gemv.md).
    private const int RowsWanted = 140;

    // Of a block: sums of more do not fit into any card's shared memory.
    private const int MostTiles = 32;

    /// <summary>Dynamic shared memory of a block for <paramref name="m"/> rows of x.</summary>
    public int SharedBytes(int m, in LinearShape shape)
    {
        int rows = Count(Count(shape.N, SkinnySweep.ShareRows), Blocks) * SkinnySweep.ShareRows, tiles = SweepKernels.Tiles(m);
        long aside = shape.Format != WeightFormat.Nvfp4 ? (long)rows * SweepAside.RowWords(Count(shape.K, shape.Block.Columns)) * sizeof(uint) : 0;
        return (int)Math.Min(int.MaxValue, SweepSums.SharedBytes(Warps, Count(rows, SkinnyGemm.Rows), tiles) + aside);
    }

    /// <summary>Whether the kernel can run it with that plan: a tile of rows a block, whole chunks, multipliers of single rows, and sums of 16 rows in shared memory.</summary>
    public bool Exists(in LinearShape shape, in LinearDevice device) =>
        shape is { M: > 0, K: > 0 } && shape.CanStream && SweepKernels.Exist(shape.Format, shape.Activations) && shape.K % ChunkColumns == 0 && (shape.Format == WeightFormat.Nvfp4 || shape.Block.Rows == 1)
        && device.WarpSize == 32 && device.MaxThreads >= 32 * Warps && FewestRows(shape.N) >= SkinnyGemm.Rows
        && Count(Count(shape.N, Blocks), SkinnyGemm.Rows) <= MostTiles && SharedBytes(SkinnyGemm.MostInputs, shape) <= device.SharedBytes;

    // Of the last block.
    private int FewestRows(int n)
    {
        int shares = Count(n, SkinnySweep.ShareRows);
        return n - ((shares - (shares / Blocks)) * SkinnySweep.ShareRows);
    }

    /// <summary>The plan of a shape.</summary>
    public static SweepPlan Choose(in LinearShape shape, in LinearDevice device) =>
        new(Math.Min(device.Multiprocessors, Count(shape.N, SkinnySweep.ShareRows)), Math.Min(SkinnySweep.MostWarps, device.MaxThreads / 32));

    /// <summary>The plan where it is the faster kernel, which has been measured on compute capability 9.0 only; else null.</summary>
    public static SweepPlan? IfChosen(in LinearShape shape, in LinearDevice device)
    {
        SweepPlan plan = Choose(shape, device);
        return device is { IsCuda: true, Arch: 90 } && shape.N / plan.Blocks >= RowsWanted && plan.Exists(shape, device) ? plan : null;
    }

    private static int Count(int size, int per) => (int)(((long)size + per - 1) / per);
}
