using System.Globalization;
using GpuKit.Ilgpu.Models;
using Spectre.Console;

namespace GpuKit.Ilgpu.Cli;

/// <summary>Results of <c>eval</c> for people.</summary>
internal static class EvalTables
{
    public static void Write(ReferenceReport report)
    {
        var table = new Table { Border = TableBorder.Simple };
        table.AddColumns("prompt", "tokens", "relative error", "cosine", "worst position", "top-1", "router top-k", "greedy");
        foreach (PromptEvaluation p in report.Prompts)
        {
            table.AddRow([.. ((string[])[
                p.Prompt.ToString(CultureInfo.InvariantCulture), p.Tokens.ToString(CultureInfo.InvariantCulture), Invariant($"{p.RelativeError:E2}"),
                Invariant($"{p.Cosine:F7}"), Invariant($"{p.WorstCosine:F7} at {p.WorstPosition}"), Invariant($"{p.TopOneAgreement:P1}"),
                Router(p), Greedy(p.Greedy)]).Select(cell => new Text(cell))]);
        }
        ResultTable.Console().Write(table);
        Console.Out.WriteLine(Invariant($"{(report.Passed ? "passed" : "missed")}: least cosine {report.Prompts.Min(p => p.Cosine):F7}, bar {report.MinCosine}"));
    }

    public static void Write(VerseReport report)
    {
        if (report.Verses.Any(v => !v.Exact))
        {
            var table = new Table { Border = TableBorder.Simple };
            table.AddColumns("prompt", "answer", "expected");
            foreach (VerseResult v in report.Verses.Where(v => !v.Exact))
                table.AddRow(new Text(v.Prompt), new Text(v.Actual), new Text(v.Expected));
            ResultTable.Console().Write(table);
        }
        Console.Out.WriteLine(Invariant($"{report.ExactCount} of {report.Verses.Count} answers are exact"));
    }

    private static string Router(PromptEvaluation p) => p.RouterAgreement is { } share
        ? Invariant($"{share:P1}{(p.WorstRouterChoice is { } worst ? Invariant($", {p.RouterMisses} missed, apart by {worst.Gap:P2}") : "")}")
        : "–";

    private static string Greedy(GreedyComparison? greedy) => greedy switch
    {
        null => "–",
        { Matches: true } => Invariant($"same ({greedy.Expected.Count} tokens)"),
        _ => Invariant($"differs at {greedy.FirstDifference}"),
    };

    private static string Invariant(FormattableString text) => FormattableString.Invariant(text);
}
