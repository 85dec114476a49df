using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>The kernels of a token that they norm and route themselves, and how they are launched: <see cref="RoutedGateUp"/>, <see cref="RoutedDown"/>.</summary>
internal static class RoutedExperts
{
    // Down sums rows in its first four warps.
    private const int LeastDownWarps = TileStream.Sums / 32;

    private static readonly Dictionary<WeightFormat, (KernelDefinition<ExpertArgs> GateUp, KernelDefinition<ExpertArgs> Down, int SlotBytes)> ByFormat = [];

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = Create();

    /// <summary>Both launches, one behind the other: the second chooses from the sums before it waits for the first.</summary>
    public static void Launch(GpuStream stream, in ExpertStack matrices, ExpertArgs args)
    {
        (QuantizedMatrix gateUp, QuantizedMatrix down) = matrices;
        GpuDevice device = stream.Device;
        args.Weights = ExpertMlp.Streamed(gateUp);
        int tiles = (down.K + TileStream.Rows - 1) / TileStream.Rows, most = Math.Min(SkinnyGemm.MostWarps, device.MaxThreadsPerBlock / 32);
        (int blocks, int teams) = LaunchShape.Teams(device, tiles * args.TopK, most / RoutedGateUp.TeamWarps);
        int warps = teams * RoutedGateUp.TeamWarps, chunks = Chunks(gateUp), perSlot = warps * ByFormat[gateUp.Format].SlotBytes;
        // A step is a chunk of gate and one of up.
        args.Slots = TileRing.SlotsFor(2 * ((chunks + RoutedGateUp.TeamWarps - 1) / RoutedGateUp.TeamWarps), perSlot, device.MaxSharedBytesPerBlock - RoutedGateUp.SharedBytes(0, gateUp.K));
        int shared = LaunchShape.SharedOfOneBlock(device, blocks, RoutedGateUp.SharedBytes(args.Slots * perSlot, gateUp.K));
        device.Launch(ByFormat[gateUp.Format].GateUp, stream, (blocks, 1, 1), 32 * warps, shared, args);
        args.Weights = ExpertMlp.Streamed(down);
        chunks = Chunks(down);
        warps = Math.Max(LeastDownWarps, ExpertDown.Warps(chunks, most));
        perSlot = warps * ByFormat[down.Format].SlotBytes;
        args.Slots = TileRing.SlotsFor(args.TopK * ((chunks + warps - 1) / warps), perSlot, device.MaxSharedBytesPerBlock - RoutedDown.SharedBytes(0, args.TopK, down.K));
        tiles = (down.N + TileStream.Rows - 1) / TileStream.Rows;
        device.Launch(ByFormat[down.Format].Down, stream, (tiles, 1, 1), 32 * warps, RoutedDown.SharedBytes(args.Slots * perSlot, args.TopK, down.K), args);
    }

    private static int Chunks(QuantizedMatrix matrix) => (int)(matrix.Format.RowBytes(matrix.K) / SkinnyGemm.ChunkBytes);

    private static KernelDefinition[] Create()
    {
        Add<StreamedBf16>(WeightFormat.Bf16);
        Add<StreamedFp8>(WeightFormat.Fp8Block);
        Add<StreamedNvfp4>(WeightFormat.Nvfp4);
        Add<StreamedInt4>(WeightFormat.Int4);
        Add<StreamedInt4Zero>(WeightFormat.Int4Zero);
        return [.. ByFormat.Values.SelectMany(k => new KernelDefinition[] { k.GateUp, k.Down })];
    }

    // Few registers, so that blocks of neighbouring launches fit beside each other.
    private static void Add<TFormat>(WeightFormat format)
        where TFormat : struct, IStreamedFormat
    {
        var traits = new KernelTraits(32 * SkinnyGemm.MostWarps, NeedsWarp32: true, Overlaps: true, WantsSharedMemory: true);
        // A bound of 768 threads holds the compiler to 80 registers. Formats with multipliers a group or zero points would spill.
        KernelTraits gateUp = TFormat.HasGroupScales || TFormat.HasZeroPoints ? traits : traits with { MaxThreads = 768 };
        ByFormat.Add(format, (new(RoutedGateUp.Run<TFormat>, gateUp), new(RoutedDown.Run<TFormat>, traits), TileRing.SlotBytes<TFormat>()));
    }
}
