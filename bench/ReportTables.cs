using System.Globalization;
using System.Text;

namespace GpuKit.Ilgpu.Bench;

/// <summary>Results as markdown tables.</summary>
internal static class ReportTables
{
    private const string BuiltInModel = "tiny-moe-fp8";

    // The shapes that the README shows.
    private static readonly (int K, int N)[] SummaryShapes = [(4096, 4096), (8192, 29568), (2048, 151936)];

    private static readonly CultureInfo Culture = CultureInfo.InvariantCulture;

    /// <summary>The weight formats that some records have with BF16 activations, in the order of the enumeration.</summary>
    public static IReadOnlyList<GemvProduct> WeightProducts(IReadOnlyList<ResultRecord> records) =>
        [.. GemvProduct.All.Where(p => p.Activation is null && records.Any(p.Is))];

    /// <summary>Shapes in the order in which they were measured.</summary>
    public static IEnumerable<(int K, int N)> Shapes(IEnumerable<ResultRecord> records) =>
        records.Select(r => (r.K!.Value, r.N!.Value)).Distinct();

    /// <summary>The float32 sum's record of a product, among those of one M.</summary>
    public static ResultRecord? Find(IReadOnlyList<ResultRecord> records, (int K, int N) shape, GemvProduct product) =>
        records.FirstOrDefault(r => r.Accumulator is null && r.K == shape.K && r.N == shape.N && product.Is(r));

    /// <summary>The few figures of the README.</summary>
    public static string Summary(IReadOnlyList<ResultRecord> gemv, IReadOnlyList<ResultRecord> decode)
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
        foreach (IGrouping<string, ResultRecord> device in decode.Where(r => r.Model == BuiltInModel).GroupBy(r => r.Device))
        {
            ResultRecord[] all = [.. device];
            Line(text, $"Decoding with the built-in model, one sequence, greedy, {Report.Origin(all)}:");
            Line(text, "");
            Line(text, "| through | context | tokens/s | µs a token |");
            Line(text, "| --- | ---: | ---: | ---: |");
            foreach (ResultRecord r in all)
                Line(text, $"| `{r.Path}` | {r.Context} | {Number(r.TokensPerS, "F0")} | {Number(r.Us, "F1")} |");
            Line(text, "");
        }
        return text.ToString();
    }

    private static string Cell(ResultRecord? r) => r is null
        ? ""
        : $"{Number(r.Us, "F1")} µs, {Percent(r.ReadRatio)}{(r.CublasRatio is { } ratio ? $", {Number(ratio, "F2")} ×" : "")}";

    public static string Percent(double? share) => share is { } s ? Number(s * 100, "F0") + " %" : "";

    public static string Number(double? value, string format) => value?.ToString(format, Culture) ?? "";

    /// <summary>The documents have one kind of line end on every system.</summary>
    public static void Line(StringBuilder text, string line) => text.Append(line).Append('\n');
}
