using System.Globalization;

namespace GpuKit.Ilgpu.Bench;

/// <summary>
/// Writes what docs/results holds into the documents: the stretches between markers, and a chart. Figures in documents come
/// from here, so that none is typed.
/// </summary>
internal static class Report
{
    /// <summary>Renders all; with <paramref name="check"/> nothing is written and 1 is the answer when a file would change.</summary>
    public static int Run(string root, bool check)
    {
        IReadOnlyList<ResultRecord> records = ReadLatest(Path.Combine(root, "docs", "results"));
        IReadOnlyList<ResultRecord> gemv = [.. records.Where(r => r.Bench == "gemv")];
        IReadOnlyList<ResultRecord> gemm = [.. records.Where(r => r.Bench == "gemm")];
        IReadOnlyList<ResultRecord> decode = [.. records.Where(r => r.Bench == "decode")];
        var files = new List<(string Path, string Text)>
        {
            Between(root, "docs/kernels/gemv.md", ("gemv", ReportGemv.Render(gemv, [.. records.Where(r => r.Bench == "quantize-activations")]))),
            Between(root, "docs/kernels/gemm.md", ("gemm", ReportGemm.Render(gemm))),
            Between(root, "docs/kernels/moe.md", ("moe", ReportMoe.Render([.. records.Where(r => r.Bench == "moe")])), ("prefill", ReportPrefill.Render([.. records.Where(r => r.Bench == "prefill")])), ("batch", ReportBatch.Render(decode))),
            Between(root, "docs/numerics.md", ("error", ReportErrors.Render([.. records.Where(r => r.Bench == "error")]))),
            Between(root, "README.md", ("figures", ReportTables.Summary(gemv, gemm, decode, [.. records.Where(r => r.Bench == "prefill")]))),
        };
        foreach (IGrouping<string, ResultRecord> device in gemv.GroupBy(r => r.Device))
            files.Add((ReportChart.PathOf(device.Key), ReportChart.Draw(device.Key, [.. device])));
        int stale = 0;
        foreach ((string path, string text) in files)
        {
            string file = Path.Combine(root, path);
            if (File.Exists(file) && File.ReadAllText(file).ReplaceLineEndings("\n") == text)
                continue;
            stale++;
            Console.Error.WriteLine(check ? $"{path} is not what docs/results gives; run 'bench report'." : $"written: {path}");
            if (!check)
                File.WriteAllText(file, text);
        }
        return check && stale > 0 ? 1 : 0;
    }

    /// <summary>The device, driver, commits and dates of some records, in words.</summary>
    public static string Origin(IReadOnlyList<ResultRecord> records)
    {
        static string Join(IEnumerable<string?> values) => string.Join(", ", values.Where(v => v is not null).Distinct());
        string driver = Join(records.Select(r => r.Driver));
        return $"{Join(records.Select(r => r.Device))}{(driver.Length > 0 ? $", driver for CUDA {driver}" : "")}, "
            + $"commit {Join(records.Select(r => r.Commit))}, {Join(records.Select(r => r.Date.Split('T')[0]))}";
    }

    // Of several measurements of one thing the last counts. A product's path is a result here, not a part of its name: when
    // the plan changes, the new path's figure replaces the old one.
    private static List<ResultRecord> ReadLatest(string folder)
    {
        var latest = new Dictionary<ResultKey, ResultRecord>();
        foreach (string file in Directory.EnumerateFiles(folder, "*.jsonl").Order(StringComparer.Ordinal))
        {
            foreach (string line in File.ReadLines(file).Where(l => l.Length > 0))
            {
                ResultRecord r = ResultRecord.FromJson(line);
                // The documents' tables are of BF16 caches.
                if (r.KvCache is not null)
                    continue;
                var key = new ResultKey(r.Bench, r.Device, r.Bench == "gemv" || r.Name is ReportGemm.Planned or ReportGemm.Portable ? null : r.Path, r.Name, r.Model, r.Format, r.M, r.N, r.K, r.Batch, IsSynthetic(r) ? r.Context : null, (r.Distribution, r.Activation, r.Accumulator));
                if (!latest.TryGetValue(key, out ResultRecord? other) || string.CompareOrdinal(other.Date, r.Date) <= 0)
                    latest[key] = r;
            }
        }
        return [.. latest.Values];
    }

    // Contexts are chosen with random weights; with a trained model they follow from the prompt.
    private static bool IsSynthetic(ResultRecord r) => r.Model?.StartsWith("synth:", StringComparison.Ordinal) == true;

    private readonly record struct ResultKey(
        string Bench, string Device, string? Path, string? Name, string? Model, string? Format, int? M, int? N, int? K, int? Batch, int? Context,
        (string? Distribution, string? Activation, string? Accumulator) Product);

    // A file with what lies between each pair of markers replaced.
    private static (string Path, string Text) Between(string root, string path, params ReadOnlySpan<(string Marker, string Content)> parts)
    {
        string text = File.ReadAllText(Path.Combine(root, path)).ReplaceLineEndings("\n");
        foreach ((string marker, string content) in parts)
        {
            string open = $"<!-- {marker} -->\n", close = $"<!-- /{marker} -->";
            int start = text.IndexOf(open, StringComparison.Ordinal);
            int end = start < 0 ? -1 : text.IndexOf(close, start, StringComparison.Ordinal);
            if (end < 0)
                throw new IOException($"{path} lacks the markers <!-- {marker} --> and {close}, each on a line of its own.");
            text = string.Create(CultureInfo.InvariantCulture, $"{text[..(start + open.Length)]}{content}{text[end..]}");
        }
        return (path, text);
    }
}
