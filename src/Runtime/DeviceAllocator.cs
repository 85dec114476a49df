using ILGPU.Runtime;

namespace GpuKit.Ilgpu.Runtime;

/// <summary>What a buffer asks for.</summary>
/// <param name="Element">Element type.</param>
/// <param name="ElementBytes">Bytes an element.</param>
/// <param name="Length">Elements.</param>
/// <param name="AllocatedBytes">Bytes of all elements, rounded up: what the device's ledger counts.</param>
/// <param name="IsScratch">Whether it belongs to a stream or a graph and is nobody's tensor.</param>
internal readonly record struct BufferSize(Type Element, int ElementBytes, long Length, long AllocatedBytes, bool IsScratch)
{
    /// <summary>Bytes of all elements.</summary>
    public long Bytes => Length * ElementBytes;
}

/// <summary>The memory of one buffer: a part of a block of ILGPU's, from a whole number of elements on.</summary>
internal sealed record DeviceMemory(MemoryBuffer Block, long FirstElement, BufferSize Size)
{
    /// <summary>Address of the first element.</summary>
    public nint Address => Block.NativePtr + (nint)(FirstElement * Size.ElementBytes);
}

/// <summary>Where a device's memory comes from. Tests put one in its place that guards buffers or runs out of memory.</summary>
internal class DeviceAllocator
{
    /// <summary>The memory of a buffer.</summary>
    /// <exception cref="OutOfMemoryException">There is none on the CPU device; cards throw exceptions of ILGPU.</exception>
    public virtual DeviceMemory Allocate(GpuDevice device, in BufferSize size) => new(device.Accelerator.AllocateRaw(size.AllocatedBytes, 1), 0, size);

    /// <summary>Takes a buffer's memory back. The device is open, but may be lost.</summary>
    public virtual void Free(GpuDevice device, DeviceMemory memory) => device.DisposeSilently(memory.Block);

    /// <summary>Before page-locked host memory is allocated.</summary>
    public virtual void Pinning(nuint bytes)
    {
    }
}
