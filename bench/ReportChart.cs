using System.Globalization;
using System.Text;

namespace GpuKit.Ilgpu.Bench;

/// <summary>A bar chart as SVG text: the share of the read bandwidth at M = 1, a bar a format and shape.</summary>
internal static class ReportChart
{
    private const int Width = 760, Left = 130, Right = 60, Top = 64, BarHeight = 13, GroupGap = 10, Bottom = 34;

    private static readonly string[] Colours = ["#4c78a8", "#e07b39", "#54a24b", "#b279a2", "#d6b656", "#76b7b2"];

    /// <summary>Relative to the repository, with slashes.</summary>
    public static string PathOf(string device) => $"docs/results/gemv-{ResultRecord.ShortName(device)}.svg";

    public static string Draw(string device, IReadOnlyList<ResultRecord> records)
    {
        IReadOnlyList<ResultRecord> single = [.. records.Where(r => r.M == 1 && r.Activation is null && r.Accumulator is null)];
        (int K, int N)[] shapes = [.. ReportTables.Shapes(single)];
        IReadOnlyList<GemvProduct> formats = ReportTables.WeightProducts(single);
        int group = (formats.Count * BarHeight) + GroupGap, bottom = Top + (shapes.Length * group);
        double scale = Width - Left - Right;
        var svg = new StringBuilder();
        Line(svg, $"""<svg xmlns="http://www.w3.org/2000/svg" width="{Width}" height="{bottom + Bottom}" viewBox="0 0 {Width} {bottom + Bottom}" font-family="sans-serif" font-size="12" fill="#222">""");
        Line(svg, $"""<rect width="100%" height="100%" fill="#fff"/>""");
        Line(svg, $"""<text x="{Left}" y="20" font-size="14">Share of the read bandwidth, M = 1, {device}</text>""");
        int legend = Math.Min(110, (Width - Left) / Math.Max(1, formats.Count));
        for (int f = 0; f < formats.Count; f++)
        {
            Line(svg, $"""<rect x="{Left + (f * legend)}" y="32" width="12" height="12" fill="{Colours[f % Colours.Length]}"/>""");
            Line(svg, $"""<text x="{Left + (f * legend) + 18}" y="42">{formats[f].Title}</text>""");
        }
        for (int percent = 0; percent <= 100; percent += 20)
        {
            double x = Left + (scale * percent / 100);
            Line(svg, $"""<line x1="{x:F1}" y1="{Top - 6}" x2="{x:F1}" y2="{bottom}" stroke="#ddd"/>""");
            Line(svg, $"""<text x="{x:F1}" y="{bottom + 16}" text-anchor="middle">{percent} %</text>""");
        }
        for (int s = 0; s < shapes.Length; s++)
        {
            int y = Top + (s * group);
            Line(svg, $"""<text x="{Left - 8}" y="{y + (formats.Count * BarHeight / 2) + 4}" text-anchor="end">{shapes[s].K} × {shapes[s].N}</text>""");
            for (int f = 0; f < formats.Count; f++)
            {
                double share = ReportTables.Find(single, shapes[s], formats[f])?.ReadRatio ?? 0;
                int top = y + (f * BarHeight);
                Line(svg, $"""<rect x="{Left}" y="{top}" width="{scale * share:F1}" height="{BarHeight - 1}" fill="{Colours[f % Colours.Length]}"/>""");
                Line(svg, $"""<text x="{Left + (scale * share) + 5:F1}" y="{top + 10}" font-size="10">{share * 100:F0} %</text>""");
            }
        }
        Line(svg, $"</svg>");
        return svg.ToString();
    }

    private static void Line(StringBuilder svg, FormattableString line) => svg.Append(line.ToString(CultureInfo.InvariantCulture)).Append('\n');
}
