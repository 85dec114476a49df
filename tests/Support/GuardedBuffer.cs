using System.Runtime.InteropServices;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Support;

/// <summary>
/// A device buffer between two guard bands of 4 KiB. The bands hold a NaN in every float format, so reading them poisons a
/// result; <see cref="Dispose"/> fails the test when they were written. Outputs start as NaN as well: an element that a
/// kernel forgets is found by any comparison.
/// </summary>
public sealed class GuardedBuffer<T> : IDisposable
    where T : unmanaged
{
    private const int GuardBytes = 4096;
    private const byte Pattern = 0xFF;

    private readonly DeviceBuffer<byte> memory;
    private readonly GpuStream stream;
    private readonly int start;

    private GuardedBuffer(GpuDevice device, int length, int misalignment)
    {
        stream = device.DefaultStream;
        Length = length;
        start = GuardBytes + misalignment;
        memory = device.Allocate<byte>(start + ((long)length * Marshal.SizeOf<T>()) + GuardBytes);
        memory.Fill(stream, Pattern);
    }

    /// <summary>Number of elements between the bands.</summary>
    public int Length { get; }

    /// <summary>The part between the bands.</summary>
    public ArrayView<T> View => memory.View.SubView(start, (long)Length * Marshal.SizeOf<T>()).Cast<T>();

    /// <summary>An output: every byte 0xFF.</summary>
    public static GuardedBuffer<T> Output(GpuDevice device, int length) => new(device, length, 0);

    /// <summary>An input with contents, optionally off its natural 4 KiB alignment by some bytes.</summary>
    public static GuardedBuffer<T> Input(GpuDevice device, ReadOnlySpan<T> contents, int misalignment = 0)
    {
        var buffer = new GuardedBuffer<T>(device, contents.Length, misalignment);
        buffer.memory.CopyFrom(buffer.stream, MemoryMarshal.AsBytes(contents), buffer.start);
        return buffer;
    }

    /// <summary>The contents now.</summary>
    public T[] ToArray()
    {
        var array = new T[Length];
        memory.CopyTo(stream, MemoryMarshal.AsBytes(array.AsSpan()), start);
        return array;
    }

    public void Dispose()
    {
        byte[] bytes = memory.ToArray(stream);
        int end = start + (Length * Marshal.SizeOf<T>());
        memory.Dispose();
        for (int i = 0; i < bytes.Length; i++)
        {
            if (i == start)
                i = end;
            Assert.True(bytes[i] == Pattern, $"The guard band was written at byte {i - start} of a buffer of {end - start} bytes.");
        }
    }
}
