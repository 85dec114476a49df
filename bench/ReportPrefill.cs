using System.Text;
using static GpuKit.Ilgpu.Bench.ReportTables;

namespace GpuKit.Ilgpu.Bench;

/// <summary>Prompts as a markdown table.</summary>
internal static class ReportPrefill
{
    /// <summary>A table a device; nothing where nothing was measured.</summary>
    public static string Render(IReadOnlyList<ResultRecord> records)
    {
        var text = new StringBuilder();
        foreach (IGrouping<string, ResultRecord> device in records.Where(r => r.Name is null).GroupBy(r => r.Device))
        {
            ResultRecord[] all = [.. device];
            Line(text, $"Prompts of random tokens, one sequence, {Report.Origin(all)}:");
            Line(text, "");
            Line(text, "| model | tokens | ms to the first token | tokens/s | TFLOPS |");
            Line(text, "| --- | ---: | ---: | ---: | ---: |");
            foreach (ResultRecord r in all.OrderBy(r => r.Model, StringComparer.Ordinal).ThenBy(r => r.M))
                Line(text, $"| {r.Model} | {r.M} | {Number(r.Us / 1000, "F1")} | {Number(r.TokensPerS, "F0")} | {Number(r.Tflops, "F1")} |");
            Line(text, "");
        }
        return text.ToString();
    }
}
