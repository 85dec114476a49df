namespace GpuKit.Ilgpu.Models;

/// <summary>Counts the (token, layer) pairs of a prompt whose set of chosen experts is the reference's.</summary>
internal sealed class RouterComparison(ReferenceFile reference, ReferencePrompt prompt, Qwen3MoeConfig config)
{
    private int same, total;

    /// <summary>The share of equal sets; null when the reference holds no router logits.</summary>
    public double? Agreement => total == 0 ? null : (double)same / total;

    /// <summary>Adds the router logits [tokens, experts] of consecutive tokens.</summary>
    public void Add(int layer, int firstPosition, ReadOnlySpan<float> logits)
    {
        if (!prompt.Routers.TryGetValue(layer, out TensorInfo? expected))
            return;
        for (int row = 0; row < logits.Length / config.Experts; row++)
        {
            int[] chosen = Choose(logits.Slice(row * config.Experts, config.Experts));
            same += chosen.AsSpan().SequenceEqual(Choose(reference.Row(expected, firstPosition + row))) ? 1 : 0;
            total++;
        }
    }

    // The k largest, ties to the lowest index, in ascending order of the index: equal sets are equal arrays.
    private int[] Choose(ReadOnlySpan<float> logits)
    {
        float[] keys = logits.ToArray();
        int[] chosen = [.. Enumerable.Range(0, keys.Length).OrderByDescending(i => keys[i]).Take(config.ExpertsPerToken)];
        Array.Sort(chosen);
        return chosen;
    }
}
