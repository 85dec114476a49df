namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Counts the (token, layer) pairs of a prompt whose set of chosen experts is the reference's, and those that differ by more than rounding explains. What differs by less is settled as the
/// reference has it before the experts run: otherwise this token, and all that attend to it, would go on with other states, whose choices say nothing about a router.
/// </summary>
/// <param name="reference">The reference.</param>
/// <param name="prompt">A prompt of it.</param>
/// <param name="config">The network.</param>
/// <param name="margin">By how much more likely, as a share, an expert may be than the one that was chosen in its place.</param>
internal sealed class RouterComparison(ReferenceFile reference, ReferencePrompt prompt, Qwen3MoeConfig config, double margin)
{
    private int same, total, missed;

    /// <summary>The share of equal sets; null when nothing was compared.</summary>
    public double? Agreement => total == 0 ? null : (double)same / total;

    /// <summary>Pairs whose choice differs by more than the margin; null when nothing was compared.</summary>
    public int? Misses => total == 0 ? null : missed;

    /// <summary>By how much more likely an expert was, in the reference, than the one that was chosen in its place, as a share: the largest of all pairs.</summary>
    public double? WorstGap { get; private set; }

    /// <summary>Adds the router logits [tokens, experts] of consecutive tokens, and exchanges logits where the choice differs by no more than the margin.</summary>
    /// <returns>Whether some were exchanged.</returns>
    public bool Settle(int layer, int firstPosition, Span<float> logits)
    {
        if (!prompt.Routers.TryGetValue(layer, out TensorInfo? expected))
            return false;
        bool settled = false;
        for (int row = 0; row < logits.Length / config.Experts; row++)
        {
            Span<float> own = logits.Slice(row * config.Experts, config.Experts);
            ReadOnlySpan<float> wanted = reference.Row(expected, firstPosition + row);
            int[] chosen = Choose(own), right = Choose(wanted), taken = [.. chosen.Except(right)], left = [.. right.Except(chosen)];
            double gap = Gap(wanted, left, taken);
            same += left.Length == 0 ? 1 : 0;
            total++;
            // A NaN is the worst there is and stays.
            if (WorstGap is not { } worst || (!double.IsNaN(worst) && !(gap <= worst)))
                WorstGap = gap;
            // Not "more than": a NaN must miss.
            if (!(gap <= margin))
                missed++;
            else if (left.Length > 0)
            {
                for (int i = 0; i < left.Length; i++)
                    (own[left[i]], own[taken[i]]) = (own[taken[i]], own[left[i]]);
                settled = true;
            }
        }
        return settled;
    }

    // How much more likely the likeliest expert that was left out is than the unlikeliest that was taken. Probabilities of one softmax are to each other as the
    // exponentials of their logits.
    private static double Gap(ReadOnlySpan<float> wanted, int[] left, int[] taken)
    {
        if (left.Length == 0)
            return 0;
        double most = double.NegativeInfinity, least = double.PositiveInfinity;
        foreach (int e in left)
            most = Math.Max(most, wanted[e]);
        foreach (int e in taken)
            least = Math.Min(least, wanted[e]);
        return Math.Exp(most - least) - 1;
    }

    // The k largest, ties to the lowest index.
    private int[] Choose(ReadOnlySpan<float> logits)
    {
        float[] keys = logits.ToArray();
        return [.. Enumerable.Range(0, keys.Length).OrderByDescending(i => keys[i]).Take(config.ExpertsPerToken)];
    }
}
