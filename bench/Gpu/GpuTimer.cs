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

    // And no longer than this, where fewer launches do.
    private const double MostMicroseconds = 20_000;

    /// <summary>
    /// Times <paramref name="launch"/>, which is given 0, 1, 2 … to rotate its buffers by. Without <paramref name="overlap"/> each
    /// launch waits for the end of the one before it, whatever its kernel allows.
    /// </summary>
    public static GpuTime Measure(GpuStream stream, int rotations, Action<int> launch, bool overlap = true)
    {
        GpuDevice device = stream.Device;
        launch(0);
        stream.Synchronize();
        int launches = Launches(rotations, Estimate(stream, launch));
        using GpuGraph graph = GpuGraph.Capture(stream, () =>
        {
            for (int i = 0; i < launches; i++)
                launch(i % rotations);
        }, overlap);
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

    /// <summary>Launches of a replay: whole rotations.</summary>
    internal static int Launches(int rotations, double us)
    {
        int wanted = (int)Math.Clamp(MostMicroseconds / us, 1, LeastLaunches);
        return (wanted + rotations - 1) / rotations * rotations;
    }

    // One launch, the host's part included: enough to tell slow kernels.
    private static double Estimate(GpuStream stream, Action<int> launch)
    {
        using GpuEvent start = stream.Device.CreateEvent(), end = stream.Device.CreateEvent();
        start.Record(stream);
        launch(0);
        end.Record(stream);
        end.Synchronize();
        return Math.Max(1, end.MillisecondsSince(start) * 1000);
    }
}
