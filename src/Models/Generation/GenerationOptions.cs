namespace GpuKit.Ilgpu.Models;

/// <summary>How a text is continued.</summary>
public sealed record GenerationOptions
{
    /// <summary>The most tokens to generate, at least 1.</summary>
    public int MaxTokens { get; init; } = 512;

    /// <summary>How tokens are drawn.</summary>
    public SamplingOptions Sampling { get; init; } = SamplingOptions.Greedy;

    /// <summary>Texts that end the generation where they first appear; they are not part of the result.</summary>
    public IReadOnlyList<string> StopTexts { get; init; } = [];
}

/// <summary>Why a generation ended.</summary>
public enum FinishReason
{
    /// <summary>The model produced a stop token.</summary>
    Stop,

    /// <summary>One of <see cref="GenerationOptions.StopTexts"/> appeared.</summary>
    StopText,

    /// <summary><see cref="GenerationOptions.MaxTokens"/> were generated.</summary>
    MaxTokens,

    /// <summary>The context is full.</summary>
    ContextFull,
}

/// <summary>What a finished generation took.</summary>
/// <param name="PromptTokens">Tokens of the prompt.</param>
/// <param name="CachedTokens">Prompt tokens that were still in the KV cache and not computed again.</param>
/// <param name="GeneratedTokens">Tokens drawn, a stop token included.</param>
/// <param name="PrefillTime">From the call to the logits after the prompt.</param>
/// <param name="DecodeTime">From there to the last token.</param>
/// <param name="Finish">Why it ended.</param>
public sealed record GenerationStatistics(int PromptTokens, int CachedTokens, int GeneratedTokens, TimeSpan PrefillTime, TimeSpan DecodeTime, FinishReason Finish)
{
    /// <summary>Prompt tokens computed a second.</summary>
    public double PrefillTokensPerSecond => (PromptTokens - CachedTokens) / Math.Max(PrefillTime.TotalSeconds, 1e-9);

    /// <summary>Tokens generated a second after the first, which belongs to the prompt's logits.</summary>
    public double DecodeTokensPerSecond => Math.Max(0, GeneratedTokens - 1) / Math.Max(DecodeTime.TotalSeconds, 1e-9);
}
