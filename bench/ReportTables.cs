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

    /// <summary>The formats of some records as they are called in documents, in the order of the enumeration.</summary>
    public static IReadOnlyList<(string Key, string Title)> Formats(IReadOnlyList<ResultRecord> records) =>
        [.. WeightFormats.All.Select(f => (Key: f.ToString(), f.Info().Name)).Where(f => records.Any(r => r.Format == f.Key))];

    /// <summary>Shapes in the order in which they were measured.</summary>
    public static IEnumerable<(int K, int N)> Shapes(IEnumerable<ResultRecord> records) =>
        records.Select(r => (r.K!.Value, r.N!.Value)).Distinct();

    public static ResultRecord? Find(IReadOnlyList<ResultRecord> records, int m, (int K, int N) shape, string format) =>
        records.FirstOrDefault(r => r.M == m && r.K == shape.K && r.N == shape.N && r.Format == format);

    /// <summary>One table a device and M.</summary>
    public static string Gemv(IReadOnlyList<ResultRecord> records)
    {
        var text = new StringBuilder();
        foreach (IGrouping<string, ResultRecord> device in records.GroupBy(r => r.Device))
        {
            ResultRecord[] all = [.. device];
            string bandwidth = string.Join(", ", all.Select(r => Number(r.ReadGbps, "F0")).Distinct());
            Line(text, $"Measured: {Report.Origin(all)}. Read bandwidth of the card in that run: {bandwidth} GB/s.");
            Line(text, "");
            Line(text, $"![Share of the read bandwidth at M = 1](../{ReportChart.PathOf(device.Key)["docs/".Length..]})");
            Line(text, "");
            foreach (int m in all.Select(r => r.M!.Value).Distinct().Order())
            {
                string title = $"| M = {m}, K × N |", rule = "| --- |";
                foreach ((_, string format) in Formats(all))
                {
                    title += $" {format}: µs | of read bandwidth | × cuBLAS |";
                    rule += " ---: | ---: | ---: |";
                }
                Line(text, title + " cuBLAS BF16: µs |");
                Line(text, rule + " ---: |");
                foreach ((int K, int N) shape in Shapes(all.Where(r => r.M == m)))
                    Line(text, Row(all, m, shape));
                Line(text, "");
            }
        }
        return text.ToString();
    }

    /// <summary>The few figures of the README.</summary>
    public static string Summary(IReadOnlyList<ResultRecord> gemv, IReadOnlyList<ResultRecord> decode)
    {
        var text = new StringBuilder();
        foreach (IGrouping<string, ResultRecord> device in gemv.GroupBy(r => r.Device))
        {
            ResultRecord[] all = [.. device];
            Line(text, $"`Linear` with one row, {Report.Origin(all)}: time, share of the card's read bandwidth, speed relative to cuBLAS BF16.");
            Line(text, "");
            IReadOnlyList<(string Key, string Title)> formats = Formats(all);
            Line(text, "| K × N | " + string.Join(" | ", formats.Select(f => f.Title + " weights")) + " |");
            Line(text, "| --- |" + string.Concat(formats.Select(_ => " --- |")));
            foreach ((int K, int N) shape in SummaryShapes)
                Line(text, $"| {shape.K} × {shape.N} | " + string.Join(" | ", formats.Select(f => Cell(Find(all, 1, shape, f.Key)))) + " |");
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

    private static string Row(IReadOnlyList<ResultRecord> records, int m, (int K, int N) shape)
    {
        string row = $"| {shape.K} × {shape.N} |";
        double? cublas = null;
        foreach ((string key, _) in Formats(records))
        {
            ResultRecord? r = Find(records, m, shape, key);
            cublas = r?.CublasUs ?? cublas;
            row += $" {Number(r?.Us, "F1")} | {Percent(r?.ReadRatio)} | {Number(r?.CublasRatio, "F2")} |";
        }
        return row + $" {Number(cublas, "F1")} |";
    }

    private static string Cell(ResultRecord? r) => r is null
        ? ""
        : $"{Number(r.Us, "F1")} µs, {Percent(r.ReadRatio)}{(r.CublasRatio is { } ratio ? $", {Number(ratio, "F2")} ×" : "")}";

    private static string Percent(double? share) => share is { } s ? Number(s * 100, "F0") + " %" : "";

    private static string Number(double? value, string format) => value?.ToString(format, Culture) ?? "";

    // The documents have one kind of line end on every system.
    private static void Line(StringBuilder text, string line) => text.Append(line).Append('\n');
}
