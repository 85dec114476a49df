using System.Text;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Passes text on as it comes, holding back what may be the start of a stop text, and cuts at the first stop text.
/// </summary>
internal sealed class StopTextFilter(IReadOnlyList<string> stops)
{
    private readonly StringBuilder held = new();

    /// <summary>Whether a stop text was found; nothing is passed on after that.</summary>
    public bool Stopped { get; private set; }

    /// <summary>The text that can be passed on.</summary>
    public string Append(string text)
    {
        if (Stopped)
            return "";
        if (stops.Count == 0)
            return text;
        held.Append(text);
        string all = held.ToString();
        int cut = stops.Where(s => s.Length > 0).Select(s => all.IndexOf(s, StringComparison.Ordinal)).Where(i => i >= 0).DefaultIfEmpty(-1).Min();
        Stopped = cut >= 0;
        int pass = Stopped ? cut : all.Length - HeldBack(all);
        held.Clear().Append(all, pass, Stopped ? 0 : all.Length - pass);
        return all[..pass];
    }

    /// <summary>What is still held when the text ends.</summary>
    public string Flush()
    {
        string rest = Stopped ? "" : held.ToString();
        held.Clear();
        return rest;
    }

    // The longest end of the text that a stop text starts with.
    private int HeldBack(string text)
    {
        int longest = 0;
        foreach (string stop in stops)
            for (int length = Math.Min(stop.Length - 1, text.Length); length > longest; length--)
                if (text.AsSpan(text.Length - length).SequenceEqual(stop.AsSpan(0, length)))
                    longest = length;
        return longest;
    }
}
