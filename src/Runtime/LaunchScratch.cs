using GpuKit.Ilgpu.Runtime.Driver;

namespace GpuKit.Ilgpu.Runtime;

/// <summary>
/// Memory that blocks of one launch exchange numbers through. It belongs to a stream, or to a graph for the launches of a stream that are recorded into it: neither runs two launches at
/// once, so none takes another's. One size for all launches, allocated at the first that needs it; the ledger counts it as scratch.
/// </summary>
internal sealed class LaunchScratch : IDisposable
{
    /// <summary>Blocks a multiprocessor that have a place.</summary>
    public const int BlocksPerMultiprocessor = 2;

    /// <summary>Bytes of a block's place.</summary>
    public const int BlockBytes = 32 * 1024;

    // The CPU device runs a block a core, and a core may be all it has.
    private const int LeastMultiprocessors = 8;

    private const int LineWords = 32;

    private readonly GpuDevice device;

    /// <summary>Allocates, also while the thread records, and queues on a stream that all counters become zero.</summary>
    /// <param name="cleared">A stream that is not recorded.</param>
    /// <exception cref="GpuException">Memory is exhausted; the device stays usable.</exception>
    public LaunchScratch(GpuStream cleared)
    {
        device = cleared.Device;
        int blocks = BlocksOf(device.MultiprocessorCount);
        using RelaxedCapture relaxed = RelaxedCapture.Enter(device);
        Partials = new DeviceBuffer<uint>(device, PartialBytes(device.MultiprocessorCount) / sizeof(uint), scratch: true);
        try
        {
            Counters = new DeviceBuffer<int>(device, blocks, scratch: true);
            Counters.Fill(cleared, 0);
            Progress = new DeviceBuffer<uint>(device, LineWords, scratch: true);
            Progress.Fill(cleared, 0);
        }
        catch
        {
            Progress?.Dispose();
            Counters?.Dispose();
            Partials.Dispose();
            throw;
        }
    }

    /// <summary>Contents are undefined at the start of a launch.</summary>
    public DeviceBuffer<uint> Partials { get; }

    /// <summary>Zero before and after every launch.</summary>
    public DeviceBuffer<int> Counters { get; }

    /// <summary>A word that counts in its lower half, which is zero before and after every launch; launches that use it leave another number in the upper half.</summary>
    public DeviceBuffer<uint> Progress { get; }

    /// <summary>Blocks that have a place and a counter on a device of so many multiprocessors.</summary>
    public static int BlocksOf(int multiprocessors) => BlocksPerMultiprocessor * Math.Max(multiprocessors, LeastMultiprocessors);

    /// <summary>Bytes of <see cref="Partials"/> on a device of so many multiprocessors.</summary>
    public static long PartialBytes(int multiprocessors) => (long)BlocksOf(multiprocessors) * BlockBytes;

    /// <summary>Returns the memory, also while the thread records. Work that uses it must have finished.</summary>
    public void Dispose()
    {
        using RelaxedCapture relaxed = RelaxedCapture.Enter(device);
        try
        {
            Partials.Dispose();
        }
        finally
        {
            try
            {
                Counters.Dispose();
            }
            finally
            {
                Progress.Dispose();
            }
        }
    }
}
