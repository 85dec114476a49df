using System.CommandLine;
using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Cli;

/// <summary>The options of <c>generate</c> and <c>chat</c> that say how a text is continued. What is not given stays as it was.</summary>
internal sealed class GenerationFlags
{
    private readonly Option<int?> maxTokens = Numbers.Whole("--max-tokens", 1, "The most tokens to generate (512).");
    private readonly Option<int?> context = Numbers.Whole("--context", 1, "Tokens that prompt and answer may have together (the model's, at most 8192).");
    private readonly Option<float?> temperature = Numbers.Real<float>("--temperature", "What logits are divided by; 0 takes the most likely token.");
    private readonly Option<int?> topK = Numbers.Whole("--top-k", 0, "Keep the N most likely tokens; 0 keeps all.");
    private readonly Option<float?> topP = Numbers.Real<float>("--top-p", "Keep the most likely tokens with this share of the probability.");
    private readonly Option<float?> minP = Numbers.Real<float>("--min-p", "Keep tokens at least this likely relative to the most likely one.");
    private readonly Option<float?> repetitionPenalty = Numbers.Real<float>("--repetition-penalty", "Make tokens that were seen less likely; 1 is off.");
    private readonly Option<ulong?> seed = Numbers.Whole("--seed", 0UL, "Seed of the random numbers; without it one is chosen and reported.");

    private readonly Option<KvCacheFormat> kvCache = KvCacheOption.Create();

    private readonly Option<string[]> stop = new("--stop")
    {
        Description = "Text that ends the answer where it first appears; may be given several times.",
        HelpName = "TEXT",
        Arity = ArgumentArity.OneOrMore,
        AllowMultipleArgumentsPerToken = false,
    };

    public Option<string?> System { get; } = new("--system") { Description = "System prompt.", HelpName = "TEXT" };

    public void AddTo(Command command)
    {
        foreach (Option option in (Option[])[maxTokens, context, kvCache, temperature, topK, topP, minP, repetitionPenalty, stop, seed, System])
            command.Add(option);
    }

    public int? ContextLength(ParseResult parse) => parse.GetValue(context);

    public KvCacheFormat KvCache(ParseResult parse) => parse.GetValue(kvCache);

    /// <summary>The options over a base. Tokens drawn at random without a seed get a random one.</summary>
    /// <exception cref="ArgumentException">A value is out of range.</exception>
    public GenerationOptions Read(ParseResult parse, SamplingOptions basis)
    {
        string[] stops = parse.GetValue(stop) ?? [];
        if (stops.Contains(""))
            throw new ArgumentException("--stop needs a text; an empty one would end every answer before it starts.");
        SamplingOptions sampling = basis with
        {
            Temperature = parse.GetValue(temperature) ?? basis.Temperature,
            TopK = parse.GetValue(topK) ?? basis.TopK,
            TopP = parse.GetValue(topP) ?? basis.TopP,
            MinP = parse.GetValue(minP) ?? basis.MinP,
            RepetitionPenalty = parse.GetValue(repetitionPenalty) ?? basis.RepetitionPenalty,
            Seed = parse.GetValue(seed) ?? 0,
        };
        sampling.Validate();
        if (sampling.Temperature > 0 && parse.GetValue(seed) is null)
            // 32 bits: short enough to be typed again.
            sampling = sampling with { Seed = (ulong)Random.Shared.NextInt64(1L << 32) };
        var options = new GenerationOptions { Sampling = sampling, StopTexts = stops };
        return parse.GetValue(maxTokens) is { } most ? options with { MaxTokens = most } : options;
    }
}
