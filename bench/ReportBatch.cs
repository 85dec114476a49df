using System.Text;
using static GpuKit.Ilgpu.Bench.ReportTables;

namespace GpuKit.Ilgpu.Bench;

/// <summary>Decoding several sequences together, as a markdown table.</summary>
internal static class ReportBatch
{
    /// <summary>The path of records of the card alone.</summary>
    public const string Replays = "batch replays";

    /// <summary>The table of each device; nothing without records.</summary>
    public static string Render(IReadOnlyList<ResultRecord> decode)
    {
        var text = new StringBuilder();
        foreach (IGrouping<string, ResultRecord> device in decode.Where(r => r.Path == "Qwen3BatchSession").GroupBy(r => r.Device))
        {
            ResultRecord[] all = [.. device.OrderBy(r => r.Model, StringComparer.Ordinal).ThenBy(r => r.Context).ThenBy(r => r.Batch)];
            Line(text, $"Decoding several sequences together, greedy, {Report.Origin(all)}. *Experts* are different ones a layer, on average; the floor is what a step must read — dense");
            Line(text, "weights, those experts, keys and values — at the read bandwidth of the same run; *card alone* are replays without a host between them.");
            Line(text, "");
            Line(text, "| model | context | sequences | tokens/s | µs a step | card alone, µs | experts | GB | floor, µs | floor / step |");
            Line(text, "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
            foreach (ResultRecord r in all)
            {
                ResultRecord? replays = decode.FirstOrDefault(o => o.Path == Replays && (o.Device, o.Model, o.Context, o.Batch) == (r.Device, r.Model, r.Context, r.Batch));
                Line(text, $"| {r.Model} | {r.Context} | {r.Batch} | {Number(r.TokensPerS, "F0")} | {Number(r.Us, "F0")} | {Number(replays?.Us, "F0")} | {Number(r.DistinctExperts, "F1")} | {Number(r.StepBytes / 1e9, "F2")} | {Number(r.FloorUs, "F0")} | {Percent(r.FloorUs / r.Us)} |");
            }
            Line(text, "");
        }
        return text.ToString();
    }
}
