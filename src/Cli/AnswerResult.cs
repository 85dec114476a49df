using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Cli;

/// <summary>An answer as JSON. Statistics are null when it was cancelled.</summary>
internal sealed record AnswerResult(
    string Text, string FinishReason, int? PromptTokens, int? CachedTokens, int? GeneratedTokens, double? PrefillSeconds,
    double? DecodeSeconds, double? PrefillTokensPerSecond, double? DecodeTokensPerSecond)
{
    /// <summary>Seed of the random numbers; null when none were used.</summary>
    public ulong? Seed { get; init; }

    public double? LoadSeconds { get; init; }

    public string? Model { get; init; }

    public string? Device { get; init; }

    public static AnswerResult Create(string text, GenerationStatistics? s, SamplingOptions sampling) => new(
        text, Spell(s?.Finish), s?.PromptTokens, s?.CachedTokens, s?.GeneratedTokens, s?.PrefillTime.TotalSeconds,
        s?.DecodeTime.TotalSeconds, s?.PrefillTokensPerSecond, s?.DecodeTokensPerSecond)
    {
        Seed = sampling.Temperature > 0 ? sampling.Seed : null,
    };

    private static string Spell(FinishReason? finish) => finish switch
    {
        null => "cancelled",
        Models.FinishReason.Stop => "stop",
        Models.FinishReason.StopText => "stop_text",
        Models.FinishReason.MaxTokens => "max_tokens",
        _ => "context_full",
    };
}
