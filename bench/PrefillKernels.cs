using System.Globalization;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu.Bench;

/// <summary>
/// The kernels of one prompt, each by itself, as <see cref="DecodeKernels"/> does for a step: the launches are noted, and those of one kernel and one part of the
/// prompt are recorded into a graph of their own. Activations are those that the prompt left behind, and with them the routing of its last layer.
/// </summary>
internal static class PrefillKernels
{
    public static IEnumerable<ResultRecord> Run(Qwen3Session session, int[] prompt, ResultRecord template)
    {
        GpuDevice device = session.Model.Device;
        var launches = new List<(LaunchRecord Launch, int Part)>();
        int part = 0, lastPart = (prompt.Length - 1) / session.TokensAtOnce;
        device.LaunchObserver = launch =>
        {
            launches.Add((launch, Math.Min(part, lastPart)));
            // Each part ends by advancing the position.
            if (launch.Kernel == DeviceCounter.Add)
                part++;
        };
        try
        {
            session.Truncate(0);
            session.Prefill(prompt);
        }
        finally
        {
            device.LaunchObserver = null;
        }
        var results = new List<ResultRecord>();
        foreach (var kernel in launches.GroupBy(l => l.Launch.Kernel))
        {
            double us = 0;
            foreach (var group in kernel.GroupBy(l => l.Part))
            {
                LaunchRecord[] records = [.. group.Select(l => l.Launch)];
                session.Rewind(group.Key * session.TokensAtOnce);
                us += DecodeKernels.Time(session.Stream, records, overlap: false) * records.Length;
            }
            results.Add(template with
            {
                Path = "kernel",
                Name = kernel.Key.Name,
                Launches = kernel.Count(),
                Us = Math.Round(us / kernel.Count(), 2),
                UsMin = null,
                UsMax = null,
                TokensPerS = null,
                Tflops = null,
            });
        }
        results = [.. results.OrderByDescending(r => r.Us * r.Launches)];
        Print(results, template);
        return results;
    }

    private static void Print(List<ResultRecord> results, ResultRecord template)
    {
        double sum = results.Sum(r => r.Us!.Value * r.Launches!.Value);
        Console.Error.WriteLine($"{"kernel",-64} {"times",5} {"us",9} {"ms",9} {"%",5}");
        foreach (ResultRecord r in results)
        {
            double all = r.Us!.Value * r.Launches!.Value;
            string name = r.Name!.Length > 64 ? r.Name[..64] : r.Name;
            Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{name,-64} {r.Launches,5} {r.Us,9:F2} {all / 1000,9:F3} {100 * all / sum,5:F1}"));
        }
        Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{template.M} tokens: {sum / 1000:F2} ms of kernels, {template.Us / 1000:F2} ms to the first token"));
    }
}
