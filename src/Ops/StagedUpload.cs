using System.Runtime.InteropServices;

namespace GpuKit.Ilgpu;

/// <summary>The place of the first byte that must not reach the device, or -1. Called from several threads, for parts that start on a multiple of 64 bytes of what is copied.</summary>
internal delegate int FindBadByte(ReadOnlySpan<byte> bytes);

/// <summary>
/// Copies to a device through a few pinned buffers: while the copy engine empties some, all cores fill another. A source may be reused when
/// <see cref="Copy"/> returns; it is on the device after <see cref="Complete"/>. For one thread at a time.
/// </summary>
internal sealed class StagedUpload : IDisposable
{
    /// <summary>Bytes of a buffer unless asked for otherwise: at a card's full speed a copy of a third of a millisecond, beside which its launch is nothing.</summary>
    public const int DefaultBytes = 16 << 20;

    private const int Buffers = 3;

    // Copied and then looked at by one core while it is in that core's cache.
    private const int PartBytes = 256 << 10;

    // A copy starts on a cache line, which no element lies across.
    private const int Alignment = 64;

    // More cores than that read no faster than a card takes, and are slow to wake.
    private static readonly ParallelOptions Cores = new() { MaxDegreeOfParallelism = Math.Min(Environment.ProcessorCount, 16) };

    private readonly CancellationToken cancellation;
    private readonly List<IDisposable> owned = [];
    private readonly PinnedBuffer<byte>[] buffers = new PinnedBuffer<byte>[Buffers];
    private readonly GpuEvent[] emptied = new GpuEvent[Buffers];
    private readonly GpuStream stream;
    private readonly int bytes;
    private int current;
    private int used;

    /// <summary>Allocates the buffers; nothing stays allocated when that fails.</summary>
    /// <param name="device">Where to.</param>
    /// <param name="bytes">Bytes of a buffer, rounded up to whole cache lines.</param>
    /// <param name="cancellation">Looked at whenever a buffer is full.</param>
    public StagedUpload(GpuDevice device, int bytes, CancellationToken cancellation)
    {
        this.cancellation = cancellation;
        this.bytes = checked(Math.Max(bytes, 1) + Alignment - 1) / Alignment * Alignment;
        stream = Own(device.CreateStream());
        try
        {
            for (int i = 0; i < Buffers; i++)
                (buffers[i], emptied[i]) = (Own(device.AllocatePinned<byte>(this.bytes)), Own(device.CreateEvent()));
        }
        catch
        {
            Release();
            throw;
        }
    }

    /// <summary>Queues a copy to a place in a buffer. What precedes a bad byte may have been copied.</summary>
    /// <param name="target">Buffer of the device.</param>
    /// <param name="source">Host memory.</param>
    /// <param name="offset">First element to be written.</param>
    /// <param name="find">Looks for bytes that must not be copied; may be null.</param>
    /// <returns>The place of the first such byte, or -1.</returns>
    /// <exception cref="OperationCanceledException">The upload was cancelled.</exception>
    public unsafe int Copy<T>(DeviceBuffer<T> target, ReadOnlySpan<T> source, long offset, FindBadByte? find = null)
        where T : unmanaged
    {
        ReadOnlySpan<byte> all = MemoryMarshal.AsBytes(source);
        for (int done = 0; done < all.Length;)
        {
            if (used == bytes)
                Turn();
            int length = Math.Min(all.Length - done, bytes - used);
            int bad = Fill(all.Slice(done, length), buffers[current].Span.Slice(used, length), find);
            if (bad >= 0)
                return done + bad;
            target.CopyFromPinned(stream, buffers[current], used, length, (offset * sizeof(T)) + done);
            done += length;
            used = (used + length + Alignment - 1) / Alignment * Alignment;
        }
        return -1;
    }

    /// <summary>Waits until everything is on the device.</summary>
    public void Complete() => stream.Synchronize();

    /// <summary>The same before targets are given up: silent, also on a lost device, where no copy is in flight any more.</summary>
    public void Abandon()
    {
        try
        {
            stream.Synchronize();
        }
        catch (GpuException)
        {
        }
    }

    /// <summary>Waits for copies in flight and releases the buffers.</summary>
    public void Dispose()
    {
        Abandon();
        Release();
    }

    private void Turn()
    {
        emptied[current].Record(stream);
        cancellation.ThrowIfCancellationRequested();
        current = (current + 1) % Buffers;
        emptied[current].Synchronize();
        used = 0;
    }

    // One core reads a mapped file at a fraction of what a card takes: each page costs a fault.
    private static unsafe int Fill(ReadOnlySpan<byte> source, Span<byte> target, FindBadByte? find)
    {
        int length = source.Length;
        if (length <= PartBytes)
            return FillPart(source, target, find);
        int first = int.MaxValue;
        object gate = new();
        fixed (byte* from = source, to = target)
        {
            (nint read, nint write) = ((nint)from, (nint)to);
            Parallel.For(0, (length + PartBytes - 1) / PartBytes, Cores, part =>
            {
                int start = part * PartBytes, count = Math.Min(PartBytes, length - start);
                int bad = FillPart(new ReadOnlySpan<byte>((byte*)read + start, count), new Span<byte>((byte*)write + start, count), find);
                if (bad < 0)
                    return;
                lock (gate)
                    first = Math.Min(first, start + bad);
            });
        }
        return first == int.MaxValue ? -1 : first;
    }

    private static int FillPart(ReadOnlySpan<byte> source, Span<byte> target, FindBadByte? find)
    {
        source.CopyTo(target);
        return find?.Invoke(target) ?? -1;
    }

    private TResource Own<TResource>(TResource resource)
        where TResource : IDisposable
    {
        owned.Add(resource);
        return resource;
    }

    private void Release() => owned.ForEach(o => o.Dispose());
}
