using System.Globalization;
using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Cli;

/// <summary>What a run took, as lines for stderr.</summary>
internal static class StatisticsLine
{
    public static string Of<TModel>(Loaded<TModel> loaded)
        where TModel : IDisposable => string.Create(
            CultureInfo.InvariantCulture, $"{loaded.Name} on {loaded.Device.Name} (took {loaded.Device.Choice}); loaded in {loaded.LoadTime.TotalSeconds:F2} s");

    public static string Of(GenerationStatistics s)
    {
        string cached = s.CachedTokens == 0 ? "" : $" ({s.CachedTokens} of them cached)";
        return string.Create(CultureInfo.InvariantCulture,
            $"prefill {s.PromptTokens} tokens{cached} in {s.PrefillTime.TotalSeconds:F2} s; decode {s.GeneratedTokens} tokens in {s.DecodeTime.TotalSeconds:F2} s, {s.DecodeTokensPerSecond:F1} tokens/s; {Reason(s.Finish)}");
    }

    /// <summary>The seed, worth saying only when it matters.</summary>
    public static string Seed(SamplingOptions sampling) => sampling.Temperature > 0 ? $"; seed {sampling.Seed}" : "";

    private static string Reason(FinishReason finish) => finish switch
    {
        FinishReason.Stop => "ended by itself",
        FinishReason.StopText => "stopped at a --stop text",
        FinishReason.MaxTokens => "stopped by --max-tokens",
        FinishReason.ContextFull => "stopped by --context: it is full",
        _ => finish.ToString(),
    };
}
