using System.Text;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Turns ids into text as they come. A token may end within a UTF-8 sequence (an emoji is often two or three tokens): its
/// bytes are held back until the rest has come. Not safe for use by several threads at once.
/// </summary>
public sealed class StreamingDecoder
{
    private readonly Tokenizer tokenizer;
    private readonly bool skipSpecial;
    private readonly Decoder utf8 = new UTF8Encoding(encoderShouldEmitUTF8Identifier: false).GetDecoder();

    internal StreamingDecoder(Tokenizer tokenizer, bool skipSpecial)
    {
        this.tokenizer = tokenizer;
        this.skipSpecial = skipSpecial;
    }

    /// <summary>The text that this id completes; empty when it completes none.</summary>
    /// <param name="id">A token's id; one that the vocabulary does not hold stands for no text.</param>
    public string Append(int id) =>
        skipSpecial && tokenizer.IsSpecial(id) ? "" : Convert(tokenizer.BytesOf(id), flush: false);

    /// <summary>What is still held back: U+FFFD for an incomplete sequence, else nothing. The decoder can be used again.</summary>
    public string Flush() => Convert([], flush: true);

    private string Convert(ReadOnlySpan<byte> bytes, bool flush)
    {
        // At most one character a byte, and one for what was held back.
        Span<char> small = stackalloc char[128];
        Span<char> chars = bytes.Length < small.Length ? small : new char[bytes.Length + 1];
        int count = utf8.GetChars(bytes, chars, flush);
        return new string(chars[..count]);
    }
}
