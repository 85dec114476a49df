using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;

namespace GpuKit.Ilgpu;

/// <summary>Which products of at most 16 rows <see cref="HopperSweep"/> takes, and how it is spread: pure functions of shape and device, not of the number of rows.</summary>
/// <param name="Blocks">Blocks, each with an equal share of the rows of W.</param>
/// <param name="Warps">Warps of a block, which take turns along K.</param>
internal readonly record struct HopperSweepPlan(int Blocks, int Warps)
{
    private const int ChunkColumns = 2 * SkinnyGemm.ChunkBytes;

    // What a block can have on compute capability 9.0; the CPU device has any.
    private const int HopperSharedBytes = 227 * 1024;

    // With fewer rows a block the inputs are loaded for too few of them to pay for a block without another beside it (docs/kernels/gemv.md).
    private const int RowsWanted = 140;

    // Blocks of a multiprocessor, one after the other: two are faster than SkinnyGemm, four are slower (docs/kernels/gemv.md).
    private const int MostTurns = 2;

    private const int Nvfp4GroupColumns = 16;

    // Of a block: sums of more do not fit into any card's shared memory.
    private const int MostTiles = 32;

    /// <summary>Dynamic shared memory of a block for <paramref name="m"/> rows of x.</summary>
    public int SharedBytes(int m, in LinearShape shape) =>
        HopperSweep.SharedBytes(Warps, Count(Count(Count(shape.N, HopperSweep.ShareRows), Blocks) * HopperSweep.ShareRows, SkinnyGemm.Rows), HopperSweepKernels.Tiles(m));

    /// <summary>Bytes of what multiplies a group of W's columns.</summary>
    public static int MultiplierBytes(WeightFormat format) => format == WeightFormat.Nvfp4 ? sizeof(byte) : sizeof(float);

    /// <summary>Whether the kernel can run it with that plan: a tile of rows a block, whole chunks, multipliers of single rows in whole words of 16 bytes, and sums of 16 rows in shared memory.</summary>
    public bool Exists(in LinearShape shape, in LinearDevice device) =>
        device is { IsCuda: false } or { Arch: 90 } && shape is { M: > 0, K: > 0 } && shape.CanStream && HopperSweepKernels.Exist(shape.Format, shape.Activations) && shape.K % ChunkColumns == 0 && HasWholeWords(shape)
        && device.WarpSize == 32 && device.MaxThreads >= 32 * Warps && FewestRows(shape.N) >= SkinnyGemm.Rows
        && Count(Count(shape.N, Blocks), SkinnyGemm.Rows) <= MostTiles && SharedBytes(SkinnyGemm.MostInputs, shape) <= Math.Min(device.SharedBytes, HopperSharedBytes);

    // Of a row's multipliers: as the copy engine wants them.
    private static bool HasWholeWords(in LinearShape shape) =>
        (shape.Format == WeightFormat.Nvfp4 ? shape.K / Nvfp4GroupColumns : shape.Block.Rows == 1 ? Count(shape.K, shape.Block.Columns) : 1) * MultiplierBytes(shape.Format) % HopperSweepAside.MappedRowBytes == 0;

    // Of the last block.
    private int FewestRows(int n)
    {
        int shares = Count(n, HopperSweep.ShareRows);
        return n - ((shares - (shares / Blocks)) * HopperSweep.ShareRows);
    }

    /// <summary>The plan where it is the faster kernel; else null.</summary>
    public static HopperSweepPlan? IfChosen(in LinearShape shape, in LinearDevice device)
    {
        if (device is not { IsCuda: true, Arch: 90 })
            return null;
        // A block a multiprocessor, or two one after the other where sums of its share do not fit.
        for (int turns = 1; turns <= MostTurns; turns++)
        {
            var plan = new HopperSweepPlan(Math.Min(turns * device.Multiprocessors, Count(shape.N, HopperSweep.ShareRows)), HopperSweep.MostWarps);
            if (turns == 1 && shape.N / plan.Blocks < RowsWanted)
                return null;
            if (plan.Exists(shape, device))
                return plan;
        }
        return null;
    }

    private static int Count(int size, int per) => (int)(((long)size + per - 1) / per);
}
