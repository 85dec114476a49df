using System.Text;
using static GpuKit.Ilgpu.Bench.ReportTables;

namespace GpuKit.Ilgpu.Bench;

/// <summary>The layer of experts by itself as a markdown table.</summary>
internal static class ReportMoe
{
    /// <summary>A table a device; nothing where nothing was measured.</summary>
    public static string Render(IReadOnlyList<ResultRecord> records)
    {
        var text = new StringBuilder();
        foreach (IGrouping<string, ResultRecord> device in records.GroupBy(r => r.Device))
        {
            ResultRecord[] all = [.. device];
            Line(text, $"A layer alone, tokens random, {Report.Origin(all)}; the floor is reading the chosen experts and the router:");
            Line(text, "");
            Line(text, "| model | tokens | path | µs | floor, µs | floor / time | experts | TFLOPS |");
            Line(text, "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |");
            foreach (ResultRecord r in all.OrderBy(r => r.Model, StringComparer.Ordinal).ThenBy(r => r.M))
                Line(text, $"| {r.Model} | {r.M} | {r.Path} | {Number(r.Us, "F1")} | {Number(r.FloorUs, "F1")} | {Percent(r.FloorUs / r.Us)} | {Number(r.DistinctExperts, "F1")} | {Number(r.Tflops, "F1")} |");
            Line(text, "");
        }
        return text.ToString();
    }
}
