using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>The kernels of a token that they norm and route themselves, and how they are launched: <see cref="RoutedGateUp"/>, <see cref="RoutedDown"/>.</summary>
internal static class RoutedExperts
{
    // Down sums rows in its first four warps.
    private const int LeastDownWarps = TileStream.Sums / 32;

    private static readonly Dictionary<(WeightFormat Format, bool Rows), (KernelDefinition<ExpertArgs> GateUp, KernelDefinition<ExpertArgs> Down, int OperandBytes)> ByKey = [];

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = Create();

    /// <summary>Both launches, one behind the other: the second chooses from the sums before it waits for the first.</summary>
    public static void Launch(GpuStream stream, in ExpertStack matrices, ExpertArgs args, RingCopies copies)
    {
        bool rows = DecodeRing.UsesRows(stream.Device, copies);
        LaunchGateUp(stream, matrices, args, rows);
        LaunchDown(stream, matrices.Down, args, rows);
    }

    private static void LaunchGateUp(GpuStream stream, in ExpertStack matrices, ExpertArgs args, bool rows)
    {
        const int TeamWarps = RoutedGateUp.TeamWarps;
        (QuantizedMatrix gateUp, GpuDevice device) = (matrices.GateUp, stream.Device);
        (KernelDefinition<ExpertArgs> kernel, _, int operandBytes) = ByKey[(gateUp.Format, rows)];
        int tiles = (matrices.Down.K + TileStream.Rows - 1) / TileStream.Rows;
        (int blocks, int teams) = LaunchShape.Teams(device, tiles * args.TopK, MostWarps(device) / TeamWarps);
        int warps = teams * TeamWarps, available = device.MaxSharedBytesPerBlock - RoutedGateUp.SharedBytes(0, gateUp.K);
        // Half of a multiprocessor's memory is down's, where a block for each is enough.
        if (blocks <= device.MultiprocessorCount)
            available = Math.Min(available, LaunchShape.SharedOfOneBlock(device, blocks, 0) - RoutedGateUp.SharedBytes(0, gateUp.K));
        DecodeRing ring = DecodeRing.For(rows, 2 * ((Strips(gateUp) + TeamWarps - 1) / TeamWarps), 2, warps, operandBytes, available);
        args.Weights = ExpertMlp.Streamed(gateUp);
        (args.Slots, args.RowStride) = (ring.Slots, ring.RowStride);
        device.Launch(kernel, stream, (blocks, 1, 1), 32 * warps, LaunchShape.SharedOfOneBlock(device, blocks, RoutedGateUp.SharedBytes(ring.Bytes, gateUp.K)), args);
    }

    private static void LaunchDown(GpuStream stream, QuantizedMatrix down, ExpertArgs args, bool rows)
    {
        GpuDevice device = stream.Device;
        (_, KernelDefinition<ExpertArgs> kernel, int operandBytes) = ByKey[(down.Format, rows)];
        int strips = args.TopK * Strips(down), warps = Math.Max(LeastDownWarps, ExpertDown.Warps(strips, MostWarps(device)));
        int available = device.MaxSharedBytesPerBlock - RoutedDown.SharedBytes(0, args.TopK, down.K);
        if (device.IsCuda)
            available = Math.Min(available, LaunchShape.SharedOfOneBlock(device, 1, 0) - RoutedDown.SharedBytes(0, args.TopK, down.K));
        DecodeRing ring = DecodeRing.For(rows, (strips + warps - 1) / warps, 1, warps, operandBytes, available);
        args.Weights = ExpertMlp.Streamed(down);
        (args.Slots, args.RowStride) = (ring.Slots, ring.RowStride);
        device.Launch(kernel, stream, ((down.N + TileStream.Rows - 1) / TileStream.Rows, 1, 1), 32 * warps, RoutedDown.SharedBytes(ring.Bytes, args.TopK, down.K), args);
    }

    private static int MostWarps(GpuDevice device) => Math.Min(SkinnyGemm.MostWarps, device.MaxThreadsPerBlock / 32);

    private static int Strips(QuantizedMatrix matrix) => (int)((matrix.Format.RowBytes(matrix.K) + TileRing.StripBytes - 1) / TileRing.StripBytes);

    private static KernelDefinition[] Create()
    {
        Add<StreamedBf16>(WeightFormat.Bf16);
        Add<StreamedFp8>(WeightFormat.Fp8Block);
        Add<StreamedNvfp4>(WeightFormat.Nvfp4);
        Add<StreamedInt4>(WeightFormat.Int4);
        Add<StreamedInt4Zero>(WeightFormat.Int4Zero);
        return [.. ByKey.Values.SelectMany(k => new KernelDefinition[] { k.GateUp, k.Down })];
    }

    private static void Add<TFormat>(WeightFormat format)
        where TFormat : struct, IStreamedFormat
    {
        Add<TFormat, LaneCopies>(format, false, 80);
        Add<TFormat, RowCopies>(format, true, DecodeRing.RowsArch);
    }

    // Few registers, so that blocks of neighbouring launches fit beside each other.
    private static void Add<TFormat, TRing>(WeightFormat format, bool rows, int arch)
        where TFormat : struct, IStreamedFormat
        where TRing : struct, ITileRing
    {
        var traits = new KernelTraits(32 * SkinnyGemm.MostWarps, arch, NeedsWarp32: true, Overlaps: true, WantsSharedMemory: true);
        // A bound of 768 threads holds the compiler to 80 registers. Formats with multipliers a group or zero points would spill.
        KernelTraits gateUp = TFormat.HasGroupScales || TFormat.HasZeroPoints ? traits : traits with { MaxThreads = 768 };
        ByKey.Add((format, rows), (new(RoutedGateUp.Run<TFormat, TRing>, gateUp), new(RoutedDown.Run<TFormat, TRing>, traits), TileRing.OperandBytes<TFormat>()));
    }
}
