using System.Globalization;
using System.Text;

namespace GpuKit.Ilgpu.Bench;

/// <summary>Results as markdown tables.</summary>
internal static class ReportTables
{
    private const string BuiltInModel = "tiny-moe-fp8";

    // The shapes that the README shows.
    private static readonly (int K, int N)[] SummaryShapes = [(4096, 4096), (8192, 29568)];

    private static readonly CultureInfo Culture = CultureInfo.InvariantCulture;

    /// <summary>The weight formats that some records have with BF16 activations, in the order of the enumeration.</summary>
    public static IReadOnlyList<GemvProduct> WeightProducts(IReadOnlyList<ResultRecord> records) =>
        [.. GemvProduct.All.Where(p => p.Activation is null && records.Any(p.Is))];

    // Of products with many rows the README has one shape.
    private static readonly (int? K, int? N) SummaryProduct = (4096, 14336);
    private static readonly int[] SummaryRows = [64, 2048];

    /// <summary>Shapes in the order in which they were measured.</summary>
    public static IEnumerable<(int K, int N)> Shapes(IEnumerable<ResultRecord> records) =>
        records.Select(r => (r.K!.Value, r.N!.Value)).Distinct();

    /// <summary>The float32 sum's record of a product, among those of one M.</summary>
    public static ResultRecord? Find(IReadOnlyList<ResultRecord> records, (int K, int N) shape, GemvProduct product) =>
        records.FirstOrDefault(r => r.Accumulator is null && r.K == shape.K && r.N == shape.N && product.Is(r));

    /// <summary>The few figures of the README.</summary>
    public static string Summary(IReadOnlyList<ResultRecord> gemv, IReadOnlyList<ResultRecord> gemm, IReadOnlyList<ResultRecord> decode, IReadOnlyList<ResultRecord> prefill)
    {
        var text = new StringBuilder();
        foreach (IGrouping<string, ResultRecord> device in gemv.GroupBy(r => r.Device))
        {
            ResultRecord[] all = [.. device.Where(r => r.M == 1 && r.Activation is null && r.Accumulator is null)];
            Line(text, $"`Linear` with one row, {Report.Origin(all)}: time, share of the card's read bandwidth, speed relative to cuBLAS BF16.");
            Line(text, "");
            IReadOnlyList<GemvProduct> formats = WeightProducts(all);
            Line(text, "| K × N | " + string.Join(" | ", formats.Select(f => f.Title + " weights")) + " |");
            Line(text, "| --- |" + string.Concat(formats.Select(_ => " --- |")));
            foreach ((int K, int N) shape in SummaryShapes)
                Line(text, $"| {shape.K} × {shape.N} | " + string.Join(" | ", formats.Select(f => Cell(Find(all, shape, f)))) + " |");
            Line(text, "");
        }
        foreach (IGrouping<string, ResultRecord> device in gemm.Where(r => r.Name == ReportGemm.Planned && (r.K, r.N) == SummaryProduct).GroupBy(r => r.Device))
            Products(text, [.. device]);
        ResultRecord[] steps = [.. decode.Where(r => r.Path is "TextGenerator" or "Qwen3Session" && r.Name is null)];
        if (steps.Length > 0)
        {
            Line(text, $"Decoding one sequence, greedy, {Report.Origin(steps)} (`synth:` has random weights in the shape of that model, in FP8):");
            Line(text, "");
            Line(text, "| card | model | through | context | tokens/s | µs a token |");
            Line(text, "| --- | --- | --- | ---: | ---: | ---: |");
            foreach (ResultRecord r in steps.OrderBy(r => r.Model == BuiltInModel ? 0 : 1).ThenByDescending(r => r.Device, StringComparer.Ordinal).ThenBy(r => r.Context))
                Line(text, $"| {ResultRecord.ShortName(r.Device).ToUpperInvariant()} | {r.Model} | `{r.Path}` | {r.Context} | {Number(r.TokensPerS, "F0")} | {Number(r.Us, "F1")} |");
            Line(text, "");
        }
        foreach (IGrouping<string, ResultRecord> device in prefill.Where(r => r.Name is null).GroupBy(r => r.Device))
        {
            Line(text, $"Prompts of {device.First().Model}, one sequence, {Report.Origin([.. device])}: " + string.Join(", ", device.OrderBy(r => r.M).Select(r => $"{r.M} tokens in {Number(r.Us / 1000, "F1")} ms ({Number(r.TokensPerS, "F0")} tokens/s)")) + ".");
            Line(text, "");
        }
        return text.ToString();
    }

    private static void Products(StringBuilder text, IReadOnlyList<ResultRecord> records)
    {
        (string Title, ResultRecord[] Records)[] formats = [.. records.GroupBy(ReportGemm.Title).Select(g => (g.Key, g.ToArray()))];
        Line(text, $"`Linear` with more rows, {SummaryProduct.K} × {SummaryProduct.N}, {Report.Origin(records)}: TFLOPS, speed relative to cuBLAS BF16.");
        Line(text, "");
        Line(text, "| rows | " + string.Join(" | ", formats.Select(f => f.Title)) + " |");
        Line(text, "| ---: |" + string.Concat(formats.Select(_ => " --- |")));
        foreach (int m in SummaryRows)
            Line(text, $"| {m} | " + string.Join(" | ", formats.Select(f => f.Records.FirstOrDefault(r => r.M == m) is { } r ? $"{Number(r.Tflops, "F0")}, {Number(r.CublasRatio, "F2")} ×" : "")) + " |");
        Line(text, "");
    }

    private static string Cell(ResultRecord? r) => r is null
        ? ""
        : $"{Number(r.Us, "F1")} µs, {Percent(r.ReadRatio)}{(r.CublasRatio is { } ratio ? $", {Number(ratio, "F2")} ×" : "")}";

    public static string Percent(double? share) => share is { } s ? Number(s * 100, "F0") + " %" : "";

    public static string Number(double? value, string format) => value?.ToString(format, Culture) ?? "";

    /// <summary>The documents have one kind of line end on every system.</summary>
    public static void Line(StringBuilder text, string line) => text.Append(line).Append('\n');
}
