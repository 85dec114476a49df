using GpuKit.Ilgpu.Kernels;

namespace GpuKit.Ilgpu;

/// <summary>Which products of at most 16 rows <see cref="HopperFp8Skinny"/> takes, and how they are spread: pure functions of shape and device, not of the number of rows.</summary>
internal static class HopperFp8SkinnyPlan
{
    // Below, one row is faster without the copy engine (docs/kernels/gemv.md).
    private const long WeightsWanted = 8_000_000;

    /// <summary>Whether the kernel can run it: FP8 with groups of 32 columns on both sides, whole chunks. Every card of compute capability 9.0 has the 193 KB of shared memory that its largest block takes.</summary>
    public static bool Exists(in LinearShape shape, in LinearDevice device) =>
        device is { IsCuda: false } or { Arch: 90 } && device.WarpSize == 32 && shape is { M: > 0, N: > 0, K: > 0, Format: WeightFormat.Fp8Block, Activations: ActivationFormat.Fp8Group32 }
        && shape.CanStream && shape.Block.Columns == HopperFp8Skinny.GroupColumns && shape.K % HopperFp8Skinny.ChunkColumns == 0;

    /// <summary>Whether it is the faster one.</summary>
    public static bool IsChosen(in LinearShape shape, in LinearDevice device) => device.IsCuda && Exists(shape, device) && (long)shape.N * shape.K >= WeightsWanted;

    /// <summary>Blocks: tiles along N.</summary>
    public static int Blocks(int n) => (int)(((long)n + HopperFp8Skinny.Rows - 1) / HopperFp8Skinny.Rows);

    /// <summary>Warps of a block.</summary>
    public static int Warps(in LinearShape shape, in LinearDevice device) => SkinnyWarps.Of(shape, device, Blocks(shape.N));

    /// <summary>
    /// Chunks of a warp, 1 or 2, whose weights are asked for before the launch before is waited for. No bit depends on it. One, so that x of the first chunk comes sooner, where blocks fill the card once: beside another such launch there is no room for them,
    /// so they do not wait long for its end (docs/kernels/gemv.md).
    /// </summary>
    public static int EarlyChunks(in LinearShape shape, in LinearDevice device)
    {
        long blocks = Blocks(shape.N), most = (long)device.Multiprocessors * (SkinnyGemm.MostWarps / Warps(shape, device));
        return blocks <= most && 10 * blocks >= 9 * most ? 1 : 2;
    }
}
