namespace GpuKit.Ilgpu.Models;

/// <summary>Limits on the text that a <see cref="Tokenizer"/> accepts.</summary>
public sealed record TokenizerOptions
{
    /// <summary>The longest text of one call, in UTF-8 bytes.</summary>
    public int MaxPromptBytes { get; init; } = 4_000_000;

    /// <summary>
    /// The longest stretch without a place to split it (letters without a space or sign), in UTF-16 units. Merging such a
    /// stretch takes time in the square of its length: about two seconds for 50,000 ideographs.
    /// </summary>
    public int MaxUnbrokenChars { get; init; } = 50_000;
}
