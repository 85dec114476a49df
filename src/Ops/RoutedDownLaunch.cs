using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>Down of one token that gate and up routed, by the copy engine: <see cref="RoutedDown"/>. FP8 and BF16, where tiles of all chosen experts fit into shared memory.</summary>
internal static class RoutedDownLaunch
{
    // An expert a thread of 128 is counted, and rows are summed by the first four warps.
    private const int LeastWarps = TileStream.Sums / 32;

    private static readonly Dictionary<WeightFormat, KernelDefinition<ExpertArgs>> ByFormat = new()
    {
        [WeightFormat.Bf16] = Create<StreamedBf16>(),
        [WeightFormat.Fp8Block] = Create<StreamedFp8>(),
    };

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = ByFormat.Values;

    /// <summary>Launches it, if it runs here.</summary>
    public static bool TryLaunch(GpuStream stream, QuantizedMatrix down, ExpertArgs args)
    {
        if (!BulkTiles.Exist(stream.Device) || !ByFormat.TryGetValue(down.Format, out KernelDefinition<ExpertArgs>? kernel))
            return false;
        (int warps, int shared) = Shape(stream.Device, down, args.TopK);
        if (shared > stream.Device.MaxSharedBytesPerBlock)
            return false;
        args.Weights = ExpertMlp.Streamed(down);
        stream.Device.Launch(kernel, stream, ((down.N + TileStream.Rows - 1) / TileStream.Rows, 1, 1), 32 * warps, shared, args);
        return true;
    }

    private static (int Warps, int Shared) Shape(GpuDevice device, QuantizedMatrix down, int topK)
    {
        int chunks = topK * (int)(down.Format.RowBytes(down.K) / SkinnyGemm.ChunkBytes), warps = Math.Max(LeastWarps, ExpertDown.Warps(chunks, BulkTiles.MostWarps(device)));
        return (warps, RoutedDown.SharedBytes(topK, down.K, warps, BulkTiles.RowOf(down)));
    }

    // The bound of 1,024 threads holds the compiler to 64 registers a thread, so that blocks fit beside those of the launches before and behind.
    private static KernelDefinition<ExpertArgs> Create<TFormat>()
        where TFormat : struct, IStreamedFormat => new(RoutedDown.Run<TFormat>, BulkTiles.Traits with { MaxThreads = 1024 });
}
