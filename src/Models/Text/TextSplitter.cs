using System.Globalization;
using System.Text;
using Microsoft.ML.Tokenizers;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Cuts text into the pieces within which BPE merges, as the patterns of <see cref="SplitPattern"/> say. Written out instead
/// of as a regular expression because .NET's work on UTF-16 units: <c>\p{L}</c> would miss every letter beyond the Basic
/// Multilingual Plane and give other ids. Each method is one alternative of the pattern, tried in its order; every character
/// belongs to exactly one piece.
/// </summary>
/// <param name="digitsPerPiece">How many digits (<c>\p{N}</c>) one piece holds at most.</param>
/// <param name="maxPieceChars">The longest piece accepted, in UTF-16 units.</param>
internal sealed class TextSplitter(int digitsPerPiece, int maxPieceChars) : PreTokenizer
{
    private enum Kind
    {
        Letter,
        Number,
        Space,
        Other,
    }

    public override IEnumerable<(int Offset, int Length)> PreTokenize(string text) => PreTokenize(text.AsSpan());

    public override IEnumerable<(int Offset, int Length)> PreTokenize(ReadOnlySpan<char> text)
    {
        var pieces = new List<(int Offset, int Length)>(text.Length / 4 + 1);
        for (int at = 0; at < text.Length;)
        {
            int length = PieceLength(text[at..]);
            if (length > maxPieceChars)
            {
                throw new ArgumentException(
                    $"the text holds {length} characters without a place to split them (from \"{Excerpt.Of(text.Slice(at, 16).ToString())}\"); at most {maxPieceChars} are accepted, because merging them takes ever longer",
                    nameof(text));
            }

            pieces.Add((at, length));
            at += length;
        }

        return pieces;
    }

    /// <summary>The length of the piece at the start of a text that is not empty.</summary>
    private int PieceLength(ReadOnlySpan<char> text)
    {
        int length = Contraction(text);
        length = length > 0 ? length : Word(text);
        length = length > 0 ? length : Run(text, Kind.Number, digitsPerPiece);
        length = length > 0 ? length : Symbols(text);
        return length > 0 ? length : Spaces(text);
    }

    // (?i:'s|'t|'re|'ve|'m|'ll|'d)
    private static int Contraction(ReadOnlySpan<char> text)
    {
        if (text.Length < 2 || text[0] != '\'')
        {
            return 0;
        }

        // U+017F is the long s, whose upper case is S.
        char first = char.ToLowerInvariant(text[1]);
        char second = text.Length > 2 ? char.ToLowerInvariant(text[2]) : '\0';
        return (first, second) switch
        {
            ('s' or '\u017F' or 't' or 'm' or 'd', _) => 2,
            ('r' or 'v', 'e') or ('l', 'l') => 3,
            _ => 0,
        };
    }

    // [^\r\n\p{L}\p{N}]?\p{L}+
    private static int Word(ReadOnlySpan<char> text)
    {
        Kind kind = KindAt(text, out int first);
        bool leads = kind is Kind.Other or Kind.Space && text[0] is not ('\r' or '\n');
        int letters = kind == Kind.Letter ? Run(text, Kind.Letter) : leads ? Run(text[first..], Kind.Letter) : 0;
        return letters == 0 ? 0 : leads ? first + letters : letters;
    }

    //  ?[^\s\p{L}\p{N}]+[\r\n]*
    private static int Symbols(ReadOnlySpan<char> text)
    {
        int start = text[0] == ' ' ? 1 : 0;
        int symbols = Run(text[start..], Kind.Other);
        if (symbols == 0)
        {
            return 0;
        }

        int end = start + symbols;
        while (end < text.Length && text[end] is '\r' or '\n')
        {
            end++;
        }

        return end;
    }

    // \s*[\r\n]+|\s+(?!\S)|\s+
    private static int Spaces(ReadOnlySpan<char> text)
    {
        int run = Run(text, Kind.Space);
        int lineEnd = text[..run].LastIndexOfAny('\r', '\n');
        if (lineEnd >= 0)
        {
            return lineEnd + 1;
        }

        // The last space before a visible character goes with it, unless it is the only one. All white space is one unit long.
        return run < text.Length && run > 1 ? run - 1 : run;
    }

    private static int Run(ReadOnlySpan<char> text, Kind kind, int maxRunes = int.MaxValue)
    {
        int length = 0;
        for (int runes = 0; runes < maxRunes && length < text.Length; runes++)
        {
            if (KindAt(text[length..], out int units) != kind)
            {
                break;
            }

            length += units;
        }

        return length;
    }

    private static Kind KindAt(ReadOnlySpan<char> text, out int units)
    {
        char c = text[0];
        units = 1;
        if (char.IsAscii(c))
        {
            return char.IsAsciiLetter(c) ? Kind.Letter
                : char.IsAsciiDigit(c) ? Kind.Number
                : char.IsWhiteSpace(c) ? Kind.Space : Kind.Other;
        }

        Rune.DecodeFromUtf16(text, out Rune rune, out units);
        return Rune.GetUnicodeCategory(rune) switch
        {
            UnicodeCategory.UppercaseLetter or UnicodeCategory.LowercaseLetter or UnicodeCategory.TitlecaseLetter
                or UnicodeCategory.ModifierLetter or UnicodeCategory.OtherLetter => Kind.Letter,
            UnicodeCategory.DecimalDigitNumber or UnicodeCategory.LetterNumber or UnicodeCategory.OtherNumber => Kind.Number,
            _ => Rune.IsWhiteSpace(rune) ? Kind.Space : Kind.Other,
        };
    }
}
