using GpuKit.Ilgpu.Runtime.Driver;

namespace GpuKit.Ilgpu.Runtime;

/// <summary>
/// A graph while its launches are recorded. Launches that need scratch memory get some that the graph will own, one for each stream that joined, for a replay may run beside these streams.
/// </summary>
internal sealed class GraphRecording(GpuDevice device) : IDisposable
{
    private readonly Dictionary<GpuStream, LaunchScratch> scratches = [];

    /// <summary>The recording that a stream takes part in, or null.</summary>
    /// <param name="stream">The stream.</param>
    /// <param name="isForeign">Whether it is being captured by somebody else, whose graph cannot own memory of ours.</param>
    /// <exception cref="GpuException">The recording has been given up.</exception>
    public static GraphRecording? Of(GpuStream stream, out bool isForeign)
    {
        isForeign = false;
        GpuDevice device = stream.Device;
        if (!device.IsCuda || ReferenceEquals(stream, device.DefaultStream))
            return null;
        device.Bind();
        device.Check(CudaDriver.cuStreamGetCaptureInfo_v2(stream.Handle, out int status, out ulong id, 0, 0, 0), "asking whether a stream is recorded");
        if (status == CudaDriver.NotCapturing)
            return null;
        if (status == CudaDriver.CaptureInvalidated)
            throw new GpuException(GpuFault.Driver, "The recording has been given up because of an earlier call in it that cannot be recorded; end it without launching more.");
        isForeign = !device.OpenRecordings.TryGetValue(id, out GraphRecording? recording);
        return recording;
    }

    /// <summary>Whether launches of the graph use scratch memory.</summary>
    public bool HasScratch => scratches.Count > 0;

    /// <summary>The scratch memory of a stream's launches in this graph.</summary>
    /// <exception cref="GpuException">Memory is exhausted; the next call tries again.</exception>
    public LaunchScratch ScratchOf(GpuStream stream)
    {
        lock (scratches)
        {
            if (!scratches.TryGetValue(stream, out LaunchScratch? scratch))
            {
                scratch = new LaunchScratch(device.DefaultStream);
                scratches.Add(stream, scratch);
                // Replays may follow on any stream, and this one is recorded.
                using RelaxedCapture relaxed = RelaxedCapture.Enter(device);
                device.DefaultStream.Synchronize();
            }
            return scratch;
        }
    }

    /// <summary>Returns the memory. No replay may be in flight.</summary>
    public void Dispose()
    {
        lock (scratches)
        {
            while (scratches.Count > 0)
            {
                (GpuStream stream, LaunchScratch scratch) = scratches.First();
                scratches.Remove(stream);
                scratch.Dispose();
            }
        }
    }
}
