using System.Text.RegularExpressions;
using GpuKit.Ilgpu.Models;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Models;

/// <summary>
/// The splitter against the pattern that it stands for. Within the Basic Multilingual Plane .NET's own regular expressions
/// read the pattern as it is meant, so they serve as the reference there.
/// </summary>
public sealed class TextSplitterTests
{
    private static readonly string[] Fragments =
    [
        "'s", "'S", "'t", "'RE", "'re", "'ve", "'Ll", "'m", "'d", "'x", "'", " ", "  ", "\t", "\n", "\r\n", "\r", "\u00A0", "\u3000", "\u0085",
        "\u2028", "\u200B", "\v", "a", "Ab", "don't", "é", "e\u0301", "1", "12", "1234", "٣", "½", "Ⅷ", "²", "_", "-", "...", "!?", "—", "中文", "한",
        "\u0301", "\uFEFF", "ª", "ʰ", "ǅ", "=",
    ];

    [Theory]
    [InlineData(SplitPattern.Qwen, 1)]
    [InlineData(SplitPattern.Cl100k, 3)]
    public void Pieces_are_those_of_the_pattern(string pattern, int digits)
    {
        const int seed = 4;
        Assert.Equal(digits, SplitPattern.DigitsPerPiece(pattern));
        var reference = new Regex(pattern, RegexOptions.CultureInvariant);
        var splitter = new TextSplitter(digits, maxPieceChars: 1_000);
        var random = new Random(seed);
        for (int i = 0; i < 20_000; i++)
        {
            string text = string.Concat(Enumerable.Range(0, random.Next(1, 12)).Select(_ => Fragments[random.Next(Fragments.Length)]));
            (int, int)[] expected = [.. reference.Matches(text).Select(m => (m.Index, m.Length))];
            Assert.Equal(expected, splitter.PreTokenize(text));
        }
    }

    [Fact]
    public void Letters_and_digits_beyond_the_first_plane_are_letters_and_digits()
    {
        var splitter = new TextSplitter(1, maxPieceChars: 100);
        Assert.Equal([(0, 5), (5, 1), (6, 2), (8, 2), (10, 4)], splitter.PreTokenize(" 𝒜𝓁 𝟙𝟚🙂🙂"));
    }

    [Fact]
    public void An_unknown_pattern_is_unknown() => Assert.Null(SplitPattern.DigitsPerPiece(SplitPattern.Qwen + " "));
}
