using System.Runtime.InteropServices;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Support;

/// <summary>
/// A tensor of a test: given contents, or every byte 0xFF, a NaN in every float format, so that an element that a kernel forgets is
/// found by any comparison. The guard bands are its device's (<see cref="GuardingAllocator"/>).
/// </summary>
public sealed class GuardedBuffer<T> : IDisposable
    where T : unmanaged
{
    private readonly DeviceBuffer<T> memory;
    private readonly GpuStream stream;
    private readonly int start;

    private GuardedBuffer(GpuDevice device, int length, int misalignment)
    {
        stream = device.DefaultStream;
        Length = length;
        start = misalignment / Marshal.SizeOf<T>();
        memory = device.Allocate<T>(start + (long)length);
    }

    /// <summary>Number of elements.</summary>
    public int Length { get; }

    /// <summary>The tensor.</summary>
    public ArrayView<T> View => memory.View.SubView(start, Length);

    /// <summary>An output: every byte 0xFF.</summary>
    public static GuardedBuffer<T> Output(GpuDevice device, int length) => new(device, length, 0);

    /// <summary>An input with contents, optionally some bytes, of whole elements, off a buffer's natural alignment.</summary>
    public static GuardedBuffer<T> Input(GpuDevice device, ReadOnlySpan<T> contents, int misalignment = 0)
    {
        var buffer = new GuardedBuffer<T>(device, contents.Length, misalignment);
        buffer.memory.CopyFrom(buffer.stream, contents, buffer.start);
        return buffer;
    }

    /// <summary>The contents now.</summary>
    public T[] ToArray()
    {
        var array = new T[Length];
        memory.CopyTo(stream, array, start);
        return array;
    }

    public void Dispose()
    {
        var skipped = new T[start];
        memory.CopyTo(stream, skipped);
        memory.Dispose();
        Assert.False(MemoryMarshal.AsBytes<T>(skipped).ContainsAnyExcept((byte)0xFF), $"A kernel wrote before its tensor, which starts at element {start} of a buffer.");
    }
}
