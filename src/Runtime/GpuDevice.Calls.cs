using System.Runtime.CompilerServices;
using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Runtime.Driver;
using ILGPU;
using ILGPU.Runtime;
using ILGPU.Runtime.Cuda;

namespace GpuKit.Ilgpu;

// The inner side: launching, allocating and turning driver errors into faults. Users see none of it.
public sealed partial class GpuDevice
{
    private volatile string? lostReason;

    /// <summary>Told of every launch while it is set; launches then allocate. For benchmarks.</summary>
    internal Action<LaunchRecord>? LaunchObserver { get; set; }

    /// <summary>Asked before every launch while it is set, which is not made where it says no. For tests that count kernels.</summary>
    internal Predicate<KernelDefinition>? LaunchFilter { get; set; }

    /// <summary>Where buffers get their memory. Set before the first of them.</summary>
    internal DeviceAllocator Allocator { get; set; } = new();

    /// <summary>Makes the device's context current on the calling thread.</summary>
    internal void Bind()
    {
        ThrowIfLost();
        Accelerator own = Accelerator;
        if (!ReferenceEquals(ILGPU.Runtime.Accelerator.Current, own))
            own.Bind();
    }

    /// <summary>
    /// <see cref="Bind"/> for disposing: false where there is nothing to release any more, because the device is closed or lost
    /// (the driver has dropped all it held then).
    /// </summary>
    internal bool TryBind()
    {
        if (IsClosed || IsLost)
            return false;
        try
        {
            Bind();
            return true;
        }
        catch (GpuException) when (IsLost)
        {
            // Another thread has just noticed.
            return false;
        }
    }

    /// <summary>Queues one kernel. Allocates nothing once the kernel is loaded.</summary>
    /// <param name="definition">What to run.</param>
    /// <param name="stream">Where; must belong to this device.</param>
    /// <param name="grid">Blocks in x, y, z; a zero launches nothing.</param>
    /// <param name="threads">Threads a block.</param>
    /// <param name="dynamicShared">Bytes of dynamic shared memory a block.</param>
    /// <param name="args">The kernel's argument struct.</param>
    internal void Launch<TArgs>(KernelDefinition<TArgs> definition, GpuStream stream, (int X, int Y, int Z) grid, int threads, int dynamicShared, in TArgs args)
        where TArgs : struct
    {
        RequireSame(stream.Device, nameof(stream));
        if (grid.X == 0 || grid.Y == 0 || grid.Z == 0 || LaunchFilter?.Invoke(definition) == false)
            return;
        Bind();
        Action<AcceleratorStream, KernelConfig, TArgs> launcher = Kernels.Get(definition, dynamicShared);
        Log.Add(definition, grid.X, grid.Y, grid.Z, threads);
        if (IsCuda && definition.Traits.HasPlainArguments)
            LaunchPlain(definition, stream, grid, threads, dynamicShared, args);
        else
            LaunchPacked(definition, launcher, stream, grid, threads, dynamicShared, args);
        if (LaunchObserver is not null)
            Observe(definition, stream, grid, threads, dynamicShared, args);
    }

    private void LaunchPacked<TArgs>(KernelDefinition<TArgs> definition, Action<AcceleratorStream, KernelConfig, TArgs> launcher, GpuStream stream, (int X, int Y, int Z) grid, int threads, int dynamicShared, in TArgs args)
        where TArgs : struct
    {
        try
        {
            SharedMemoryConfig shared = dynamicShared == 0 ? SharedMemoryConfig.Empty : SharedMemoryConfig.RequestDynamic<byte>(dynamicShared);
            launcher(stream.Accelerator, new KernelConfig(new Index3D(grid.X, grid.Y, grid.Z), new Index3D(threads, 1, 1), shared), args);
        }
        catch (CudaException e)
        {
            throw Translate(e, $"launching {definition.Name}");
        }
    }

    // ILGPU packs arguments by itself, without the alignment that tensor maps ask for; the driver knows it.
    private unsafe void LaunchPlain<TArgs>(KernelDefinition<TArgs> definition, GpuStream stream, (int X, int Y, int Z) grid, int threads, int dynamicShared, TArgs args)
        where TArgs : struct
    {
        void* argument = Unsafe.AsPointer(ref args);
        CudaError status = CudaDriver.cuLaunchKernel(
            Kernels.Function(definition), (uint)grid.X, (uint)grid.Y, (uint)grid.Z, (uint)threads, 1, 1, (uint)dynamicShared, stream.Handle, &argument, null);
        Check(status, $"launching {definition.Name}");
    }

