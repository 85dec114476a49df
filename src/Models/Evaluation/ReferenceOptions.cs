namespace GpuKit.Ilgpu.Models;

/// <summary>What a model must reach against a reference.</summary>
public sealed record ReferenceOptions
{
    /// <summary>What BF16 activations and a BF16 cache reach on any correct implementation.</summary>
    public const double DefaultMinCosine = 0.999;

    /// <summary>The same of an FP8 cache.</summary>
    public const double DefaultMinCosineFp8Cache = 0.997;

    /// <summary>The default of <see cref="RouterMargin"/>.</summary>
    public const double DefaultRouterMargin = 0.01;

    /// <summary>The same where an FP8 cache, or weights expanded to BF16, round what the reference does not: it reaches the routers.</summary>
    public const double DefaultRouterMarginRounded = 0.25;

    /// <summary>The least cosine between a prompt's logits and the reference's, over all positions together.</summary>
    public double MinCosine { get; init; } = DefaultMinCosine;

    /// <summary>
    /// An expert may be chosen in another's place where the other's probability, in the reference, is larger by no more than this share: what rounding decides
    /// differs between correct implementations. Routers are compared in a pass of their own, in which what differs by no more is settled as the reference has it, so that later layers and tokens
    /// are compared with the same experts. Infinity allows every choice.
    /// </summary>
    public double RouterMargin { get; init; } = DefaultRouterMargin;

    /// <summary>How the KV cache stores keys and values.</summary>
    public KvCacheFormat KvCache { get; init; }

    /// <summary>What computes the logits.</summary>
    public EvaluationPath Path { get; init; }

    /// <summary>Ids that end a greedy continuation; null takes those of <c>config.json</c>.</summary>
    public IReadOnlySet<int>? StopTokenIds { get; init; }

    /// <summary>Told after each prompt; may be null.</summary>
    public IProgress<EvaluationProgress>? Progress { get; init; }
}
