using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>One token's experts by the copy engine: <see cref="RoutedGateUp"/>, <see cref="RoutedDown"/>. FP8 and BF16, where tiles fit into shared memory.</summary>
internal static class RoutedExperts
{
    // An expert a thread of 128 chooses, and down sums rows in its first four warps.
    private const int LeastWarps = TileStream.Sums / 32;

    private static readonly Dictionary<WeightFormat, (KernelDefinition<ExpertArgs> GateUp, KernelDefinition<ExpertArgs> Down)> ByFormat = [];

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = Create();

    /// <summary>Whether a layer's experts run so.</summary>
    public static bool Exist(GpuDevice device, in ExpertStack matrices, int topK) =>
        BulkTiles.Exist(device) && ByFormat.ContainsKey(matrices.GateUp.Format) && matrices.GateUp.Format == matrices.Down.Format
        && ShapeGateUp(device, matrices, topK).Shared <= device.MaxSharedBytesPerBlock && ShapeDown(device, matrices.Down, topK).Shared <= device.MaxSharedBytesPerBlock;

    /// <summary>Both launches, one behind the other: the second chooses from the sums before it waits for the first.</summary>
    public static void Launch(GpuStream stream, in ExpertStack matrices, ExpertArgs args)
    {
        (QuantizedMatrix gateUp, QuantizedMatrix down) = matrices;
        (int blocks, int warps, (args.Units, args.Tiles), int shared) = ShapeGateUp(stream.Device, matrices, args.TopK);
        args.Weights = ExpertMlp.Streamed(gateUp);
        stream.Device.Launch(ByFormat[gateUp.Format].GateUp, stream, (blocks, 1, 1), 32 * warps, LaunchShape.SharedOfOneBlock(stream.Device, blocks, shared), args);
        (warps, shared) = ShapeDown(stream.Device, down, args.TopK);
        args.Weights = ExpertMlp.Streamed(down);
        stream.Device.Launch(ByFormat[down.Format].Down, stream, ((down.N + TileStream.Rows - 1) / TileStream.Rows, 1, 1), 32 * warps, shared, args);
    }

    // As many tiles on their way as half of a multiprocessor's memory has room for, at least two: the other half is the next launch's.
    private static (int Blocks, int Warps, (int Units, int Tiles) Own, int Shared) ShapeGateUp(GpuDevice device, in ExpertStack matrices, int topK)
    {
        QuantizedMatrix gateUp = matrices.GateUp;
        int all = topK * ((matrices.Down.K + RoutedGateUp.Rows - 1) / RoutedGateUp.Rows), blocks = Math.Min(all, device.MultiprocessorCount), units = (all + blocks - 1) / blocks;
        int chunks = (int)(gateUp.Format.RowBytes(gateUp.K) / SkinnyGemm.ChunkBytes), warps = Math.Max(LeastWarps, ExpertDown.Warps(chunks, BulkTiles.MostWarps(device)));
        for (int tiles = Math.Min(units, RoutedGateUp.MostTiles); ; tiles--)
        {
            int shared = RoutedGateUp.SharedBytes(gateUp.K, warps, (units, tiles), BulkTiles.RowOf(gateUp));
            if (tiles <= 2 || shared <= LaunchShape.HalfOfShared(device))
                return (blocks, warps, (units, tiles), shared);
        }
    }

    private static (int Warps, int Shared) ShapeDown(GpuDevice device, QuantizedMatrix down, int topK)
    {
        int chunks = topK * (int)(down.Format.RowBytes(down.K) / SkinnyGemm.ChunkBytes), warps = Math.Max(LeastWarps, ExpertDown.Warps(chunks, BulkTiles.MostWarps(device)));
        return (warps, RoutedDown.SharedBytes(topK, down.K, warps, BulkTiles.RowOf(down)));
    }

    private static KernelDefinition[] Create()
    {
        Add<StreamedBf16>(WeightFormat.Bf16);
        Add<StreamedFp8>(WeightFormat.Fp8Block);
        return [.. ByFormat.Values.SelectMany(k => new KernelDefinition[] { k.GateUp, k.Down })];
    }

    // The bound of 1,024 threads holds the compiler to 64 registers a thread, so that blocks of neighbouring launches fit beside each other.
    private static void Add<TFormat>(WeightFormat format)
        where TFormat : struct, IStreamedFormat =>
        ByFormat.Add(format, (new(RoutedGateUp.Run<TFormat>, BulkTiles.Traits with { MaxThreads = 1024 }), new(RoutedDown.Run<TFormat>, BulkTiles.Traits with { MaxThreads = 1024 })));
}
