using System.Text;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Text out of a model file, made fit for an error message: names and values in a hostile file may be megabytes long or hold
/// control characters that a terminal would obey.
/// </summary>
internal static class Excerpt
{
    private const int MaxChars = 80;

    public static string Of(string text)
    {
        var shown = new StringBuilder(Math.Min(text.Length, MaxChars) + 1);
        foreach (char c in text.AsSpan(0, Math.Min(text.Length, MaxChars)))
        {
            shown.Append(char.IsControl(c) || char.IsSurrogate(c) ? '\uFFFD' : c);
        }

        return text.Length > MaxChars ? shown.Append('…').ToString() : shown.ToString();
    }

    /// <summary>The same for bytes that are meant to be UTF-8, valid or not.</summary>
    public static string Of(ReadOnlySpan<byte> utf8) =>
        Of(Encoding.UTF8.GetString(utf8[..Math.Min(utf8.Length, 4 * MaxChars)]));
}
