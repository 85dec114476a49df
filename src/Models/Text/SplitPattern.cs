namespace GpuKit.Ilgpu.Models;

/// <summary>
/// The split patterns this library knows, each with the number of digits that one piece may hold. A file's pattern is
/// compared with these as text and never executed: a hostile expression could run for ever.
/// </summary>
internal static class SplitPattern
{
    /// <summary>Qwen2 and Qwen3: every digit is a piece.</summary>
    public const string Qwen =
        @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    /// <summary>cl100k and Llama 3: up to three digits are a piece.</summary>
    public const string Cl100k =
        @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    /// <summary>How many digits a piece holds at most under a known pattern; null for an unknown one.</summary>
    public static int? DigitsPerPiece(string pattern) => pattern switch
    {
        Qwen => 1,
        Cl100k => 3,
        _ => null,
    };
}
