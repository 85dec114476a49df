namespace GpuKit.Ilgpu.Models;

/// <summary>The matrices of a Qwen3-MoE network by name, and which of them a quantised checkpoint keeps in BF16.</summary>
internal static class LinearWeights
{
    private const string Suffix = ".weight", HeadModule = "lm_head";

    /// <summary>Every matrix <c>[N, K]</c> with its name; the kept ones are the embedding, the head and the routers.</summary>
    public static IEnumerable<(string Name, int N, int K, bool IsKept)> Of(Qwen3MoeConfig config)
    {
        int hidden = config.HiddenSize, queries = config.QueryHeads * config.HeadDim, keys = config.KeyValueHeads * config.HeadDim;
        yield return ("model.embed_tokens" + Suffix, config.VocabSize, hidden, true);
        for (int layer = 0; layer < config.Layers; layer++)
        {
            string name = $"model.layers.{layer}.", attention = name + "self_attn.", mlp = name + "mlp.";
            yield return ($"{attention}q_proj{Suffix}", queries, hidden, false);
            yield return ($"{attention}k_proj{Suffix}", keys, hidden, false);
            yield return ($"{attention}v_proj{Suffix}", keys, hidden, false);
            yield return ($"{attention}o_proj{Suffix}", hidden, queries, false);
            bool sparse = config.IsSparse(layer);
            if (sparse)
                yield return ($"{mlp}gate{Suffix}", config.Experts, hidden, true);
            int width = sparse ? config.MoeIntermediateSize : config.IntermediateSize;
            foreach (string part in sparse ? Enumerable.Range(0, config.Experts).Select(e => $"{mlp}experts.{e}.") : [mlp])
            {
                yield return ($"{part}gate_proj{Suffix}", width, hidden, false);
                yield return ($"{part}up_proj{Suffix}", width, hidden, false);
                yield return ($"{part}down_proj{Suffix}", hidden, width, false);
            }
        }
        if (!config.TieWordEmbeddings)
            yield return (HeadModule + Suffix, config.VocabSize, hidden, true);
    }

    /// <summary>What published FP8 checkpoints list in <c>modules_to_not_convert</c>.</summary>
    public static IReadOnlyList<string> KeptModules(Qwen3MoeConfig config)
    {
        var modules = new List<string> { HeadModule };
        for (int layer = 0; layer < config.Layers; layer++)
        {
            modules.Add($"model.layers.{layer}.input_layernorm");
            modules.Add($"model.layers.{layer}.post_attention_layernorm");
            if (config.IsSparse(layer))
                modules.Add($"model.layers.{layer}.mlp.gate");
        }
        return modules;
    }
}
