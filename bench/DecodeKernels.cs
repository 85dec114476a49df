using System.Globalization;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu.Bench;

/// <summary>
/// The kernels of one decode step, each by itself: a step is run launch by launch and its launches are noted; then the launches
/// of one kernel, those of all layers, are recorded into a graph of their own, so that weights come from memory as in a step.
/// </summary>
internal static class DecodeKernels
{
    private const int WarmUps = 3, Replays = 9;

    // A single launch is repeated: a replay must last long enough for the clock of the events.
    private const int LeastLaunches = 16;

    /// <summary>Times the launches of one step.</summary>
    /// <param name="stream">The stream of the step.</param>
    /// <param name="step">Runs the step launch by launch.</param>
    /// <param name="template">What the records have in common.</param>
    public static IEnumerable<ResultRecord> Run(GpuStream stream, Action step, ResultRecord template)
    {
        GpuDevice device = stream.Device;
        var launches = new List<LaunchRecord>();
        device.LaunchObserver = launches.Add;
        try
        {
            step();
        }
        finally
        {
            device.LaunchObserver = null;
        }
        stream.Synchronize();
        Console.Error.WriteLine($"{"kernel",-64} {"blocks",7} {"times",5} {"us",8} {"us/step",9} {"alone",8} {"MB",8} {"% read",6} {"regs",4} {"local",5}");
        var results = new List<ResultRecord>();
        foreach (IGrouping<(int Id, int Blocks), LaunchRecord> group in launches.GroupBy(l => (l.Kernel.Id, l.Blocks)))
        {
            // What a kernel reads is what a step leaves, not what another kernel's repetitions do: experts of a batch above all.
            step();
            results.Add(Measure(stream, [.. group], template));
        }
        double sum = results.Sum(r => r.Us!.Value * r.Launches!.Value), alone = results.Sum(r => r.UsAlone!.Value * r.Launches!.Value);
        Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"context {template.Context}: {launches.Count} launches, {sum:F0} us overlapping with their own kind, {alone:F0} us without overlap"));
        return results;
    }

    private static ResultRecord Measure(GpuStream stream, LaunchRecord[] group, ResultRecord template)
    {
        double us = Time(stream, group, overlap: true), alone = Time(stream, group, overlap: false);
        double bytes = group.Average(l => (double)KernelBytes.Of(l, template.Context!.Value, template.DistinctExperts));
        double gbps = bytes / us / 1000;
        KernelResources? resources = stream.Device.Kernels.ResourcesOfLoaded(group[0].Kernel);
        ResultRecord result = template with
        {
            Path = "kernel",
            Name = group[0].Kernel.Name,
            Launches = group.Length,
            Us = Math.Round(us, 2),
            UsAlone = Math.Round(alone, 2),
            Registers = resources?.Registers,
            LocalBytes = resources?.LocalBytes,
            Gbps = bytes > 0 ? Math.Round(gbps, 1) : null,
            ReadRatio = bytes > 0 && template.ReadGbps is { } read ? Math.Round(gbps / read, 3) : null,
        };
        string name = result.Name!.Length > 64 ? result.Name[..64] : result.Name;
        Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{name,-64} {group[0].Blocks,7} {group.Length,5} {us,8:F2} {us * group.Length,9:F1} {alone,8:F2} {bytes / 1e6,8:F2} {100 * result.ReadRatio,6:F0} {result.Registers,4} {result.LocalBytes,5}"));
        return result;
    }

    /// <summary>Median microseconds a launch, of all of a group one behind the other.</summary>
    public static double Time(GpuStream stream, LaunchRecord[] group, bool overlap)
    {
        int rounds = (LeastLaunches + group.Length - 1) / group.Length;
        using GpuGraph graph = GpuGraph.Capture(stream, () =>
        {
            for (int round = 0; round < rounds; round++)
                foreach (LaunchRecord launch in group)
                    launch.Repeat();
        }, overlap);
        using GpuEvent start = stream.Device.CreateEvent(), end = stream.Device.CreateEvent();
        var times = new List<double>();
        for (int i = 0; i < WarmUps + Replays; i++)
        {
            start.Record(stream);
            graph.Replay(stream);
            end.Record(stream);
            end.Synchronize();
            if (i >= WarmUps)
                times.Add(end.MillisecondsSince(start) * 1000 / (rounds * group.Length));
        }
        times.Sort();
        return times[times.Count / 2];
    }
}
