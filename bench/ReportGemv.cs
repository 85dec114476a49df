using System.Text;
using static GpuKit.Ilgpu.Bench.ReportTables;

namespace GpuKit.Ilgpu.Bench;

/// <summary>Products of few rows as markdown tables: of weight formats, of quantised activations and of accumulators.</summary>
internal static class ReportGemv
{
    /// <summary>All tables of each device; what was not measured has none.</summary>
    public static string Render(IReadOnlyList<ResultRecord> gemv, IReadOnlyList<ResultRecord> quantize)
    {
        var text = new StringBuilder();
        foreach (IGrouping<string, ResultRecord> device in gemv.GroupBy(r => r.Device))
        {
            ResultRecord[] all = [.. device], products = [.. all.Where(r => r.Accumulator is null)];
            string bandwidth = string.Join(", ", all.Select(r => Number(r.ReadGbps, "F0")).Distinct());
            Line(text, $"Measured: {Report.Origin(all)}. Read bandwidth of the card in that run: {bandwidth} GB/s.");
            Line(text, "");
            Line(text, $"![Share of the read bandwidth at M = 1](../{ReportChart.PathOf(device.Key)["docs/".Length..]})");
            Line(text, "");
            IReadOnlyList<GemvProduct> weights = Measured(products, quantized: false);
            foreach (int m in products.Select(r => r.M!.Value).Distinct().Order())
            {
                ResultRecord[] rows = [.. products.Where(r => r.M == m)];
                Table(text, $"M = {m}, K × N", weights, [": µs", " of read bandwidth"], rows, r => [Number(r?.Us, "F1"), Percent(r?.ReadRatio)]);
                if (rows.Any(r => r.UsAlone is not null))
                    Table(text, $"M = {m}, K × N", weights, [": µs overlapping", " µs alone"], rows, r => [Number(r?.Us, "F1"), Number(r?.UsAlone, "F1")]);
            }
            Ratios(text, weights, products);
            Quantized(text, Measured(products, quantized: true), products);
            Accumulators(text, all);
            Quantizers(text, [.. quantize.Where(r => r.Device == device.Key)]);
        }
        return text.ToString();
    }

    private static IReadOnlyList<GemvProduct> Measured(IReadOnlyList<ResultRecord> records, bool quantized) =>
        [.. GemvProduct.All.Where(p => p.Activation is not null == quantized && records.Any(p.Is))];

    // One row a shape, columns a product.
    private static void Table(StringBuilder text, string corner, IReadOnlyList<GemvProduct> products, string[] columns, IReadOnlyList<ResultRecord> records, Func<ResultRecord?, string[]> cells)
    {
        Head(text, corner, products.SelectMany(p => columns.Select((c, i) => i == 0 ? p.Title + c : c.Trim())));
        foreach ((int K, int N) shape in Shapes(records))
            Row(text, $"{shape.K} × {shape.N}", products.SelectMany(p => cells(Find(records, shape, p))));
        Line(text, "");
    }

    private static void Ratios(StringBuilder text, IReadOnlyList<GemvProduct> weights, IReadOnlyList<ResultRecord> products)
    {
        if (!products.Any(r => r.CublasUs is not null))
            return;
        Head(text, "M, K × N: × cuBLAS", weights.Select(p => p.Title).Append("cuBLAS BF16: µs"));
        foreach ((int m, (int K, int N) shape, ResultRecord[] records) in Rows(products.Where(r => r.Activation is null)))
            Row(text, $"{m}, {shape.K} × {shape.N}", weights.Select(p => Number(Find(records, shape, p)?.CublasRatio, "F2")).Append(Opponent(records)));
        Line(text, "");
    }

