using System.Diagnostics;
using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Bench;

/// <summary>How fast a folder's weights come onto a device: the first load, which may find its files on disk only, and later ones, which find them in memory.</summary>
internal static class LoadBench
{
    public static IReadOnlyList<ResultRecord> Run(BenchOptions options)
    {
        using GpuDevice device = options.OpenDevice();
        Console.Error.WriteLine($"{device.Name}: {device.Choice}");
        var results = new List<ResultRecord>();
        if (device.IsCuda)
        {
            results.Add(Record(device, options, "first", "staged", [Load(device, options, new LoadOptions())]));
            results.Add(Record(device, options, "again", "staged", Repeat(device, options, new LoadOptions())));
        }
        else
        {
            results.Add(Record(device, options, "first", "direct", [Load(device, options, new LoadOptions())]));
        }
        // What staging is compared with: copies of pageable memory, one after the other.
        results.Add(Record(device, options, "again", "direct", Repeat(device, options, new LoadOptions { StagingBytes = 0 })));
        return results;
    }

    private static double[] Repeat(GpuDevice device, BenchOptions options, LoadOptions load) =>
        [.. Enumerable.Range(0, options.Runs).Select(_ => Load(device, options, load))];

    // Opening the files, allocating and the last wait are part of it; disposing is not.
    private static double Load(GpuDevice device, BenchOptions options, LoadOptions load)
    {
        var clock = Stopwatch.StartNew();
        using Qwen3Moe model = Qwen3Moe.Load(device, options.Model, load);
        return clock.Elapsed.TotalSeconds;
    }

    private static ResultRecord Record(GpuDevice device, BenchOptions options, string name, string path, double[] seconds)
    {
        double[] sorted = [.. seconds.Order()];
        double median = sorted[sorted.Length / 2];
        using Checkpoint checkpoint = Checkpoint.Open(options.Model);
        long bytes = checkpoint.TotalBytes;
        using var process = Process.GetCurrentProcess();
        Console.Error.WriteLine($"{name,-6} {path}: {bytes / 1e9:F2} GB in {median:F3} s ({sorted[0]:F3} to {sorted[^1]:F3}), {bytes / 1e9 / median:F2} GB/s");
        return new ResultRecord
        {
            Bench = "load",
            Name = name,
            Path = path,
            Model = Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(options.Model))),
            Seconds = Math.Round(median, 4),
            UsMin = Math.Round(sorted[0] * 1e6),
            UsMax = Math.Round(sorted[^1] * 1e6),
            Gbps = Math.Round(bytes / 1e9 / median, 3),
            WeightBytes = bytes,
            DeviceBytes = device.Ledger.PeakBytes,
            PeakResidentBytes = process.PeakWorkingSet64,
            Device = device.Name,
            Driver = ResultRecord.DriverOf(device),
        };
    }
}
