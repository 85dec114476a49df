using System.Buffers;

namespace GpuKit.Ilgpu.Models;

/// <summary>Finds added tokens in a text: leftmost first, the longest where several start.</summary>
internal sealed class AddedTokenSet
{
    private readonly Dictionary<char, AddedToken[]> byFirstChar;
    private readonly SearchValues<string> contents;

    public AddedTokenSet(IReadOnlyCollection<AddedToken> tokens)
    {
        byFirstChar = tokens
            .GroupBy(t => t.Content[0])
            .ToDictionary(g => g.Key, g => g.OrderByDescending(t => t.Content.Length).ToArray());
        contents = SearchValues.Create([.. tokens.Select(t => t.Content)], StringComparison.Ordinal);
    }

    /// <summary>
    /// The next token from <paramref name="from"/> on, or null. A special token counts only where no character of it lies in
    /// an untrusted stretch; there its text is ordinary text.
    /// </summary>
    public AddedToken? Find(string text, int from, IReadOnlyList<TextStretch> untrusted, out int at)
    {
        for (at = from; at < text.Length; at++)
        {
            int hit = text.AsSpan(at).IndexOfAny(contents);
            if (hit < 0)
            {
                break;
            }

            at += hit;
            foreach (AddedToken token in byFirstChar[text[at]])
            {
                if (text.AsSpan(at).StartsWith(token.Content, StringComparison.Ordinal)
                    && !(token.Special && Overlaps(untrusted, at, token.Content.Length)))
                {
                    return token;
                }
            }
        }

        at = text.Length;
        return null;
    }

    // Stretches are in order and apart: the only candidate is the last that starts before the token ends.
    private static bool Overlaps(IReadOnlyList<TextStretch> stretches, int start, int length)
    {
        int low = 0;
        int high = stretches.Count;
        while (low < high)
        {
            int middle = (low + high) / 2;
            if (stretches[middle].Start < start + length)
            {
                low = middle + 1;
            }
            else
            {
                high = middle;
            }
        }

        return low > 0 && stretches[low - 1].Start + stretches[low - 1].Length > start;
    }
}
