namespace GpuKit.Ilgpu.Models;

/// <summary>What a comparison with a reference gave.</summary>
/// <param name="MinCosine">The least cosine that was asked for.</param>
/// <param name="Prompts">One result a prompt of the reference, in the order of their numbers.</param>
public sealed record ReferenceReport(double MinCosine, IReadOnlyList<PromptEvaluation> Prompts)
{
    /// <summary>Whether every prompt reached <see cref="MinCosine"/>, every choice of experts is the reference's but for near ties, and so is every greedy continuation.</summary>
    public bool Passed => Misses.Count == 0;

    /// <summary>What was missed, one sentence each; empty when the model passed.</summary>
    public IReadOnlyList<string> Misses => [.. Prompts.SelectMany(MissesOf)];

    private IEnumerable<string> MissesOf(PromptEvaluation prompt)
    {
        // Not "less than": a NaN must miss.
        if (!(prompt.Cosine >= MinCosine))
            yield return FormattableString.Invariant($"prompt {prompt.Prompt}: cosine {prompt.Cosine:F6} is under {MinCosine}");
        if (prompt.RouterMisses is > 0 and { } misses)
            yield return FormattableString.Invariant($"prompt {prompt.Prompt}: {misses} choices of experts differ from the reference's where probabilities do so by more than the margin; the worst: {prompt.WorstRouterChoice}");
        if (prompt.Greedy is { Matches: false } greedy)
            yield return $"prompt {prompt.Prompt}: the greedy continuation differs from token {greedy.FirstDifference} on";
    }
}

/// <summary>How near one prompt's results are to the reference.</summary>
public sealed record PromptEvaluation
{
    /// <summary>Number of the prompt in the reference file.</summary>
    public required int Prompt { get; init; }

    /// <summary>Tokens of the prompt, each a position that was compared.</summary>
    public required int Tokens { get; init; }

    /// <summary>‖y − ref‖ / ‖ref‖ of the logits of all positions.</summary>
    public required double RelativeError { get; init; }

    /// <summary>Cosine between the logits of all positions and the reference's.</summary>
    public required double Cosine { get; init; }

    /// <summary>The least cosine of a single position.</summary>
    public required double WorstCosine { get; init; }

    /// <summary>The position of <see cref="WorstCosine"/>, from 0.</summary>
    public required int WorstPosition { get; init; }

    /// <summary>Share of positions whose most likely token is the reference's.</summary>
    public required double TopOneAgreement { get; init; }

    /// <summary>Share of (token, layer) pairs whose set of chosen experts is the reference's; null when the file holds no router logits or the path shows none.</summary>
    public double? RouterAgreement { get; init; }

    /// <summary>(Token, layer) pairs that chose an expert in place of one that is more likely by more than <see cref="ReferenceOptions.RouterMargin"/>, where earlier near ties were settled as the reference has them; null when routers were not compared.</summary>
    public int? RouterMisses { get; init; }

    /// <summary>The choice of experts that is the farthest from the reference's; null when all sets are equal or routers were not compared.</summary>
    public RouterDifference? WorstRouterChoice { get; init; }

    /// <summary>The greedy continuation against the reference's; null when the file holds none.</summary>
    public GreedyComparison? Greedy { get; init; }
}

/// <summary>A choice of experts that is not the reference's.</summary>
/// <param name="Layer">The layer.</param>
/// <param name="Position">The token's position.</param>
/// <param name="LeftOut">The likeliest expert, in the reference, that was not chosen.</param>
/// <param name="Taken">The unlikeliest that was chosen instead.</param>
/// <param name="Gap">By how much more likely the first is than the second in the reference, as a share.</param>
/// <param name="OwnGap">By how much more likely the second is than the first here.</param>
public sealed record RouterDifference(int Layer, int Position, int LeftOut, int Taken, double Gap, double OwnGap)
{
    /// <summary>As a sentence's part.</summary>
    public override string ToString() => FormattableString.Invariant($"layer {Layer}, position {Position}, expert {LeftOut} is {Gap:P2} more likely than {Taken}, which is {OwnGap:P2} more likely here");
}

/// <summary>A greedy continuation beside the reference's.</summary>
/// <param name="Expected">The reference's ids.</param>
/// <param name="Actual">The ids generated, up to a stop token or as many as expected.</param>
public sealed record GreedyComparison(IReadOnlyList<int> Expected, IReadOnlyList<int> Actual)
{
    /// <summary>Whether all ids are equal.</summary>
    public bool Matches => FirstDifference < 0;

    /// <summary>Place of the first id that differs or is missing; −1 when all are equal.</summary>
    public int FirstDifference
    {
        get
        {
            int common = Expected.Zip(Actual).TakeWhile(p => p.First == p.Second).Count();
            return common == Expected.Count && common == Actual.Count ? -1 : common;
        }
    }
}
