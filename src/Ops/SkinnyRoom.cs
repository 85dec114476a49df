using GpuKit.Ilgpu.Kernels;

namespace GpuKit.Ilgpu;

/// <summary>
/// Shared memory that a block of <see cref="SkinnyGemm"/> asks for beyond what it uses, a pure function of shape and device: how much of a multiprocessor's memory is shared, and how much is cache, follows from it, and so does whether a block of
/// the next launch may begin beside it. Measured on compute capability 9.0 only (docs/kernels/gemv.md); elsewhere none.
/// </summary>
internal static class SkinnyRoom
{
    // Of a multiprocessor's 256 KB; the rest is cache, through which weights come and which, when it is large, has more of them on their way than x can overtake.
    private const int Most = 196, Usual = 164, Less = 132;

    // What the driver has of each block.
    private const int Reserved = 1024;

    /// <summary>Bytes of dynamic shared memory, at least; 0 where what the kernel uses is best.</summary>
    /// <param name="shape">The product.</param>
    /// <param name="device">Where it runs.</param>
    /// <param name="blocks">Blocks along N.</param>
    /// <param name="warps">Warps of a block.</param>
    public static int Bytes(in LinearShape shape, in LinearDevice device, int blocks, int warps)
    {
        if (device is not { IsCuda: true, Arch: 90 })
            return 0;
        blocks *= SkinnyKernels.RowParts(shape.Activations, shape.M);
        bool hasOneTile = SkinnyKernels.Tiles(shape.Activations, shape.M) == 1;
        if (blocks <= device.Multiprocessors)
            return Of(OneBlock(shape, device, blocks, hasOneTile), 1, device);
        // Twice as many blocks, two of which a multiprocessor has at once.
        bool areTwo = blocks <= 2 * device.Multiprocessors && 2 * warps <= SkinnyGemm.MostWarps;
        return areTwo && hasOneTile && shape.Format.Info().BitsPerCode == 4 ? Of(Less, 2, device) : 0;
    }

    // Of a multiprocessor that has one block.
    private static int OneBlock(in LinearShape shape, in LinearDevice device, int blocks, bool hasOneTile)
    {
        if (shape.Activations is ActivationFormat.Fp8Group128 && !hasOneTile)
            return Most;
        // More cache is faster where BF16 keeps the memory busy.
        return shape.Format == WeightFormat.Bf16 && 2 * blocks > device.Multiprocessors ? Less : Usual;
    }

    private static int Of(int kilobytes, int blocks, in LinearDevice device) => Math.Min((kilobytes * 1024 / blocks) - Reserved, device.SharedBytes);
}
