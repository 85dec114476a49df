namespace GpuKit.Ilgpu;

/// <summary>How a token is drawn. The default is greedy.</summary>
public sealed record SamplingOptions
{
    /// <summary>The most likely token, always.</summary>
    public static SamplingOptions Greedy { get; } = new();

    /// <summary>Divides the logits; 0 (default) takes the largest one, ties to the lowest index.</summary>
    public float Temperature { get; init; }

    /// <summary>Keeps the k most likely tokens, ties to the lowest index; 0 (default) keeps all.</summary>
    public int TopK { get; init; }

    /// <summary>Keeps the smallest set of most likely tokens with at least this share of the probability that top-k leaves; 1 (default) keeps all.</summary>
    public float TopP { get; init; } = 1;

    /// <summary>Keeps tokens at least this likely relative to the most likely one; 0 (default) keeps all.</summary>
    public float MinP { get; init; }

    /// <summary>Divides positive and multiplies negative logits of tokens seen before; 1 (default) changes nothing.</summary>
    public float RepetitionPenalty { get; init; } = 1;

    /// <summary>Key of the random numbers: equal seeds, states and logits draw equal tokens on every device.</summary>
    public ulong Seed { get; init; }

    /// <summary>Checks every option.</summary>
    /// <exception cref="ArgumentOutOfRangeException">An option is out of range; the message names it.</exception>
    public void Validate()
    {
        Require(float.IsFinite(Temperature) && Temperature >= 0, nameof(Temperature), Temperature, "finite and not negative");
        // Below that, quotients of ordinary logits overflow.
        Require(Temperature == 0 || Temperature >= 1e-4f, nameof(Temperature), Temperature, "0 or at least 0.0001");
        Require(TopK >= 0, nameof(TopK), TopK, "0 (all tokens) or positive");
        Require(TopP is > 0 and <= 1, nameof(TopP), TopP, "above 0 and at most 1");
        Require(MinP is >= 0 and <= 1, nameof(MinP), MinP, "0 to 1");
        Require(float.IsFinite(RepetitionPenalty) && RepetitionPenalty > 0, nameof(RepetitionPenalty), RepetitionPenalty, "finite and positive");
    }

    private static void Require(bool valid, string name, object value, string rule)
    {
        if (!valid)
            throw new ArgumentOutOfRangeException(name, value, $"{name} must be {rule}.");
    }
}
