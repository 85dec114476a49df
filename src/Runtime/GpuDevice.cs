using System.Collections.Concurrent;
using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Runtime.Driver;
using GpuKit.Ilgpu.Runtime.Ptx;
using ILGPU;
using ILGPU.Runtime;
using ILGPU.Runtime.CPU;
using ILGPU.Runtime.Cuda;

namespace GpuKit.Ilgpu;

/// <summary>
/// A device that kernels run on: an NVIDIA card, or ILGPU's CPU accelerator where there is none. Owns its kernels,
/// streams and memory; may be used from several threads.
/// </summary>
public sealed partial class GpuDevice : IDisposable
{
    private readonly Context context;
    private readonly Accelerator accelerator;
    private int closed;

    private GpuDevice(Context context, Accelerator accelerator, int ordinal, string choice)
    {
        this.context = context;
        this.accelerator = accelerator;
        Ordinal = ordinal;
        Choice = choice;
        if (accelerator is CudaAccelerator cuda)
        {
            Target = PtxTarget.ForDevice(cuda.Architecture);
            Check(CudaDriver.cuDeviceGetAttribute(out int shared, CudaDriver.MaxSharedPerBlockOptIn, cuda.DeviceId), "reading the shared memory limit");
            MaxSharedBytesPerBlock = shared;
            Check(CudaDriver.cuDriverGetVersion(out int version), "reading the driver's version");
            CudaVersion = (version / 1000 * 10) + (version % 1000 / 10);
        }
        else
        {
            MaxSharedBytesPerBlock = accelerator.MaxSharedMemoryPerGroup;
        }
        Kernels = new KernelCache(this);
        DefaultStream = new GpuStream(this, accelerator.DefaultStream, owned: false);
    }

    /// <summary>Name as the driver gives it, or the CPU accelerator's shape.</summary>
    public string Name => IsCuda ? accelerator.Name : $"CPU ({accelerator.NumMultiprocessors} × {accelerator.MaxNumThreadsPerGroup} threads, {WarpSize}-lane warps)";

    /// <summary>Place among the cards of the machine; 0 on the CPU.</summary>
    public int Ordinal { get; }

    /// <summary>Which device was taken and why, in a few words.</summary>
    public string Choice { get; }

    /// <summary>Whether this is an NVIDIA card.</summary>
    public bool IsCuda => accelerator is CudaAccelerator;

    /// <summary>Compute capability of the card (9.0 is Hopper), or null on the CPU.</summary>
    public Version? ComputeCapability => accelerator is CudaAccelerator cuda ? new Version(cuda.Architecture.Major, cuda.Architecture.Minor) : null;

    /// <summary>Lanes a warp.</summary>
    public int WarpSize => accelerator.WarpSize;

    /// <summary>Streaming multiprocessors; on the CPU the blocks that run at once.</summary>
    public int MultiprocessorCount => accelerator.NumMultiprocessors;

    /// <summary>The most threads a block can have.</summary>
    public int MaxThreadsPerBlock => accelerator.MaxNumThreadsPerGroup;

    /// <summary>The most shared memory a block can have, in bytes.</summary>
    public int MaxSharedBytesPerBlock { get; }

    /// <summary>Bytes of level-2 cache; 0 on the CPU.</summary>
    public long L2Bytes => accelerator is CudaAccelerator cuda ? cuda.L2CacheSize : 0;

    /// <summary>Bytes of device memory.</summary>
    public long MemoryBytes => IsCuda ? accelerator.MemorySize : GC.GetGCMemoryInfo().TotalAvailableMemoryBytes;

    /// <summary>What the device's buffers hold.</summary>
    public AllocationLedger Ledger { get; } = new();

    /// <summary>The stream that exists from the start. It cannot be captured into a graph.</summary>
    public GpuStream DefaultStream { get; }

    // Not while a kernel of this device is being compiled.
    internal void ClearCompilerCache() => context.ClearCache(ClearCacheMode.Everything);

    /// <summary>Whether a kernel faulted and the driver gave the context up: nothing works on this device any more.</summary>
    public bool IsLost => lostReason is not null;

    internal bool IsClosed => closed != 0;

    internal PtxTarget? Target { get; }

    /// <summary>The CUDA version that the driver supports, as major·10 + minor; beyond all on the CPU.</summary>
    internal int CudaVersion { get; } = int.MaxValue;

    internal KernelCache Kernels { get; }

    internal LaunchLog Log { get; } = new();

    internal RecordingGate Recordings { get; } = new();

    /// <summary>Graphs that are being recorded, by the driver's number of the capture.</summary>
    internal ConcurrentDictionary<ulong, GraphRecording> OpenRecordings { get; } = new();

    internal Accelerator Accelerator
    {
        get
        {
            ObjectDisposedException.ThrowIf(IsClosed, this);
            return accelerator;
        }
    }

    /// <summary>Creates a stream whose work runs beside that of other streams.</summary>
    public GpuStream CreateStream()
    {
        Bind();
        try
        {
            return new GpuStream(this, Accelerator.CreateStream(), owned: true);
        }
        catch (CudaException e)
        {
            throw Translate(e, "creating a stream");
        }
    }

    /// <summary>Creates an event.</summary>
    public GpuEvent CreateEvent() => new(this);

    /// <summary>Allocates device memory, contents undefined.</summary>
    /// <param name="length">Number of elements; 0 is allowed.</param>
    /// <exception cref="GpuException">Memory is exhausted (<see cref="GpuFault.OutOfMemory"/>); the device stays usable.</exception>
    public DeviceBuffer<T> Allocate<T>(long length)
        where T : unmanaged => new(this, length);

    /// <summary>Allocates device memory and fills it from host memory.</summary>
    public DeviceBuffer<T> Upload<T>(ReadOnlySpan<T> contents)
        where T : unmanaged
    {
        DeviceBuffer<T> buffer = Allocate<T>(contents.Length);
        try
        {
            buffer.CopyFrom(DefaultStream, contents);
            return buffer;
        }
        catch
        {
            buffer.Dispose();
            throw;
        }
    }

    /// <summary>Allocates zeroed pinned host memory.</summary>
    /// <exception cref="GpuException">Memory is exhausted (<see cref="GpuFault.OutOfMemory"/>); the device stays usable.</exception>
    public PinnedBuffer<T> AllocatePinned<T>(int length)
        where T : unmanaged => new(this, length);

    /// <summary>Waits for all streams, and before that for graphs that other threads are recording.</summary>
    /// <exception cref="GpuException">A kernel faulted.</exception>
    /// <exception cref="InvalidOperationException">This thread is recording a graph.</exception>
    public void Synchronize()
    {
        Bind();
        try
        {
            Recordings.Wait(Accelerator.Synchronize);
        }
        catch (CudaException e)
        {
            throw Translate(e, "waiting for the device");
        }
    }

    /// <summary>Closes the device and returns all it holds. Silent, also on a lost device.</summary>
    public void Dispose()
    {
        if (!IsClosed)
            DefaultStream.ReleaseScratch();
        if (Interlocked.Exchange(ref closed, 1) != 0)
            return;
        Kernels.Clear();
        DisposeSilently(accelerator);
        DisposeSilently(context);
    }

    /// <inheritdoc/>
    public override string ToString() => Name;
}
