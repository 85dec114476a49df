using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>Counts what a device's buffers and its pinned host memory hold. Thread-safe.</summary>
public sealed class AllocationLedger
{
    private long liveBytes;
    private long liveBuffers;
    private long peakBytes;
    private long totalAllocations;
    private long pinnedBytes;
    private long scratchBytes;

    internal AllocationLedger()
    {
    }

    /// <summary>Bytes of all buffers that are not disposed.</summary>
    public long LiveBytes => Interlocked.Read(ref liveBytes);

    /// <summary>Buffers that are not disposed.</summary>
    public long LiveBuffers => Interlocked.Read(ref liveBuffers);

    /// <summary>The most bytes of buffers that were live at once.</summary>
    public long PeakBytes => Interlocked.Read(ref peakBytes);

    /// <summary>Buffers allocated since the device was opened.</summary>
    public long TotalAllocations => Interlocked.Read(ref totalAllocations);

    /// <summary>Bytes of pinned host memory that are not released; not among <see cref="LiveBytes"/>.</summary>
    public long PinnedBytes => Interlocked.Read(ref pinnedBytes);

    /// <summary>
    /// Bytes through which the blocks of one launch exchange parts of sums or arranged inputs, about 33 KB for each of two blocks a multiprocessor: a stream holds them from its first
    /// product whose K is split or whose inputs they arrange until it is disposed, a graph holds its own. Not among <see cref="LiveBytes"/>.
    /// </summary>
    public long ScratchBytes => Interlocked.Read(ref scratchBytes);

    internal void AddPinned(long bytes) => Interlocked.Add(ref pinnedBytes, bytes);

    internal void Add(in BufferSize size)
    {
        if (size.IsScratch)
        {
            Interlocked.Add(ref scratchBytes, size.AllocatedBytes);
            return;
        }
        long bytes = size.AllocatedBytes;
        Interlocked.Increment(ref liveBuffers);
        Interlocked.Increment(ref totalAllocations);
        long live = Interlocked.Add(ref liveBytes, bytes);
        long peak = Interlocked.Read(ref peakBytes);
        while (live > peak)
        {
            long seen = Interlocked.CompareExchange(ref peakBytes, live, peak);
            if (seen == peak)
                break;
            peak = seen;
        }
    }

    internal void Remove(in BufferSize size)
    {
        if (size.IsScratch)
        {
            Interlocked.Add(ref scratchBytes, -size.AllocatedBytes);
            return;
        }
        Interlocked.Decrement(ref liveBuffers);
        Interlocked.Add(ref liveBytes, -size.AllocatedBytes);
    }
}
