namespace GpuKit.Ilgpu.Bench;

/// <summary>Median, least and greatest microseconds of one launch.</summary>
internal readonly record struct GpuTime(double Us, double UsMin, double UsMax);

/// <summary>
/// Times launches between two events around replays of a recorded graph: no host in the way, and the gap between two
/// nodes counts, as it does in a decode step.
/// </summary>
internal static class GpuTimer
{
    private const int WarmUps = 3;
    private const int Replays = 15;

    // A replay must last long enough for the clock of the events.
    private const int LeastLaunches = 48;

    /// <summary>Times <paramref name="launch"/>, which is given 0, 1, 2 … to rotate its buffers by.</summary>
    public static GpuTime Measure(GpuStream stream, int rotations, Action<int> launch)
    {
        GpuDevice device = stream.Device;
        int launches = (LeastLaunches + rotations - 1) / rotations * rotations;
        launch(0);
        stream.Synchronize();
        using GpuGraph graph = GpuGraph.Capture(stream, () =>
        {
            for (int i = 0; i < launches; i++)
                launch(i % rotations);
        });
        using GpuEvent start = device.CreateEvent(), end = device.CreateEvent();
        var times = new List<double>();
        for (int i = 0; i < WarmUps + Replays; i++)
        {
            start.Record(stream);
            graph.Replay(stream);
            end.Record(stream);
            end.Synchronize();
            if (i >= WarmUps)
                times.Add(end.MillisecondsSince(start) * 1000 / launches);
        }
        times.Sort();
        return new GpuTime(times[times.Count / 2], times[0], times[^1]);
    }
}
