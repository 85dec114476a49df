using ILGPU;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// A sparse layer over one token in five launches, on devices and for weights that have them: norm and query-key-value product; head
/// norms, rotary, cache and attention; output product, residual addition and router; gate and up; down and the weighted sum.
/// </summary>
internal sealed class Qwen3FusedLayer(Qwen3Moe model, KvCache cache, RotaryTable rotary, Qwen3Workspace workspace)
{
    private readonly Qwen3MoeConfig config = model.Config;

    /// <summary>Whether a layer runs so.</summary>
    public bool Exists(Qwen3Layer layer) =>
        workspace.Attention is not null
        && layer.Router is not null && DecodeLinear.CanFeed(layer.Router)
        && layer.QueryKeyValue.Single is { } queryKeyValue && DecodeLinear.Exists(model.Device, queryKeyValue)
        && layer.Output.Single is { } output && DecodeLinear.Exists(model.Device, output)
        && layer.Experts is { } experts && ExpertMlp.ExistsRouted(model.Device, experts, config.ExpertsPerToken);

    /// <summary>Runs a layer over the workspace's residual stream, which is complete before and after.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="layer">A layer that <see cref="Exists"/>.</param>
    /// <param name="index">Its number.</param>
    /// <param name="position">[1] position of the token, on the device.</param>
    public void Run(GpuStream stream, Qwen3Layer layer, int index, ArrayView<int> position)
    {
        float epsilon = (float)config.RmsNormEps;
        ArrayView<float> residual = workspace.Residual.View.SubView(0, config.HiddenSize);
        DecodeLinear.Store(stream, layer.QueryKeyValue.Single!, residual, new InputNorm(layer.InputNorm, epsilon), workspace.QueryKeyValue, workspace.RouterSums);
        var options = new QkNormRotaryOptions(1, config.QueryHeads, rotary) { QueryGain = layer.QueryNorm, KeyGain = layer.KeyNorm, Epsilon = epsilon };
        DecodeAttention.Apply(stream, workspace.QueryKeyValue, position, cache.Layer(index), (workspace.Attended, workspace.Attention!), options);
        var router = new RouterFeed(layer.Router!, new InputNorm(layer.PostAttentionNorm, epsilon), workspace.RouterSums);
        DecodeLinear.Add(stream, layer.Output.Single!, workspace.Attended, residual, router);
        int k = config.ExpertsPerToken;
        var chosen = new TokenRouting(workspace.Experts.View.SubView(0, k), workspace.ExpertWeights.View.SubView(0, k), k);
        ExpertMlp.ApplyRouted(stream, layer.Experts!.Value, new RoutedToken(chosen, workspace.RouterLogits, config.NormTopkProb), router, workspace.Activated, residual);
    }
}
