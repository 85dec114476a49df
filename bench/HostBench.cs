using BenchmarkDotNet.Columns;
using BenchmarkDotNet.Configs;
using BenchmarkDotNet.Diagnosers;
using BenchmarkDotNet.Exporters;
using BenchmarkDotNet.Jobs;
using BenchmarkDotNet.Loggers;
using BenchmarkDotNet.Reports;
using BenchmarkDotNet.Running;
using BenchmarkDotNet.Toolchains.InProcess.Emit;

namespace GpuKit.Ilgpu.Bench;

/// <summary>What the host side costs, measured by BenchmarkDotNet.</summary>
internal static class HostBench
{
    /// <summary>What the benchmark classes run on: BenchmarkDotNet creates them itself.</summary>
    public static BenchOptions Options { get; private set; } = null!;

    public static IReadOnlyList<ResultRecord> Run(BenchOptions options)
    {
        Options = options;
        string name;
        string? driver;
        using (GpuDevice device = options.OpenDevice())
        {
            name = device.Name;
            driver = ResultRecord.DriverOf(device);
            Console.Error.WriteLine($"{name}: {device.Choice}");
        }
        // In process: the default toolchain builds a project, which needs an SDK and the sources.
        ManualConfig config = ManualConfig.CreateEmpty()
            .AddJob(Job.Default.WithToolchain(InProcessEmitToolchain.Instance).WithWarmupCount(3).WithIterationCount(12))
            .AddDiagnoser(MemoryDiagnoser.Default)
            .AddColumnProvider(DefaultColumnProviders.Instance)
            .AddExporter(MarkdownExporter.Console)
            .AddLogger(new TextLogger(Console.Error))
            .WithOptions(ConfigOptions.DisableLogFile)
            .WithArtifactsPath(Path.Combine(Path.GetTempPath(), "gpukit-bench"));
        return [.. BenchmarkRunner.Run([typeof(HostBenchOperators), typeof(HostBenchFiles)], config)
            .SelectMany(s => s.Reports)
            .Where(r => r.ResultStatistics is not null)
            .Select(r => Record(r, name, driver))];
    }

    private static ResultRecord Record(BenchmarkReport report, string device, string? driver) => new()
    {
        Bench = "host",
        Name = report.BenchmarkCase.Descriptor.WorkloadMethod.Name,
        Us = Microseconds(report.ResultStatistics!.Median),
        UsMin = Microseconds(report.ResultStatistics.Min),
        UsMax = Microseconds(report.ResultStatistics.Max),
        AllocatedBytes = report.GcStats.GetBytesAllocatedPerOperation(report.BenchmarkCase),
        Device = device,
        Driver = driver,
    };

    private static double Microseconds(double nanoseconds) => Math.Round(nanoseconds / 1000, 4);
}
