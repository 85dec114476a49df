using GpuKit.Ilgpu.Kernels;

namespace GpuKit.Ilgpu;

/// <summary>How a product of at most 16 rows with a large matrix is spread over a Hopper card by <see cref="HopperSkinnyGemm"/>: a pure function of shape and device, not of the number of rows.</summary>
/// <param name="Blocks">Blocks along N.</param>
/// <param name="Phases">Phases of K.</param>
/// <param name="PhaseChunks">Chunks of 128 bytes of a phase.</param>
internal readonly record struct HopperSkinnyPlan(int Blocks, int Phases, int PhaseChunks)
{
    // What a block can have on compute capability 9.0; the CPU device has any.
    private const int HopperSharedBytes = 227 * 1024;

    /// <summary>Whether the kernel can run it.</summary>
    public static bool Exists(in LinearShape shape, in LinearDevice device) =>
        device is { IsCuda: false } or { Arch: 90 } && device.WarpSize == 32 && device.MaxThreads >= HopperSkinnyGemm.Threads && MostPhaseChunks(Codes(shape.Format), device) > 0
        && shape is { M: > 0, N: > 0, K: > 0 } && shape.CanStream && HopperSkinnyKernels.Exist(shape.Format, shape.Activations)
        && (shape.Format != WeightFormat.Nvfp4 || shape.K % 128 == 0) && (long)shape.K * shape.Format.Info().BitsPerCode % 128 == 0;

    /// <summary>The plan; for tests with a number of phases, or the fewest above it.</summary>
    public static HopperSkinnyPlan Choose(in LinearShape shape, in LinearDevice device, int? phases = null)
    {
        int codes = Codes(shape.Format), chunks = Count(shape.K, codes), most = MostPhaseChunks(codes, device);
        int phaseChunks = Count(chunks, Math.Max(Math.Min(phases ?? 1, chunks), Count(chunks, most)));
        return new HopperSkinnyPlan(Math.Min(Count(shape.N, HopperSkinnyGemm.Rows), device.Multiprocessors), Count(chunks, phaseChunks), phaseChunks);
    }

    /// <summary>Shared memory of a block for so many rows of x.</summary>
    public static int SharedBytes(int m, WeightFormat format, int phaseChunks) => HopperSkinnyGemm.SharedBytes(m > SkinnyGemm.Columns ? 2 : 1, phaseChunks * Codes(format));

    // The same for one tile of x and for two.
    private static int MostPhaseChunks(int codes, in LinearDevice device)
    {
        int memory = Math.Min(device.SharedBytes, HopperSharedBytes), most = int.MaxValue;
        foreach (int tiles in (ReadOnlySpan<int>)[1, 2])
            most = Math.Min(most, (memory - HopperSkinnyGemm.SharedBytes(tiles, 0)) / (HopperSkinnyGemm.SharedBytes(tiles, codes) - HopperSkinnyGemm.SharedBytes(tiles, 0)));
        return most;
    }

    private static int Codes(WeightFormat format) => HopperSkinnyGemm.ChunkBytes * 8 / format.Info().BitsPerCode;

    private static int Count(int size, int per) => (int)(((long)size + per - 1) / per);
}
