using GpuKit.Ilgpu.Models;
using Spectre.Console;

namespace GpuKit.Ilgpu.Cli;

/// <summary>Results of <c>error</c> for people.</summary>
internal static class ErrorTables
{
    public static void Write(IReadOnlyList<ProductError> products, IReadOnlyList<ModelFormatResult> models, string model)
    {
        var table = new Table { Border = TableBorder.Simple };
        table.AddColumns("weights", "activations", "sums", "distribution", "M", "K × N", "error, dequantised", "cosine", "worst", "error, unquantised", "cosine", "worst");
        foreach (ProductError p in products)
        {
            Add(table, p.Case.Weights.Name, p.Case.ActivationName, p.Case.AccumulatorName, p.Distribution, $"{p.M}", $"{p.K} × {p.N}", Invariant($"{p.Dequantized.Relative:E1}"),
                Invariant($"{p.Dequantized.Cosine:F6}"), Invariant($"{p.Dequantized.Worst:E1}"), Invariant($"{p.Unquantized.Relative:P2}"),
                Invariant($"{p.Unquantized.Cosine:F6}"), Invariant($"{p.Unquantized.Worst:F3}"));
        }
        ResultTable.Console().Write(table);
        if (models.Count == 0)
            return;
        table = new Table { Border = TableBorder.Simple };
        table.AddColumns(model, "bytes of weights", "exact answers", "least cosine", "mean cosine", "top-1");
        foreach (ModelFormatResult m in models)
        {
            Add(table, m.Format.Name, $"{m.WeightBytes}", m.Verses is null ? "–" : $"{m.Verses.ExactCount} of {m.Verses.Verses.Count}",
                m.LeastCosine is { } least ? Invariant($"{least:F6}") : "–", m.MeanCosine is { } mean ? Invariant($"{mean:F6}") : "–",
                m.TopOneAgreement is { } top ? Invariant($"{top:P1}") : "–");
        }
        ResultTable.Console().Write(table);
    }

    private static void Add(Table table, params string[] cells) => table.AddRow(cells.Select(c => new Text(c)));

    private static string Invariant(FormattableString text) => FormattableString.Invariant(text);
}
