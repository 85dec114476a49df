using GpuKit.Ilgpu.Kernels;

namespace GpuKit.Ilgpu;

/// <summary>
/// Warps of a block of <see cref="SkinnyGemm"/>, and of <see cref="HopperFp8Skinny"/>, whose format leaves no half: a pure function of N, K, formats and the device, never of M, so that a row's sums have one order for every M.
/// </summary>
internal static class SkinnyWarps
{
    // Measured on an H200 (docs/kernels/gemv.md): 2,048 warps keep enough loads in flight for the memory, about 16 an SM.
    private const int Wanted = 2048;

    /// <summary>Warps of a block.</summary>
    /// <param name="shape">The product.</param>
    /// <param name="device">Where it runs.</param>
    /// <param name="tiles">Tiles of rows of W.</param>
    public static int Of(in LinearShape shape, in LinearDevice device, int tiles)
    {
        int warps = shape.Format.Info().BitsPerCode == 4 ? 2 : 4;
        while (2 * warps * tiles <= Wanted && 2 * warps <= SkinnyGemm.MostWarps)
            warps *= 2;
        if (LeavesHalf(shape, device, tiles))
            warps = SkinnyGemm.MostWarps / 2;
        // Warps that share what lies beside codes wait for it at one place in the stream: none is without a chunk.
        return Math.Min(SkinnyLinear.HasAside(shape) ? Math.Clamp(shape.K / (2 * SkinnyGemm.ChunkBytes), 1, warps) : warps, device.MaxThreads / 32);
    }

    /// <summary>
    /// Whether a block has eight warps, and its multiprocessor to itself (<see cref="SkinnyRoom"/>), where sixteen would have little to do each: more than half of the multiprocessors have a block, none two. Measured on compute
    /// capability 9.0 only, where the room is what makes it faster.
    /// </summary>
    public static bool LeavesHalf(in LinearShape shape, in LinearDevice device, int tiles)
    {
        if (device is not { IsCuda: true, Arch: 90 } || 2 * tiles <= device.Multiprocessors || tiles > device.Multiprocessors)
            return false;
        (int Least, int Most)? columns = (shape.Format, shape.Activations) switch
        {
            // With fewer blocks it gains nothing.
            (WeightFormat.Bf16, null) when 4 * tiles > 3 * device.Multiprocessors => (2048, 3072),
            (WeightFormat.Nvfp4 or WeightFormat.Int4 or WeightFormat.Int4Zero, null) => (2048, 3072),
            (WeightFormat.Nvfp4, ActivationFormat.Nvfp4) => (3072, 4096),
            (WeightFormat.Int4, ActivationFormat.Int4) => (1024, 2048),
            _ => null,
        };
        return columns is var (least, most) && shape.K >= least && shape.K <= most;
    }
}
