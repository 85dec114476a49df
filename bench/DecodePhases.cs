using System.Globalization;
using GpuKit.Ilgpu.Models;
using Kernel = GpuKit.Ilgpu.Kernels.DecodeStep;

namespace GpuKit.Ilgpu.Bench;

/// <summary>
/// Where the time of a step in one launch goes: the kernel notes its multiprocessor's clock at four points of every phase. Median over layers and blocks, and the slowest block's
/// median; in cycles, and in microseconds as if a layer of the step lasted as long as its cycles say.
/// </summary>
internal static class DecodePhases
{
    private static readonly string[] Phases = ["query-key-value", "attention", "output, router", "gate and up", "down"];
    private static readonly string[] Parts = ["waits", "gets inputs", "multiplies", "ends"];

    // Enough for the clock to be that of work.
    private const int Steps = 32;

    /// <summary>Prints the table of a session's step; nothing when it does not run in one launch.</summary>
    /// <param name="session">At the context to measure.</param>
    /// <param name="stepUs">Microseconds of a replayed step's layers.</param>
    public static void Run(Qwen3Session session, double stepUs)
    {
        if (session.OneLaunch is not { } step)
            return;
        int layers = session.Model.Config.Layers, blocks = step.ChosenPlan.Blocks;
        using DeviceBuffer<long> trace = session.Model.Device.Allocate<long>((long)layers * blocks * Kernel.Stamps);
        trace.Fill(session.Stream, 0);
        step.Trace = trace;
        for (int i = 0; i < Steps; i++)
            session.StepDirectly();
        step.Trace = null;
        long[] stamps = trace.ToArray(session.Stream);
        long Stamp(int layer, int block, int point) => stamps[(((layer * blocks) + block) * Kernel.Stamps) + point];
        // The first layer finds its weights there and the last has none behind it.
        int[] measured = [.. Enumerable.Range(1, Math.Max(layers - 2, 1)).Where(l => l < layers)];
        double layer = Median(measured.Select(l => (double)(Stamp(l, 0, Kernel.Stamps - 1) - Stamp(l, 0, 0))));
        double cycle = stepUs / layers / layer;
        Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{step.ChosenPlan}: {layer:F0} cycles a layer"));
        Console.Error.WriteLine($"{"phase",-18} {"part",-12} {"blocks",6} {"median",8} {"slowest",8} {"us",7}");
        for (int phase = 0; phase < Phases.Length; phase++)
        {
            for (int part = 0; part < Parts.Length; part++)
            {
                int from = (phase * Parts.Length) + part;
                double[][] perBlock = [.. Enumerable.Range(0, blocks).Where(b => Stamp(measured[0], b, from) > 0 && Stamp(measured[0], b, from + 1) > 0)
                    .Select(b => measured.Select(l => (double)(Stamp(l, b, from + 1) - Stamp(l, b, from))).ToArray())];
                if (perBlock.Length == 0)
                    continue;
                double median = Median(perBlock.SelectMany(b => b)), slowest = perBlock.Max(Median);
                Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{Phases[phase],-18} {Parts[part],-12} {perBlock.Length,6} {median,8:F0} {slowest,8:F0} {median * cycle,7:F2}"));
            }
        }
    }

    private static double Median(IEnumerable<double> values)
    {
        double[] sorted = [.. values.Order()];
        return sorted[sorted.Length / 2];
    }
}
