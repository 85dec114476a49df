namespace GpuKit.Ilgpu.Models;

/// <summary>Counts the (token, layer) pairs of a prompt whose set of chosen experts is the reference's, and those that differ by more than rounding explains.</summary>
/// <param name="reference">The reference.</param>
/// <param name="prompt">A prompt of it.</param>
/// <param name="config">The network.</param>
/// <param name="margin">By how much more likely, as a share, an expert may be than the one that was chosen in its place.</param>
internal sealed class RouterComparison(ReferenceFile reference, ReferencePrompt prompt, Qwen3MoeConfig config, double margin)
{
    // Tokens that have already chosen otherwise in an earlier layer: their states are other ones, and what they choose next says nothing about the router.
    private readonly HashSet<int> departed = [];
    private int same, total, missed, followers;

    /// <summary>The share of equal sets; null when nothing was compared.</summary>
    public double? Agreement => total == 0 ? null : (double)same / total;

    /// <summary>Pairs whose choice differs by more than the margin; null when nothing was compared.</summary>
    public int? Misses => total == 0 ? null : missed;

    /// <summary>Pairs that are not judged, because the token chose otherwise in an earlier layer; null when nothing was compared.</summary>
    public int? Followers => total == 0 ? null : followers;

    /// <summary>By how much more likely an expert was, in the reference, than the one that was chosen in its place, as a share: the largest of all judged pairs.</summary>
    public double? WorstGap { get; private set; }

    /// <summary>Adds the router logits [tokens, experts] of consecutive tokens; a token's layers in their order.</summary>
    public void Add(int layer, int firstPosition, ReadOnlySpan<float> logits)
    {
        if (!prompt.Routers.TryGetValue(layer, out TensorInfo? expected))
            return;
        for (int row = 0; row < logits.Length / config.Experts; row++)
        {
            double gap = Gap(logits.Slice(row * config.Experts, config.Experts), reference.Row(expected, firstPosition + row));
            same += gap == 0 ? 1 : 0;
            total++;
            if (departed.Contains(firstPosition + row))
            {
                followers++;
                continue;
            }
            if (gap != 0)
                departed.Add(firstPosition + row);
            // Not "more than": a NaN must miss.
            missed += gap <= margin ? 0 : 1;
            // A NaN is the worst there is and stays.
            if (WorstGap is not { } worst || (!double.IsNaN(worst) && !(gap <= worst)))
                WorstGap = gap;
        }
    }

    // How much more likely the likeliest expert that was left out is than the unlikeliest that was taken in its place; 0 for equal sets. Probabilities of one
    // softmax are to each other as the exponentials of their logits.
    private double Gap(ReadOnlySpan<float> logits, ReadOnlySpan<float> expected)
    {
        HashSet<int> chosen = Choose(logits), wanted = Choose(expected);
        double left = double.NegativeInfinity, taken = double.PositiveInfinity;
        foreach (int e in wanted)
            if (!chosen.Contains(e))
                left = Math.Max(left, expected[e]);
        foreach (int e in chosen)
            if (!wanted.Contains(e))
                taken = Math.Min(taken, expected[e]);
        // Equal logits, of which the lower index is taken, are a difference all the same.
        return chosen.SetEquals(wanted) ? 0 : Math.Max(Math.Exp(left - taken) - 1, double.Epsilon);
    }

    // The k largest, ties to the lowest index.
    private HashSet<int> Choose(ReadOnlySpan<float> logits)
    {
        float[] keys = logits.ToArray();
        return [.. Enumerable.Range(0, keys.Length).OrderByDescending(i => keys[i]).Take(config.ExpertsPerToken)];
    }
}
