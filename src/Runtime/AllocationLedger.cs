namespace GpuKit.Ilgpu;

/// <summary>Counts what a device's buffers and its pinned host memory hold. Thread-safe.</summary>
public sealed class AllocationLedger
{
    private long liveBytes;
    private long liveBuffers;
    private long peakBytes;
    private long totalAllocations;
    private long pinnedBytes;

    internal AllocationLedger()
    {
    }

    /// <summary>Bytes of all buffers that are not disposed.</summary>
    public long LiveBytes => Interlocked.Read(ref liveBytes);

    /// <summary>Buffers that are not disposed.</summary>
    public long LiveBuffers => Interlocked.Read(ref liveBuffers);

    /// <summary>The most bytes that were live at once.</summary>
    public long PeakBytes => Interlocked.Read(ref peakBytes);

    /// <summary>Allocations since the device was opened.</summary>
    public long TotalAllocations => Interlocked.Read(ref totalAllocations);

    /// <summary>Bytes of pinned host memory that are not released; not among <see cref="LiveBytes"/>.</summary>
    public long PinnedBytes => Interlocked.Read(ref pinnedBytes);

    internal void AddPinned(long bytes) => Interlocked.Add(ref pinnedBytes, bytes);

    internal void Add(long bytes)
    {
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

    internal void Remove(long bytes)
    {
        Interlocked.Decrement(ref liveBuffers);
        Interlocked.Add(ref liveBytes, -bytes);
    }
}
