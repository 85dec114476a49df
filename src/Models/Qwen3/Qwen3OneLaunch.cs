namespace GpuKit.Ilgpu.Models;

/// <summary>All layers of a model over one token in one launch, where device and weights have that.</summary>
internal static class Qwen3OneLaunch
{
    /// <summary>Null where layers must run launch by launch.</summary>
    public static DecodeStep? Create(Qwen3Moe model, KvCache cache, RotaryTable rotary)
    {
        Qwen3MoeConfig config = model.Config;
        var layers = new List<DecodeStepLayer>();
        foreach (Qwen3Layer layer in model.Layers)
        {
            if (layer.Router is null || layer.Experts is not { } experts || layer.QueryKeyValue.Single is not { } queryKeyValue || layer.Output.Single is not { } output)
                return null;
            layers.Add(new DecodeStepLayer(queryKeyValue, output, experts, layer.Router, layer.InputNorm, layer.PostAttentionNorm, layer.QueryNorm, layer.KeyNorm));
        }
        var shape = new DecodeStepShape(config.HiddenSize, config.QueryHeads, config.KeyValueHeads, config.HeadDim, config.Experts, config.ExpertsPerToken, config.MoeIntermediateSize);
        return DecodeStep.Exists(model.Device, shape, layers)
            ? new DecodeStep(shape, layers, cache, rotary, ((float)config.RmsNormEps, config.NormTopkProb))
            : null;
    }
}