    private static void Quantized(StringBuilder text, IReadOnlyList<GemvProduct> quantized, IReadOnlyList<ResultRecord> products)
    {
        if (quantized.Count == 0)
            return;
        Line(text, "Quantised activations:");
        Line(text, "");
        Head(text, "M, K × N", quantized.SelectMany(p => new[] { p.Title + ": µs", "of read bandwidth", "× cuBLAS" }));
        foreach ((int m, (int K, int N) shape, ResultRecord[] records) in Rows(products.Where(r => r.Activation is not null)))
            Row(text, $"{m}, {shape.K} × {shape.N}", quantized.Select(p => Find(records, shape, p)).SelectMany(r => new[] { Number(r?.Us, "F1"), Percent(r?.ReadRatio), Number(r?.CublasRatio, "F2") }));
        Line(text, "");
    }

    private static void Accumulators(StringBuilder text, IReadOnlyList<ResultRecord> all)
    {
        ResultRecord[] compared = [.. all.Where(r => r.Accumulator is not null)];
        if (compared.Length == 0)
            return;
        string[] names = [.. Enum.GetNames<Accumulator>()];
        Line(text, "Accumulators, M = 1; errors with float32 output, against the dequantised operands in double:");
        Line(text, "");
        Head(text, "K × N, weights and activations", names.SelectMany(n => new[] { n + ": µs", "error" }));
        foreach ((int K, int N) shape in Shapes(compared))
        {
            foreach (GemvProduct p in GemvProduct.All.Where(p => compared.Any(p.Is)))
            {
                IEnumerable<ResultRecord?> ways = names.Select(n => all.FirstOrDefault(r => r.M == 1 && p.Is(r) && r.K == shape.K && r.N == shape.N && (r.Accumulator ?? nameof(Accumulator.Float32)) == n));
                Row(text, $"{shape.K} × {shape.N}, {p.Title}", ways.SelectMany(r => new[] { Number(r?.Us, "F1"), Number(r?.RelErrorFloat32, "0.0E-0") }));
            }
        }
        Line(text, "");
    }

    private static void Quantizers(StringBuilder text, IReadOnlyList<ResultRecord> records)
    {
        if (records.Count == 0)
            return;
        ActivationFormat[] formats = [.. ActivationFormats.All.Where(f => records.Any(r => r.Format == f.ToString()))];
        Line(text, $"Quantising activations, {Report.Origin(records)}; GB/s are bytes read and written:");
        Line(text, "");
        Head(text, "M, K", formats.SelectMany(f => new[] { f.Info().Name + ": µs", "GB/s" }));
        foreach ((int? m, int? k) in records.Select(r => (r.M, r.K)).Distinct().Order())
            Row(text, $"{m}, {k}", formats.Select(f => records.FirstOrDefault(r => r.M == m && r.K == k && r.Format == f.ToString())).SelectMany(r => new[] { Number(r?.Us, "F1"), Number(r?.Gbps, "F1") }));
        Line(text, "");
    }

    // By M, and the shapes of each in the order in which they were measured.
    private static IEnumerable<(int M, (int K, int N) Shape, ResultRecord[] Records)> Rows(IEnumerable<ResultRecord> records) =>
        records.GroupBy(r => r.M!.Value).OrderBy(g => g.Key).SelectMany(g => g.GroupBy(r => (r.K!.Value, r.N!.Value)).Select(s => (g.Key, s.Key, s.ToArray())));

    // Records of several runs may have several times; the latest run's stands.
    private static string Opponent(IReadOnlyList<ResultRecord> records) =>
        Number(records.Where(r => r.CublasUs is not null).MaxBy(r => r.Date, StringComparer.Ordinal)?.CublasUs, "F1");

    private static void Head(StringBuilder text, string corner, IEnumerable<string> columns)
    {
        string[] all = [.. columns];
        Line(text, $"| {corner} | {string.Join(" | ", all)} |");
        Line(text, "| --- |" + string.Concat(all.Select(_ => " ---: |")));
    }

    private static void Row(StringBuilder text, string head, IEnumerable<string> cells) => Line(text, $"| {head} | {string.Join(" | ", cells)} |");
}
