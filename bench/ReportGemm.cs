using System.Text;
using static GpuKit.Ilgpu.Bench.ReportTables;

namespace GpuKit.Ilgpu.Bench;

/// <summary>Products of many rows as markdown tables: of each format what the plan chose, beside cuBLAS, and the fastest of swept tiles.</summary>
internal static class ReportGemm
{
    /// <summary>What a record is called whose path the plan chose.</summary>
    public const string Planned = "plan";

    /// <summary>All tables of each device; what was not measured has none.</summary>
    public static string Render(IReadOnlyList<ResultRecord> records)
    {
        var text = new StringBuilder();
        foreach (IGrouping<string, ResultRecord> device in records.GroupBy(r => r.Device))
        {
            ResultRecord[] planned = [.. device.Where(r => r.Name == Planned)], swept = [.. device.Where(r => r.Name != Planned)];
            foreach (IGrouping<string?, ResultRecord> format in planned.GroupBy(r => r.Format))
                Format(text, [.. format]);
            foreach (IGrouping<string?, ResultRecord> format in swept.GroupBy(r => r.Format))
                Fastest(text, [.. format]);
        }
        return text.ToString();
    }

    private static void Format(StringBuilder text, IReadOnlyList<ResultRecord> records)
    {
        Line(text, $"{records[0].Format} weights: {Report.Origin(records)}.");
        Line(text, "");
        Line(text, "| M, K × N | path | µs | TFLOPS | cuBLAS BF16: µs | × cuBLAS |");
        Line(text, "| --- | --- | ---: | ---: | ---: | ---: |");
        foreach (ResultRecord r in Ordered(records))
            Line(text, $"| {r.M}, {r.K} × {r.N} | {r.Path} | {Number(r.Us, "F1")} | {Number(r.Tflops, "F0")} | {Number(r.CublasUs, "F1")} | {Number(r.CublasRatio, "F2")} |");
        Line(text, "");
    }

    private static void Fastest(StringBuilder text, IReadOnlyList<ResultRecord> records)
    {
        Line(text, $"{records[0].Format} weights, the fastest of all tiles: {Report.Origin(records)}.");
        Line(text, "");
        Line(text, "| M, K × N | fastest | µs | the next | µs |");
        Line(text, "| --- | --- | ---: | --- | ---: |");
        foreach (var product in Ordered(records).GroupBy(r => (r.M, r.K, r.N)))
        {
            ResultRecord[] best = [.. product.OrderBy(r => r.Us).Take(2)];
            Line(text, $"| {product.Key.M}, {product.Key.K} × {product.Key.N} | {best[0].Path} | {Number(best[0].Us, "F1")} | {best[^1].Path} | {Number(best[^1].Us, "F1")} |");
        }
        Line(text, "");
    }

    private static IEnumerable<ResultRecord> Ordered(IReadOnlyList<ResultRecord> records)
    {
        (int K, int N)[] shapes = [.. Shapes(records)];
        return records.OrderBy(r => Array.IndexOf(shapes, (r.K!.Value, r.N!.Value))).ThenBy(r => r.M);
    }
}
