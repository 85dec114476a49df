namespace GpuKit.Ilgpu.Runtime;

/// <summary>
/// Keeps recording graphs and waiting for the whole device apart: the driver refuses to wait for a context while one of its streams is
/// recorded, and gives the recording up as well. Threads may record at the same time. A recording comes first: it is short, and whoever polls the device
/// must not keep it from beginning.
/// </summary>
internal sealed class RecordingGate
{
    private readonly object gate = new();
    private readonly ThreadLocal<int> own = new();
    private int recordings;
    private int queuedRecordings;
    private int waits;

    /// <summary>Waits until nobody waits for the device, unless this thread records already.</summary>
    public void BeginRecording()
    {
        lock (gate)
        {
            queuedRecordings++;
            while (waits > 0 && own.Value == 0)
                Monitor.Wait(gate);
            queuedRecordings--;
            recordings++;
        }
        own.Value++;
    }

    /// <summary>By the thread that began.</summary>
    public void EndRecording()
    {
        own.Value--;
        lock (gate)
        {
            recordings--;
            Monitor.PulseAll(gate);
        }
    }

    /// <summary>Runs a wait for the device when nobody records; who records later waits for its end.</summary>
    /// <exception cref="InvalidOperationException">This thread is recording.</exception>
    public void Wait(Action wait)
    {
        if (own.Value > 0)
            throw new InvalidOperationException("The device cannot be waited for while this thread records a graph: nothing runs before the graph is replayed.");
        lock (gate)
        {
            while (recordings + queuedRecordings > 0)
                Monitor.Wait(gate);
            waits++;
        }
        try
        {
            wait();
        }
        finally
        {
            lock (gate)
            {
                waits--;
                Monitor.PulseAll(gate);
            }
        }
    }
}
