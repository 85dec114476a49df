using System.Globalization;
using System.Text;

namespace GpuKit.Ilgpu.Bench;

/// <summary>Errors of formats as markdown tables: of products, and of models.</summary>
internal static class ReportErrors
{
    /// <summary>One table of products a device, and one a model.</summary>
    public static string Render(IReadOnlyList<ResultRecord> records)
    {
        var text = new StringBuilder();
        foreach (IGrouping<string, ResultRecord> device in records.GroupBy(r => r.Device))
        {
            ResultRecord[] all = [.. device], products = [.. all.Where(r => r.Distribution is not null)];
            Line(text, $"Measured: {Report.Origin(all)}.");
            Line(text, "");
            Products(text, products);
            foreach (IGrouping<string?, ResultRecord> model in all.Where(r => r.Distribution is null).GroupBy(r => r.Model))
                Model(text, [.. model]);
        }
        return text.ToString();
    }

    // The largest error of all shapes and rows: a format is as good as its worst product.
    private static void Products(StringBuilder text, IReadOnlyList<ResultRecord> records)
    {
        (string Distribution, string? Model)[] sources = [.. records.Select(r => (r.Distribution!, r.Model)).Distinct()];
        Line(text, $"| weights | activations | sums | {string.Join(" | ", sources.Select(s => s.Model is null ? s.Distribution : $"{s.Distribution} of {s.Model}"))} | against dequantised |");
        Line(text, "| --- | --- | --- |" + string.Concat(sources.Select(_ => " ---: |")) + " ---: |");
        foreach (var way in records.GroupBy(r => (r.Format, r.Activation, r.Accumulator)))
        {
            IEnumerable<string> losses = sources.Select(s => Number(
                way.Where(r => (r.Distribution!, r.Model) == s).Max(r => r.RelErrorUnquantised) * 100, "F2") is { Length: > 0 } n ? n + " %" : "");
            Line(text, $"| {way.Key.Format} | {way.Key.Activation} | {way.Key.Accumulator} | {string.Join(" | ", losses)} | {Number(way.Max(r => r.RelError), "0.0E-0")} |");
        }
        Line(text, "");
    }

    private static void Model(StringBuilder text, IReadOnlyList<ResultRecord> records)
    {
        Line(text, $"| {records[0].Model} as | bytes of weights | exact answers | least cosine | mean cosine | top-1 |");
        Line(text, "| --- | ---: | ---: | ---: | ---: | ---: |");
        foreach (ResultRecord r in records)
            Line(text, $"| {r.Format} | {r.WeightBytes} | {(r.Total is null ? "" : $"{r.Exact} of {r.Total}")} | {Number(r.CosineLeast, "F4")} | {Number(r.CosineMean, "F4")} | {(r.TopOne is null ? "" : Number(r.TopOne * 100, "F1") + " %")} |");
        Line(text, "");
    }

    private static string Number(double? value, string format) => value?.ToString(format, CultureInfo.InvariantCulture) ?? "";

    // The documents have one kind of line end on every system.
    private static void Line(StringBuilder text, string line) => text.Append(line).Append('\n');
}
