using GpuKit.Ilgpu.Kernels;

namespace GpuKit.Ilgpu;

/// <summary>Which products of at most 16 rows <see cref="HopperSkinnyGemm"/> takes, and with how many blocks: pure functions of shape and device, not of the number of rows.</summary>
internal static class HopperSkinnyPlan
{
    // What a block can have on compute capability 9.0; the CPU device has any.
    private const int HopperSharedBytes = 227 * 1024;

    // With fewer tiles a multiprocessor the beginning of a block costs more than its stream gains (docs/kernels/gemv.md).
    private const int TilesWanted = 24;

    /// <summary>Whether the kernel can run it.</summary>
    public static bool Exists(in LinearShape shape, in LinearDevice device) =>
        device is { IsCuda: false } or { Arch: 90 } && device.WarpSize == 32 && device.MaxThreads >= HopperSkinnyGemm.Threads
        && shape is { M: > 0, N: > 0, K: > 0 } && shape.CanStream && HopperSkinnyKernels.Exist(shape.Format, shape.Activations) && Fits(shape, device)
        // Rows of codes in whole 16-byte words, and rows of group multipliers in whole 8-byte ones.
        && shape.K % (shape.Format == WeightFormat.Nvfp4 ? 128 : 32) == 0;

    /// <summary>Whether it is the faster one.</summary>
    public static bool IsChosen(in LinearShape shape, in LinearDevice device) => device.IsCuda && Exists(shape, device) && Tiles(shape.N) >= TilesWanted * device.Multiprocessors;

    /// <summary>Blocks along N.</summary>
    public static int Blocks(int n, in LinearDevice device) => Math.Min(Tiles(n), device.Multiprocessors);

    /// <summary>Tiles along N.</summary>
    public static int Tiles(int n) => (int)(((long)n + HopperSkinnyGemm.Rows - 1) / HopperSkinnyGemm.Rows);

    /// <summary>Chunks along K.</summary>
    public static int Chunks(int k) => (int)(((long)k + HopperSkinnyGemm.ChunkCodes - 1) / HopperSkinnyGemm.ChunkCodes);

    // All of 16 rows of x: whether there are more than eight does not change the path.
    private static bool Fits(in LinearShape shape, in LinearDevice device)
    {
        long columns = (long)Chunks(shape.K) * HopperSkinnyGemm.ChunkCodes;
        int memory = Math.Min(device.SharedBytes, HopperSharedBytes);
        return columns <= HopperSharedBytes && HopperSkinnyGemm.SharedBytes(1, (int)columns) <= memory && HopperSkinnyGemm.SharedBytes(2, (int)columns) <= memory;
    }
}
