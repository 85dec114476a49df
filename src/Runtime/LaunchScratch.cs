using GpuKit.Ilgpu.Runtime.Driver;
using ILGPU;
using ILGPU.Runtime;

namespace GpuKit.Ilgpu.Runtime;

/// <summary>
/// Memory that blocks of one launch exchange numbers through. It belongs to a stream, or to a graph for the launches that are recorded into it: neither runs two launches at once, so none
/// takes another's. One size for all launches, allocated at the first that needs it and before a recording begins; no tensor lies in it, and the device's ledger does not count it.
/// </summary>
internal sealed class LaunchScratch : IDisposable
{
    /// <summary>Blocks a multiprocessor that have a place.</summary>
    public const int BlocksPerMultiprocessor = 2;

    /// <summary>Bytes of a block's place.</summary>
    public const int BlockBytes = 32 * 1024;

    // The CPU device runs a block a core, and a core may be all it has.
    private const int LeastMultiprocessors = 8;

    private readonly GpuDevice device;
    private readonly MemoryBuffer memory;

    private LaunchScratch(GpuDevice device)
    {
        this.device = device;
        int blocks = BlocksOf(device.MultiprocessorCount);
        memory = device.AllocateOwn((long)blocks * (BlockBytes + sizeof(int)));
        Partials = new ArrayView<uint>(memory, 0, (long)blocks * (BlockBytes / sizeof(uint)));
        Counters = new ArrayView<int>(memory, Partials.Length, blocks);
    }

    /// <summary>Contents are undefined at the start of a launch.</summary>
    public ArrayView<uint> Partials { get; }

    /// <summary>Zero before and after every launch.</summary>
    public ArrayView<int> Counters { get; }

    /// <summary>Blocks that have a place and a counter on a device of so many multiprocessors.</summary>
    public static int BlocksOf(int multiprocessors) => BlocksPerMultiprocessor * Math.Max(multiprocessors, LeastMultiprocessors);

    /// <summary>Allocates and waits until the counters are zero.</summary>
    /// <exception cref="GpuException">Memory is exhausted; the device stays usable.</exception>
    public static unsafe LaunchScratch Allocate(GpuDevice device)
    {
        var scratch = new LaunchScratch(device);
        nint counters = scratch.memory.NativePtr + (nint)(scratch.Partials.Length * sizeof(uint));
        var bytes = (nuint)(scratch.Counters.Length * sizeof(int));
        if (!device.IsCuda)
        {
            System.Runtime.InteropServices.NativeMemory.Clear((void*)counters, bytes);
            return scratch;
        }
        try
        {
            device.Check(CudaDriver.cuMemsetD8Async(counters, 0, bytes, device.DefaultStream.Handle), "clearing counters");
            device.DefaultStream.Synchronize();
            return scratch;
        }
        catch
        {
            scratch.Dispose();
            throw;
        }
    }

    public void Dispose() => device.DisposeSilently(memory);
}
