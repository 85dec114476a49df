using GpuKit.Ilgpu.Kernels;

namespace GpuKit.Ilgpu;

/// <summary>
/// Shared memory that a block of <see cref="SkinnyGemm"/> asks for beyond what it uses, a pure function of shape and device: how much of a multiprocessor's memory is shared, and how much is cache, follows from it, and so does whether a block of
/// the next launch may begin beside it. Measured on compute capability 9.0 only (docs/kernels/gemv.md); elsewhere none.
/// </summary>
internal static class SkinnyRoom
{
    // KB of a multiprocessor's 256; the rest is cache. Less cache is faster, up to a point; why is not proven.
    private const int Most = 196, Usual = 164, Less = 132;

    // Shared memory that the driver adds to each block's.
    private const int Reserved = 1024;

    /// <summary>Bytes of dynamic shared memory, at least; 0 where what the kernel uses is best.</summary>
    /// <param name="shape">The product.</param>
    /// <param name="device">Where it runs.</param>
    /// <param name="tiles">Tiles of rows of W.</param>
    /// <param name="warps">Warps of a block.</param>
    public static int Bytes(in LinearShape shape, in LinearDevice device, int tiles, int warps)
    {
        if (device is not { IsCuda: true, Arch: 90 })
            return 0;
        int blocks = tiles * SkinnyKernels.RowParts(shape.Activations, shape.M);
        bool hasOneTile = SkinnyKernels.Tiles(shape.Activations, shape.M) == 1;
        // The next launch's blocks find a multiprocessor that has none.
        if (2 * blocks <= device.Multiprocessors)
            return Of(Usual, 1, device);
        // A block that fills its multiprocessor's registers.
        if (blocks <= device.Multiprocessors && 2 * warps > SkinnyGemm.MostWarps)
            return Of(OneBlock(shape, hasOneTile), 1, device);
        // One that leaves half of them free, and nothing beside it.
        if (SkinnyWarps.LeavesHalf(shape, device, tiles))
            return Of(Usual, 1, device);
        // Two blocks that fill them.
        bool areTwo = blocks > device.Multiprocessors && blocks <= 2 * device.Multiprocessors && 2 * warps == SkinnyGemm.MostWarps;
        return areTwo && hasOneTile && shape.Format.Info().BitsPerCode == 4 ? Of(Less, 2, device) : 0;
    }

    private static int OneBlock(in LinearShape shape, bool hasOneTile)
    {
        if (hasOneTile)
            return shape.Format == WeightFormat.Bf16 ? Less : Usual;
        if (shape.Activations == ActivationFormat.Fp8Group128)
            return Most;
        return shape.Format switch { WeightFormat.Bf16 => Less, WeightFormat.Fp8TwoTerm => 0, _ => Usual };
    }

    private static int Of(int kilobytes, int blocks, in LinearDevice device) => kilobytes == 0 ? 0 : Math.Min((kilobytes * 1024 / blocks) - Reserved, device.SharedBytes);
}
