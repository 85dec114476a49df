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

    /// <summary>The choice that is the farthest from the reference's; null when all are equal.</summary>
    public RouterDifference? Worst { get; private set; }

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
            total++;
            if (left.Length == 0)
            {
                same++;
                continue;
            }
            RouterDifference difference = Difference(layer, firstPosition + row, (left, taken), own, wanted);
            // A NaN is the worst there is and stays.
            if (Worst is not { } worst || (!double.IsNaN(worst.Gap) && !(difference.Gap <= worst.Gap)))
                Worst = difference;
            // Not "more than": a NaN must miss.
            if (!(difference.Gap <= margin))
            {
                missed++;
                continue;
            }
            for (int i = 0; i < left.Length; i++)
                (own[left[i]], own[taken[i]]) = (own[taken[i]], own[left[i]]);
            settled = true;
        }
        return settled;
    }

    // The likeliest expert that was left out, and the unlikeliest that was taken. Probabilities of one softmax are to each other as the exponentials of their logits.
    private static RouterDifference Difference(int layer, int position, (int[] Left, int[] Taken) experts, ReadOnlySpan<float> own, ReadOnlySpan<float> wanted)
    {
        int left = experts.Left[0], taken = experts.Taken[0];
        foreach (int e in experts.Left)
            left = wanted[e] > wanted[left] ? e : left;
        foreach (int e in experts.Taken)
            taken = wanted[e] < wanted[taken] ? e : taken;
        return new RouterDifference(layer, position, left, taken, Math.Exp((double)wanted[left] - wanted[taken]) - 1, Math.Exp((double)own[taken] - own[left]) - 1);
    }

    // The k largest, ties to the lowest index.
    private int[] Choose(ReadOnlySpan<float> logits)
    {
        float[] keys = logits.ToArray();
        return [.. Enumerable.Range(0, keys.Length).OrderByDescending(i => keys[i]).Take(config.ExpertsPerToken)];
    }
}
