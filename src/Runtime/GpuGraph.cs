using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Runtime.Driver;

namespace GpuKit.Ilgpu;

/// <summary>
/// A recorded sequence of launches that is replayed with one call. The launches keep the addresses and sizes they were
/// recorded with: buffers must outlive the graph, and what changes between replays must be read from device memory.
/// </summary>
public sealed class GpuGraph : IDisposable
{
    private readonly GpuDevice device;
    private readonly GraphRecording recording;
    private readonly Lock gate = new();
    private GpuEvent? replayed;
    private nint executable;

    private GpuGraph(GpuDevice device, GraphRecording recording, nint executable, int nodes)
    {
        this.device = device;
        this.recording = recording;
        this.executable = executable;
        Nodes = nodes;
    }

    /// <summary>Launches and copies that the graph holds.</summary>
    public int Nodes { get; }

    /// <summary>
    /// Records everything that <paramref name="record"/> launches on the stream. Nothing runs yet. Kernels must have been
    /// loaded before (run the sequence once), since loading a module is not possible while recording. Nothing that is called may wait for another thread that waits for
    /// the device.
    /// </summary>
    /// <exception cref="GpuException">The device has no graphs (<see cref="GpuFault.NotSupported"/>), the stream is the default one, or the sequence cannot be recorded.</exception>
    public static GpuGraph Capture(GpuStream stream, Action record) => Capture(stream, record, overlap: true);

    /// <summary>The same; without <paramref name="overlap"/> every launch waits for the end of the one before it, for tests and benchmarks.</summary>
    internal static GpuGraph Capture(GpuStream stream, Action record, bool overlap)
    {
        ArgumentNullException.ThrowIfNull(stream);
        ArgumentNullException.ThrowIfNull(record);
        GpuDevice device = stream.Device;
        if (!device.IsCuda)
            throw new GpuException(GpuFault.NotSupported, "The CPU device has no graphs; launch the sequence directly.");
        if (ReferenceEquals(stream, device.DefaultStream))
            throw new ArgumentException("The default stream cannot be captured; use GpuDevice.CreateStream().", nameof(stream));
        device.Bind();
        var recording = new GraphRecording(device);
        device.Recordings.BeginRecording();
        try
        {
            return Instantiate(device, Record(device, stream, recording, record), recording, overlap);
        }
        catch
        {
            recording.Dispose();
            throw;
        }
        finally
        {
            device.Recordings.EndRecording();
        }
    }

    private static nint Record(GpuDevice device, GpuStream stream, GraphRecording recording, Action record)
    {
        device.Check(CudaDriver.cuStreamBeginCapture_v2(stream.Handle, CudaDriver.CaptureModeThreadLocal), "beginning a capture");
        ulong id = 0;
        try
        {
            device.Check(CudaDriver.cuStreamGetCaptureInfo_v2(stream.Handle, out _, out id, 0, 0, 0), "numbering a capture");
            device.OpenRecordings[id] = recording;
            record();
        }
        catch
        {
            // The capture must end in any case, or the stream stays unusable; the thread may be within another one.
            using RelaxedCapture relaxed = RelaxedCapture.Enter(device);
            if (CudaDriver.cuStreamEndCapture(stream.Handle, out nint abandoned) == 0 && abandoned != 0)
                _ = CudaDriver.cuGraphDestroy(abandoned);
            throw;
        }
        finally
        {
            device.OpenRecordings.TryRemove(id, out _);
        }
        device.Check(CudaDriver.cuStreamEndCapture(stream.Handle, out nint graph), "ending a capture");
        return graph;
    }

    private static GpuGraph Instantiate(GpuDevice device, nint graph, GraphRecording recording, bool overlap)
    {
        // This thread may be recording another graph.
        using RelaxedCapture relaxed = RelaxedCapture.Enter(device);
        try
        {
            nuint nodes = 0;
            device.Check(CudaDriver.cuGraphGetNodes(graph, 0, ref nodes), "counting the nodes of a graph");
            if (overlap)
                GraphOverlap.Apply(device, graph);
            device.Check(CudaDriver.cuGraphInstantiateWithFlags(out nint executable, graph, 0), "instantiating a graph");
            return new GpuGraph(device, recording, executable, (int)nodes);
        }
        finally
        {
            _ = CudaDriver.cuGraphDestroy(graph);
        }
    }

    /// <summary>Queues one replay on a stream of the same device. Replays of one graph run one after the other, whatever their streams and threads.</summary>
    public void Replay(GpuStream stream)
    {
        ArgumentNullException.ThrowIfNull(stream);
        device.RequireSame(stream.Device, nameof(stream));
        lock (gate)
        {
            ObjectDisposedException.ThrowIf(executable == 0, this);
            device.Bind();
            device.Check(CudaDriver.cuGraphLaunch(executable, stream.Handle), "replaying a graph");
            // The driver keeps the nodes of a replay in flight, the memory between its blocks is ours to keep.
            if (recording.HasScratch)
                (replayed ??= device.CreateEvent()).Record(stream);
        }
    }

    /// <summary>Releases the graph. A replay in flight still finishes, and is waited for where the graph holds scratch memory.</summary>
    public void Dispose()
    {
        lock (gate)
        {
            nint handle = executable;
            executable = 0;
            if (handle == 0)
                return;
            using RelaxedCapture relaxed = RelaxedCapture.Enter(device);
            try
            {
                if (device.TryBind())
                {
                    if (replayed is not null)
                        _ = CudaDriver.cuEventSynchronize(replayed.Handle);
                    _ = CudaDriver.cuGraphExecDestroy(handle);
                }
            }
            finally
            {
                replayed?.Dispose();
                recording.Dispose();
            }
        }
    }
}
