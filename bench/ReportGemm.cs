using System.Text;
using static GpuKit.Ilgpu.Bench.ReportTables;

namespace GpuKit.Ilgpu.Bench;

/// <summary>Products of many rows as markdown tables: of each format what the plan chose, beside cuBLAS, and the fastest of swept tiles.</summary>
internal static class ReportGemm
{
    /// <summary>What a record is called whose path the plan chose.</summary>
    public const string Planned = "plan";

    /// <summary>The same with the activations quantised each time.</summary>
    public const string Quantising = "quantise and plan";

    /// <summary>A record of the kernel that the plan would choose on a card without kernels of its own.</summary>
    public const string Portable = "portable";

    /// <summary>A record of a tile that need not be the plan's.</summary>
    public const string Swept = "sweep";

    /// <summary>All tables of each device; what was not measured has none.</summary>
    public static string Render(IReadOnlyList<ResultRecord> records)
    {
        var text = new StringBuilder();
        foreach (IGrouping<string, ResultRecord> device in records.GroupBy(r => r.Device))
        {
            foreach ((string name, string what) in new[] { (Planned, ""), (Quantising, ", quantised each time"), (Portable, ", by the kernels of every card") })
                foreach (IGrouping<string, ResultRecord> format in device.Where(r => r.Name == name).GroupBy(Title))
                    Format(text, format.Key + what, [.. format]);
            foreach (IGrouping<string, ResultRecord> format in device.Where(r => r.Name == Swept).GroupBy(Title))
                Fastest(text, format.Key, [.. format]);
        }
        return text.ToString();
    }

    private static void Format(StringBuilder text, string title, IReadOnlyList<ResultRecord> records)
    {
        Line(text, $"{title}: {Report.Origin(records)}.");
        Line(text, "");
        Line(text, "| M, K × N | path | µs | TFLOPS | cuBLAS BF16: µs | × cuBLAS |");
        Line(text, "| --- | --- | ---: | ---: | ---: | ---: |");
        foreach (ResultRecord r in Ordered(records))
            Line(text, $"| {r.M}, {r.K} × {r.N} | {r.Path} | {Number(r.Us, "F1")} | {Number(r.Tflops, "F0")} | {Number(r.CublasUs, "F1")} | {Number(r.CublasRatio, "F2")} |");
        Line(text, "");
    }

    private static void Fastest(StringBuilder text, string title, IReadOnlyList<ResultRecord> records)
    {
        Line(text, $"{title}, the fastest of all tiles: {Report.Origin(records)}.");
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

    /// <summary>Formats of a record's weights and activations, as documents call them.</summary>
    public static string Title(ResultRecord r) => r.Activation is { } activation ? $"{r.Format} weights × {activation} activations" : $"{r.Format} weights";

    private static IEnumerable<ResultRecord> Ordered(IReadOnlyList<ResultRecord> records)
    {
        (int K, int N)[] shapes = [.. Shapes(records)];
        return records.OrderBy(r => Array.IndexOf(shapes, (r.K!.Value, r.N!.Value))).ThenBy(r => r.M);
    }
}
