namespace GpuKit.Ilgpu.Models;

/// <summary>What a set of questions gave.</summary>
/// <param name="Verses">One result a question, in the file's order.</param>
public sealed record VerseReport(IReadOnlyList<VerseResult> Verses)
{
    /// <summary>Answers that are exactly those of the file.</summary>
    public int ExactCount => Verses.Count(v => v.Exact);
}

/// <summary>One question.</summary>
/// <param name="Prompt">The question.</param>
/// <param name="Expected">The file's answer.</param>
/// <param name="Actual">The model's answer.</param>
public sealed record VerseResult(string Prompt, string Expected, string Actual)
{
    /// <summary>Whether the answers are equal, character by character.</summary>
    public bool Exact => Actual == Expected;
}

/// <summary>How questions are asked.</summary>
public sealed record VerseOptions
{
    /// <summary>Asks only the first so many; null asks all.</summary>
    public int? Take { get; init; }

    /// <summary>The most tokens of an answer.</summary>
    public int MaxTokens { get; init; } = 512;

    /// <summary>How the KV cache stores keys and values.</summary>
    public KvCacheFormat KvCache { get; init; }

    /// <summary>Told after each question; may be null.</summary>
    public IProgress<EvaluationProgress>? Progress { get; init; }
}
