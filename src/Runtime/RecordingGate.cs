namespace GpuKit.Ilgpu.Runtime;

/// <summary>
/// Keeps recording graphs and waiting for the whole device apart: the driver refuses to wait for a context while one of its streams is
/// recorded, and gives the recording up as well. Threads may record at the same time.
/// </summary>
internal sealed class RecordingGate
{
    private readonly object gate = new();
    private readonly ThreadLocal<int> own = new();
    private int recordings;
    private int waits;

    /// <summary>Waits until nobody waits for the device, unless this thread records already.</summary>
    public void BeginRecording()
    {
        lock (gate)
        {
            while (waits > 0 && own.Value == 0)
                Monitor.Wait(gate);
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
            waits++;
            while (recordings > 0)
                Monitor.Wait(gate);
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
