using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Runtime.Driver;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>
/// A block of device memory, counted in its device's ledger. Its contents are undefined until written. Operators take
/// <see cref="View"/> or a part of it (<c>buffer.View.SubView(offset, length)</c>).
/// </summary>
/// <typeparam name="T">Element type.</typeparam>
public sealed unsafe class DeviceBuffer<T> : IDisposable
    where T : unmanaged
{
    // Vector loads may read to the end of a 16-byte word; the allocation, not the view, is rounded up to it.
    private const int Granularity = 16;

    private DeviceMemory? memory;

    internal DeviceBuffer(GpuDevice device, long length, bool scratch = false)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        Device = device;
        Length = length;
        Bytes = checked(length * sizeof(T));
        long allocated = checked(Math.Max(Bytes, 1) + Granularity - 1) / Granularity * Granularity;
        memory = device.Allocate(new BufferSize(typeof(T), sizeof(T), length, allocated, scratch));
    }

    /// <summary>The device that holds the memory.</summary>
    public GpuDevice Device { get; }

    /// <summary>Number of elements.</summary>
    public long Length { get; }

    /// <summary>Size in bytes.</summary>
    public long Bytes { get; }

    /// <summary>The whole buffer as ILGPU's view, which operators take.</summary>
    /// <exception cref="ObjectDisposedException">The buffer was disposed.</exception>
    public ArrayView<T> View => new(Memory.Block, Memory.FirstElement, Length);

    private DeviceMemory Memory
    {
        get
        {
            ObjectDisposedException.ThrowIf(memory is null, this);
            return memory;
        }
    }

    /// <summary>The whole buffer as a view.</summary>
    public static implicit operator ArrayView<T>(DeviceBuffer<T> buffer)
    {
        ArgumentNullException.ThrowIfNull(buffer);
        return buffer.View;
    }

    /// <summary>Copies from host memory in the stream's order and returns when the source may be reused.</summary>
    /// <exception cref="ArgumentException">The range does not fit.</exception>
    public void CopyFrom(GpuStream stream, ReadOnlySpan<T> source, long offset = 0)
    {
        Range(stream, offset, source.Length);
        fixed (T* host = source)
        {
            if (!Device.IsCuda)
            {
                Buffer.MemoryCopy(host, (T*)Memory.Address + offset, (Length - offset) * sizeof(T), (long)source.Length * sizeof(T));
                return;
            }
            Device.Bind();
            Device.Check(CudaDriver.cuMemcpyHtoDAsync_v2(Memory.Address + (nint)(offset * sizeof(T)), host, (nuint)source.Length * (nuint)sizeof(T), stream.Handle), "copying to the device");
        }
        // The driver stages pageable memory only up to 64 KB; beyond that the source would still be read later.
        stream.Synchronize();
    }

    /// <summary>Copies to host memory after all earlier work of the stream, and waits for it.</summary>
    /// <exception cref="ArgumentException">The range does not fit.</exception>
    public void CopyTo(GpuStream stream, Span<T> target, long offset = 0)
    {
        Range(stream, offset, target.Length);
        fixed (T* host = target)
        {
            if (!Device.IsCuda)
            {
                Buffer.MemoryCopy((T*)Memory.Address + offset, host, (long)target.Length * sizeof(T), (long)target.Length * sizeof(T));
                return;
            }
            Device.Bind();
            Device.Check(CudaDriver.cuMemcpyDtoHAsync_v2(host, Memory.Address + (nint)(offset * sizeof(T)), (nuint)target.Length * (nuint)sizeof(T), stream.Handle), "copying to the host");
            stream.Synchronize();
        }
    }

    /// <summary>Queues a copy into pinned memory and returns at once; <see cref="GpuStream.Synchronize"/> makes it visible.</summary>
    /// <exception cref="ArgumentException">The range does not fit.</exception>
    public void CopyToPinned(GpuStream stream, PinnedBuffer<T> target, long offset = 0)
    {
        ArgumentNullException.ThrowIfNull(target);
        if (!Device.IsCuda)
        {
            CopyTo(stream, target.Span, offset);
            return;
        }
        Range(stream, offset, target.Length);
        _ = target.Span;
        Device.Bind();
        Device.Check(CudaDriver.cuMemcpyDtoHAsync_v2((void*)target.Address, Memory.Address + (nint)(offset * sizeof(T)), (nuint)target.Length * (nuint)sizeof(T), stream.Handle), "copying to pinned memory");
    }

    /// <summary>Queues a copy from pinned memory and returns at once; the source must stay unchanged until then.</summary>
    /// <exception cref="ArgumentException">The range does not fit.</exception>
    public void CopyFromPinned(GpuStream stream, PinnedBuffer<T> source, int count, long offset = 0)
    {
        ArgumentNullException.ThrowIfNull(source);
        if (!Device.IsCuda)
        {
            CopyFrom(stream, source.Span[..count], offset);
            return;
        }
        Range(stream, offset, count);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(count, source.Length);
        _ = source.Span;
        Device.Bind();
        Device.Check(CudaDriver.cuMemcpyHtoDAsync_v2(Memory.Address + (nint)(offset * sizeof(T)), (void*)source.Address, (nuint)count * (nuint)sizeof(T), stream.Handle), "copying from pinned memory");
    }

    /// <summary>Queues a copy of some bytes of pinned memory, counted in bytes on both sides.</summary>
    internal void CopyFromPinned(GpuStream stream, PinnedBuffer<byte> source, int start, int count, long byteOffset)
    {
        ArgumentNullException.ThrowIfNull(stream);
        Device.RequireSame(stream.Device, nameof(stream));
        Span<byte> bytes = source.Span.Slice(start, count);
        if (byteOffset < 0 || byteOffset > Bytes - count)
            throw new ArgumentException($"Bytes {byteOffset}..{byteOffset + count} are outside the buffer of {Bytes} bytes.");
        if (!Device.IsCuda)
        {
            bytes.CopyTo(new Span<byte>((byte*)Memory.Address + byteOffset, count));
            return;
        }
        Device.Bind();
        Device.Check(CudaDriver.cuMemcpyHtoDAsync_v2(Memory.Address + (nint)byteOffset, (byte*)source.Address + start, (nuint)count, stream.Handle), "copying from pinned memory");
    }

    /// <summary>The contents as an array, after all earlier work of the stream.</summary>
    public T[] ToArray(GpuStream stream)
    {
        var array = new T[checked((int)Length)];
        CopyTo(stream, array);
        return array;
    }

    /// <summary>Queues setting every byte of the buffer to one value.</summary>
    public void Fill(GpuStream stream, byte value)
    {
        Range(stream, 0, Length);
        if (!Device.IsCuda)
        {
            System.Runtime.InteropServices.NativeMemory.Fill((void*)Memory.Address, (nuint)Bytes, value);
            return;
        }
        Device.Bind();
        Device.Check(CudaDriver.cuMemsetD8Async(Memory.Address, value, (nuint)Bytes, stream.Handle), "filling a buffer");
    }

    /// <summary>Returns the memory to the device. Work that uses it must have finished.</summary>
    public void Dispose()
    {
        DeviceMemory? own = Interlocked.Exchange(ref memory, null);
        if (own is not null)
            Device.Free(own);
    }

    private void Range(GpuStream stream, long offset, long count)
    {
        ArgumentNullException.ThrowIfNull(stream);
        Device.RequireSame(stream.Device, nameof(stream));
        // The CPU device needs no handle, but a disposed stream is a mistake there, too.
        _ = stream.Accelerator;
        if (offset < 0 || count < 0 || offset > Length - count)
            throw new ArgumentException($"Elements {offset}..{offset + count} are outside the buffer of {Length} elements.");
    }
}
