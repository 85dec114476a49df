using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Runtime.Driver;
using ILGPU.Runtime;
using ILGPU.Runtime.Cuda;

namespace GpuKit.Ilgpu;

/// <summary>
/// An ordered queue of work on a device. Operators launch on the stream they are given and return at once; results are
/// there after <see cref="Synchronize"/>. On the CPU device every launch has finished when it returns.
/// </summary>
public sealed class GpuStream : IDisposable
{
    private readonly AcceleratorStream stream;
    private readonly bool owned;
    private readonly Lock gate = new();
    private LaunchScratch? scratch;
    private bool disposed;

    internal GpuStream(GpuDevice device, AcceleratorStream stream, bool owned)
    {
        Device = device;
        this.stream = stream;
        this.owned = owned;
    }

    /// <summary>The device that the stream belongs to.</summary>
    public GpuDevice Device { get; }

    internal AcceleratorStream Accelerator
    {
        get
        {
            ObjectDisposedException.ThrowIf(disposed, this);
            return stream;
        }
    }

    /// <summary>What blocks of this stream's launches exchange numbers through: while the stream is recorded the graph's, else the stream's own.</summary>
    /// <exception cref="GpuException">Memory is exhausted, and the next call tries again; or something else than <see cref="GpuGraph"/> records the stream.</exception>
    internal LaunchScratch Scratch =>
        FindScratch() ?? throw new GpuException(GpuFault.NotSupported, "A product whose K is split was launched on a stream that something else than GpuGraph.Capture records: record it with GpuGraph.Capture.");

    /// <summary>The same, or null while something else than <see cref="GpuGraph"/> records the stream: for launches that can do without.</summary>
    /// <exception cref="GpuException">Memory is exhausted; the next call tries again.</exception>
    internal LaunchScratch? FindScratch()
    {
        ObjectDisposedException.ThrowIf(disposed, this);
        if (GraphRecording.Of(this, out bool isForeign) is { } recording)
            return recording.ScratchOf(this);
        if (isForeign)
            return null;
        lock (gate)
        {
            ObjectDisposedException.ThrowIf(disposed, this);
            return scratch ??= new LaunchScratch(this);
        }
    }

    /// <summary>The CUstream handle; 0 on the CPU device.</summary>
    internal nint Handle => Accelerator is CudaStream cuda ? cuda.StreamPtr : 0;

    /// <summary>Waits until everything queued so far has finished.</summary>
    /// <exception cref="GpuException">A kernel before it faulted.</exception>
    public void Synchronize()
    {
        nint handle = Handle;
        if (!Device.IsCuda)
            return;
        Device.Bind();
        Device.Check(CudaDriver.cuStreamSynchronize(handle), "waiting for a stream");
    }

    /// <summary>Makes later work of this stream wait for an event recorded on another.</summary>
    public void WaitFor(GpuEvent recorded)
    {
        ArgumentNullException.ThrowIfNull(recorded);
        Device.RequireSame(recorded.Device, nameof(recorded));
        nint handle = Handle, point = recorded.Handle;
        if (!Device.IsCuda)
            return;
        Device.Bind();
        Device.Check(CudaDriver.cuStreamWaitEvent(handle, point, 0), "making a stream wait for an event");
    }

    /// <summary>Releases the stream. Work in flight still finishes, and is waited for where the stream holds scratch memory. The device's default stream cannot be disposed.</summary>
    public void Dispose()
    {
        lock (gate)
        {
            if (disposed || !owned)
                return;
            disposed = true;
        }
        using RelaxedCapture relaxed = RelaxedCapture.Enter(Device);
        try
        {
            ReleaseScratch();
        }
        finally
        {
            Device.DisposeSilently(stream);
        }
    }

    /// <summary>Returns what <see cref="Scratch"/> allocated, when the launches that use it have ended.</summary>
    internal void ReleaseScratch()
    {
        LaunchScratch? own;
        lock (gate)
            (own, scratch) = (scratch, null);
        if (own is null)
            return;
        using RelaxedCapture relaxed = RelaxedCapture.Enter(Device);
        // An answer other than success means that the device is lost, and its memory with it.
        if (stream is CudaStream cuda && Device.TryBind())
            _ = CudaDriver.cuStreamSynchronize(cuda.StreamPtr);
        own.Dispose();
    }
}