    // Apart from the launch itself, whose closure would else be allocated every time.
    private void Observe<TArgs>(KernelDefinition<TArgs> definition, GpuStream stream, (int X, int Y, int Z) grid, int threads, int dynamicShared, TArgs args)
        where TArgs : struct =>
        LaunchObserver!(new LaunchRecord(definition, grid.X * grid.Y * grid.Z, threads, dynamicShared, args, () => Launch(definition, stream, grid, threads, dynamicShared, args)));

    internal DeviceMemory Allocate(BufferSize size)
    {
        Bind();
        DeviceMemory memory;
        try
        {
            memory = Allocator.Allocate(this, size);
        }
        catch (CudaException e)
        {
            throw Translate(e, $"allocating {size.AllocatedBytes:N0} bytes");
        }
        catch (OutOfMemoryException e)
        {
            throw new GpuException(GpuFault.OutOfMemory, $"Out of memory allocating {size.AllocatedBytes:N0} bytes; {Ledger.LiveBytes:N0} are in use, and {Ledger.ScratchBytes:N0} by streams and graphs.", e);
        }
        Ledger.Add(size);
        return memory;
    }

    internal void Free(DeviceMemory memory)
    {
        Ledger.Remove(memory.Size);
        if (!IsClosed)
            Allocator.Free(this, memory);
    }

    /// <summary>Disposing never throws: on a lost device the driver refuses even that, and nobody can act on it.</summary>
    internal void DisposeSilently(IDisposable resource)
    {
        try
        {
            resource.Dispose();
        }
        catch (AcceleratorException)
        {
        }
    }

    /// <summary>Throws unless another object lives on this device.</summary>
    internal void RequireSame(GpuDevice other, string argument)
    {
        if (!ReferenceEquals(this, other))
            throw new ArgumentException($"'{argument}' belongs to {other.Name}, this call runs on {Name}.", argument);
    }

    /// <summary>Throws a fault for a driver status that is not success.</summary>
    internal void Check(CudaError status, string doing)
    {
        if (status != CudaError.CUDA_SUCCESS)
            throw Fault(status, doing, null);
    }

    private GpuException Translate(CudaException e, string doing) =>
        Fault(Status(e), doing, e);

    private static CudaError Status(CudaException e) =>
        Enum.TryParse(e.Error, out CudaError status) ? status : CudaError.CUDA_ERROR_UNKNOWN;

    private GpuException Fault(CudaError status, string doing, Exception? inner)
    {
        switch (status)
        {
            case CudaError.CUDA_ERROR_OUT_OF_MEMORY:
                _ = CudaDriver.cuMemGetInfo_v2(out nuint free, out nuint total);
                return new GpuException(GpuFault.OutOfMemory, $"Out of device memory {doing}: {free:N0} of {total:N0} bytes are free, {Ledger.LiveBytes:N0} held by this device's buffers, {Ledger.ScratchBytes:N0} by its streams and graphs.", inner);
            case CudaError.CUDA_ERROR_ILLEGAL_ADDRESS:
            case CudaError.CUDA_ERROR_LAUNCH_FAILED:
            case CudaError.CUDA_ERROR_LAUNCH_TIMEOUT:
            case CudaError.CUDA_ERROR_ASSERT:
            case CudaError.CUDA_ERROR_ILLEGAL_INSTRUCTION:
            case CudaError.CUDA_ERROR_MISALIGNED_ADDRESS:
            case CudaError.CUDA_ERROR_INVALID_ADDRESS_SPACE:
            case CudaError.CUDA_ERROR_INVALID_PC:
            case CudaError.CUDA_ERROR_HARDWARE_STACK_ERROR:
            case CudaError.CUDA_ERROR_ECC_UNCORRECTABLE:
                // Two threads may notice at once: the first reason stands.
                Interlocked.CompareExchange(ref lostReason, $"{Name} faulted with {status}, noticed while {doing}. The last launches, newest first:{Log.Describe()}", null);
                return new GpuException(GpuFault.DeviceLost, lostReason, inner);
            default:
                return new GpuException(GpuFault.Driver, $"The driver answered {status} while {doing}.", inner);
        }
    }

    private void ThrowIfLost()
    {
        if (lostReason is { } reason)
            throw new GpuException(GpuFault.DeviceLost, "The device is lost: " + reason);
    }
}
