using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>How a product of at most 16 rows with a large matrix is spread over a Hopper card by <see cref="HopperSkinnyGemm"/>: a pure function of shape and device, not of the number of rows.</summary>
/// <param name="Columns">Blocks along N.</param>
/// <param name="Parts">Parts of K.</param>
/// <param name="PartChunks">Chunks of 128 bytes of a part.</param>
internal readonly record struct HopperSkinnyPlan(int Columns, int Parts, int PartChunks)
{
    // What adding parts costs, in chunks of a warp: written, counted, read.
    private const int PartsCost = 2;

    // What a block can have on compute capability 9.0; the CPU device has any.
    private const int HopperSharedBytes = 227 * 1024;

    /// <summary>Whether the kernel can run it.</summary>
    public static bool Exists(in LinearShape shape, in LinearDevice device) =>
        device is { IsCuda: false } or { Arch: 90 } && device.WarpSize == 32 && device.MaxThreads >= HopperSkinnyGemm.Threads && device.SharedBytes >= HopperSkinnyGemm.SharedBytes(2, Codes(shape.Format))
        && shape is { M: > 0, N: > 0, K: > 0 } && shape.CanStream && HopperSkinnyKernels.Exist(shape.Format, shape.Activations)
        && (shape.Format != WeightFormat.Nvfp4 || shape.K % 128 == 0) && (long)shape.K * shape.Format.Info().BitsPerCode % 128 == 0;

    /// <summary>The plan; for tests with a number of parts.</summary>
    public static HopperSkinnyPlan Choose(in LinearShape shape, in LinearDevice device, int? parts = null)
    {
        int codes = Codes(shape.Format), tiles = Count(shape.N, HopperSkinnyGemm.Rows), chunks = Count(shape.K, codes);
        int most = MostPartChunks(codes, device);
        HopperSkinnyPlan best = default;
        long least = long.MaxValue;
        for (int count = Count(chunks, most); count <= Math.Min(chunks, device.Multiprocessors); count++)
        {
            int partChunks = Count(chunks, parts is { } wanted ? Math.Clamp(wanted, Count(chunks, most), chunks) : count), actual = Count(chunks, partChunks);
            int columns = Math.Max(1, Math.Min(tiles, device.Multiprocessors / actual));
            if (!HasRoom(actual, tiles, columns, device))
                break;
            long cost = ((long)Count(tiles, columns) * partChunks) + (actual > 1 ? PartsCost * actual : 0);
            if (cost < least)
                (best, least) = (new HopperSkinnyPlan(columns, actual, partChunks), cost);
        }
        return best;
    }

    /// <summary>Shared memory of a block for so many rows of x.</summary>
    public static int SharedBytes(int m, WeightFormat format, int partChunks) => HopperSkinnyGemm.SharedBytes(m > SkinnyGemm.Columns ? 2 : 1, partChunks * Codes(format));

    private static int MostPartChunks(int codes, in LinearDevice device)
    {
        int memory = Math.Min(device.SharedBytes, HopperSharedBytes), most = int.MaxValue;
        foreach (int tiles in (ReadOnlySpan<int>)[1, 2])
            most = Math.Min(most, (memory - HopperSkinnyGemm.SharedBytes(tiles, 0)) / (HopperSkinnyGemm.SharedBytes(tiles, codes) - HopperSkinnyGemm.SharedBytes(tiles, 0)));
        return most;
    }

    // Where the parts' sums meet.
    private static bool HasRoom(int parts, int tiles, int columns, in LinearDevice device)
    {
        int places = LaunchScratch.BlocksOf(device.Multiprocessors);
        return parts == 1 || (columns <= places && (long)parts * tiles * 2 * HopperSkinnyGemm.SumsBytes <= (long)places * LaunchScratch.BlockBytes);
    }

    private static int Codes(WeightFormat format) => HopperSkinnyGemm.ChunkBytes * 8 / format.Info().BitsPerCode;

    private static int Count(int size, int per) => (int)(((long)size + per - 1) / per);
}
