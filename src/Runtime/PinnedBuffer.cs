using System.Runtime.InteropServices;
using GpuKit.Ilgpu.Runtime.Driver;

namespace GpuKit.Ilgpu;

/// <summary>
/// Host memory that the card reads and writes directly (page-locked), so that copies run beside kernels. Ordinary
/// memory on the CPU device.
/// </summary>
/// <typeparam name="T">Element type.</typeparam>
public sealed unsafe class PinnedBuffer<T> : IDisposable
    where T : unmanaged
{
    private readonly GpuDevice device;
    private readonly nuint bytes;
    private nint address;

    internal PinnedBuffer(GpuDevice device, int length)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        this.device = device;
        Length = length;
        bytes = (nuint)Math.Max(1, (long)length * sizeof(T));
        device.Bind();
        try
        {
            device.Allocator.Pinning(bytes);
            if (device.IsCuda)
                device.Check(CudaDriver.cuMemHostAlloc(out address, bytes, CudaDriver.HostAllocPortable), $"allocating {bytes:N0} bytes of pinned host memory");
            else
                address = (nint)NativeMemory.AlignedAlloc(bytes, 64);
        }
        catch (OutOfMemoryException e)
        {
            throw new GpuException(GpuFault.OutOfMemory, $"Out of memory allocating {bytes:N0} bytes of pinned host memory.", e);
        }
        device.Ledger.AddPinned((long)bytes);
        Span.Clear();
    }

    /// <summary>Number of elements.</summary>
    public int Length { get; }

    /// <summary>The memory. Reading it while a copy into it is in flight gives old or new values.</summary>
    public Span<T> Span
    {
        get
        {
            ObjectDisposedException.ThrowIf(address == 0, this);
            return new Span<T>((void*)address, Length);
        }
    }

    internal nint Address => address;

    /// <summary>Releases the memory. No copy may be in flight.</summary>
    public void Dispose()
    {
        nint own = Interlocked.Exchange(ref address, 0);
        if (own == 0)
            return;
        device.Ledger.AddPinned(-(long)bytes);
        if (!device.IsCuda)
        {
            NativeMemory.AlignedFree((void*)own);
        }
        else if (device.TryBind())
        {
            _ = CudaDriver.cuMemFreeHost(own);
        }
    }
}
