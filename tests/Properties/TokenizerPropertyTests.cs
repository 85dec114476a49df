using System.Text;
using CsCheck;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Properties;

/// <summary>Any text, tokens or untrusted stretch through the tokenizer.</summary>
public sealed class TokenizerPropertyTests
{
    private const int Times = 3_000;

    private static readonly Tokenizer Tiny = Tokenizer.Load(RepositoryFolder.TinyModel);

    [Fact]
    public void DecodingGivesTheTextBack() => Property.Holds(Property.Text, Times, text =>
    {
        string valid = Property.WithoutLoneSurrogates(text);
        // String.Normalize refuses U+FFFE, with which nothing composes.
        string normal = string.Join('\uFFFE', valid.Split('\uFFFE').Select(part => part.Normalize(NormalizationForm.FormC)));
        Assert.Equal(normal, Tiny.Decode(Tiny.EncodePlain(text)));
        Assert.Equal(Tiny.EncodePlain(valid), Tiny.EncodePlain(text));
    });

    [Fact]
    public void AUsersTextNeverGivesASpecialToken() => Property.Holds(Property.Text, Times, text => Assert.DoesNotContain(Tiny.EncodePlain(text), Tiny.IsSpecial));

    [Fact]
    public void SpecialTokensStandWhereTheyAreWritten()
    {
        (string Text, int Id)[] special = [.. new[] { "<|im_start|>", "<|im_end|>", "<|endoftext|>" }.Select(t => (t, Tiny.TokenId(t)!.Value))];
        Property.Holds(Gen.Select(Property.Text, Gen.Int[0, 2]).Array[0, 6], 1_000, parts =>
        {
            // A text that begins or ends a special token of its own would run together with its neighbours.
            (string Text, (string Text, int Id) Token)[] pieces = [.. parts.Select(p => (p.Item1.Replace("<", "", StringComparison.Ordinal).Replace(">", "", StringComparison.Ordinal), special[p.Item2]))];
            int[] expected = [.. pieces.SelectMany(p => Tiny.EncodePlain(p.Text).Append(p.Token.Id))];
            string text = string.Concat(pieces.Select(p => p.Text + p.Token.Text));
            Assert.Equal(expected, Tiny.Encode(text));
            Assert.DoesNotContain(Tiny.EncodePlain(text), Tiny.IsSpecial);
        });
    }

    [Fact]
    public void AStreamOfTokensGivesTheTextOfAllOfThem() => Property.Holds(Gen.Int[-3, 2060].Array[0, 60], Times, ids =>
    {
        StreamingDecoder decoder = Tiny.CreateStreamingDecoder();
        Assert.Equal(Tiny.Decode(ids), string.Concat(ids.Select(decoder.Append)) + decoder.Flush());
    });

    [Fact]
    public void NoTextHasFewerTokensThanTheLeast() => Property.Holds(Property.Text, Times, text =>
        Assert.InRange(Tiny.LeastTokens(text), 0, Tiny.Encode(text).Count));
}
