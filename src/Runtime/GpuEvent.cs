using System.Diagnostics;
using GpuKit.Ilgpu.Runtime.Driver;

namespace GpuKit.Ilgpu;

/// <summary>A point in a stream's work that can be waited for and timed.</summary>
public sealed class GpuEvent : IDisposable
{
    private readonly nint handle;
    private long cpuTimestamp;
    private bool disposed;

    internal GpuEvent(GpuDevice device)
    {
        Device = device;
        device.Bind();
        if (!device.IsCuda)
            return;
        device.Check(CudaDriver.cuEventCreate(out handle, CudaDriver.EventDefault), "creating an event");
    }

    /// <summary>The device that the event belongs to.</summary>
    public GpuDevice Device { get; }

    internal nint Handle
    {
        get
        {
            ObjectDisposedException.ThrowIf(disposed, this);
            return handle;
        }
    }

    /// <summary>Marks the point after everything queued on the stream so far.</summary>
    public void Record(GpuStream stream)
    {
        ArgumentNullException.ThrowIfNull(stream);
        Device.RequireSame(stream.Device, nameof(stream));
        nint own = Handle, queue = stream.Handle;
        cpuTimestamp = Stopwatch.GetTimestamp();
        if (!Device.IsCuda)
            return;
        Device.Bind();
        Device.Check(CudaDriver.cuEventRecord(own, queue), "recording an event");
    }

    /// <summary>Waits until the recorded point is reached.</summary>
    public void Synchronize()
    {
        nint own = Handle;
        if (!Device.IsCuda)
            return;
        Device.Bind();
        Device.Check(CudaDriver.cuEventSynchronize(own), "waiting for an event");
    }

    /// <summary>Milliseconds between an earlier event and this one. Both must have been recorded and reached.</summary>
    public double MillisecondsSince(GpuEvent start)
    {
        ArgumentNullException.ThrowIfNull(start);
        Device.RequireSame(start.Device, nameof(start));
        nint from = start.Handle, to = Handle;
        if (!Device.IsCuda)
            return Stopwatch.GetElapsedTime(start.cpuTimestamp, cpuTimestamp).TotalMilliseconds;
        Device.Bind();
        Device.Check(CudaDriver.cuEventElapsedTime(out float milliseconds, from, to), "reading the time between two events");
        return milliseconds;
    }

    /// <summary>Releases the event.</summary>
    public void Dispose()
    {
        if (disposed)
            return;
        disposed = true;
        if (Device.IsCuda && Device.TryBind())
            _ = CudaDriver.cuEventDestroy_v2(handle);
    }
}
