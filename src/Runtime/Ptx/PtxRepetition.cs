using System.Globalization;
using System.Text.RegularExpressions;

namespace GpuKit.Ilgpu.Runtime.Ptx;

/// <summary>
/// Expands repeated parts of a <see cref="Kernels.Isa.PtxAttribute"/>'s text: <c>[[64, acc(#)]]</c> is <c>acc0, acc1, …, acc63</c>, and
/// <c>[[8: mov.f32 acc(4#+1), 0f00000000; ]]</c> repeats without commas. <c>(#)</c> is the number of the repetition from 0,
/// <c>(4#+1)</c> four times that plus one. Instructions with a hundred registers stay readable that way.
/// </summary>
internal static partial class PtxRepetition
{
    [GeneratedRegex(@"\[\[(\d+)([,:])\s*(.*?)\]\]", RegexOptions.Singleline)]
    private static partial Regex Parts();

    [GeneratedRegex(@"\((\d*)#(?:\+(\d+))?\)")]
    private static partial Regex Indices();

    /// <summary>The text with every repeated part written out.</summary>
    public static string Expand(string text) => Parts().Replace(text, static part =>
    {
        IEnumerable<string> copies = Enumerable.Range(0, Number(part.Groups[1], 0)).Select(i => Copy(part.Groups[3].Value, i));
        return string.Join(part.Groups[2].ValueSpan[0] == ',' ? ", " : "", copies);
    });

    private static string Copy(string text, int i) => Indices().Replace(text, index =>
        ((Number(index.Groups[1], 1) * i) + Number(index.Groups[2], 0)).ToString(CultureInfo.InvariantCulture));

    private static int Number(Group group, int otherwise) =>
        group.Length == 0 ? otherwise : int.Parse(group.ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture);
}
