using GpuKit.Ilgpu.Runtime;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>Stamps.</summary>
internal static class StampSink
{
    /// <summary>Longs a launch.</summary>
    public const int Longs = 512 * 8;

    private static DeviceBuffer<long>? buffer;
    private static int at;

    /// <summary>Launches.</summary>
    public static int Launches = 40;

    /// <summary>Next.</summary>
    public static ArrayView<long> Next(GpuDevice device)
    {
        buffer ??= device.Allocate<long>(Launches * Longs);
        return buffer.View.SubView(at++ % Launches * Longs, Longs);
    }

    /// <summary>All.</summary>
    public static long[] Read(GpuStream stream)
    {
        var all = new long[Launches * Longs];
        buffer!.CopyTo(stream, all);
        return all;
    }
}
