using ILGPU;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// One pass of the network: tokens in, final hidden states out. Everything that changes between decoded tokens is read from
/// device memory, so a pass over one token can be recorded once and replayed.
/// </summary>
internal partial class Qwen3Forward(Qwen3Moe model, KvCache cache, RotaryTable rotary, Qwen3Workspace workspace)
{
    private readonly Qwen3MoeConfig config = model.Config;
    private readonly Qwen3FusedLayer fused = new(model, cache, rotary, workspace);

    /// <summary>Called with each sparse layer's router logits [tokens, experts], for comparisons with a reference.</summary>
    public Action<int, ArrayView<float>>? RouterObserver { get; set; }

    /// <summary>Called with them before experts are chosen; says whether it has changed them. Layers then run so that there is such a moment.</summary>
    public Func<int, ArrayView<float>, bool>? RouterAdjuster { get; set; }

    /// <summary>Runs all layers; leaves the normed hidden states of the last <paramref name="wanted"/> tokens in the workspace.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="tokens">[count] ids on the device.</param>
    /// <param name="position">[1] position of the first token, on the device.</param>
    /// <param name="count">Tokens, at most the workspace's.</param>
    /// <param name="wanted">How many of the last tokens' states are needed; 0 to fill the cache only.</param>
    public void Run(GpuStream stream, ArrayView<int> tokens, ArrayView<int> position, int count, int wanted)
    {
        Embedding.Lookup(stream, model.Embedding.Codes.View.Cast<BFloat16>(), tokens, workspace.Residual, count, config.HiddenSize);
        bool pending = false, normed = false;
        for (int i = 0; i < config.Layers; i++)
        {
            Qwen3Layer layer = model.Layers[i];
            if (!pending && RouterAdjuster is null && RunFused(stream, i, position, count, ref normed))
            {
                RouterObserver?.Invoke(i, workspace.RouterLogits.View.SubView(0, (long)count * config.Experts));
                continue;
            }
            if (!normed)
                Norm(stream, layer.InputNorm, pending, (0, count));
            normed = false;
            RunAttention(stream, layer, i, position, count);
            Norm(stream, layer.PostAttentionNorm, true, (0, count));
            pending = layer.Router is null;
            if (layer.Router is null)
                RunDense(stream, layer, count);
            else
                RunExperts(stream, layer, i, position, count);
        }
        if (wanted > 0 && (!normed || wanted < count))
            Norm(stream, model.FinalNorm, pending, (count - wanted, wanted));
    }

    /// <summary>Logits of the first <paramref name="count"/> normed states.</summary>
    public void RunHead(GpuStream stream, ArrayView<float> logits, int count) =>
        Linear.Multiply(stream, model.Head, workspace.Normed, logits, count);

    /// <summary>Whether tokens are of a sequence each, with a position each.</summary>
    protected virtual bool IsBatch => false;

    /// <summary>Runs a sparse layer in few launches, where there are such: over a residual stream that is complete before and after.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="index">The layer's number.</param>
    /// <param name="position">Positions, on the device.</param>
    /// <param name="count">Tokens.</param>
    /// <param name="normed">Whether states are normed for this layer; afterwards, whether they are for what follows.</param>
    protected virtual bool RunFused(GpuStream stream, int index, ArrayView<int> position, int count, ref bool normed)
    {
        Qwen3Layer layer = model.Layers[index];
        if (count != 1 || !fused.Exists(layer))
            return false;
        fused.Run(stream, layer, index, position);
        return true;
    }

    /// <summary>Head norms, rotary, the write to the cache and attention: from the query-key-value product to the input of the output product.</summary>
    protected virtual void Attend(GpuStream stream, int index, ArrayView<int> position, in QkNormRotaryOptions options)
    {
        KvLayer cached = cache.Layer(index);
        QkNormRotary.Apply(stream, workspace.QueryKeyValue, position, workspace.Query, cached, options);
        Attention.Apply(stream, workspace.Query, cached, position, workspace.Attended, new AttentionShape(options.Tokens, config.QueryHeads));
    }

    /// <summary>What becomes of a layer's heads between the query-key-value product and attention.</summary>
    protected QkNormRotaryOptions HeadOptions(Qwen3Layer layer, int count) => new(count, config.QueryHeads, rotary)
    {
        QueryGain = layer.QueryNorm,
        KeyGain = layer.KeyNorm,
        Epsilon = (float)config.RmsNormEps,
    };

    /// <summary>residual (+= projected) → normed. States of a range land at the start of the buffer.</summary>
    protected void Norm(GpuStream stream, DeviceBuffer<BFloat16> gain, bool add, (int First, int Count) range)
    {
        var shape = new RmsNormShape(range.Count, config.HiddenSize, (float)config.RmsNormEps);
        long offset = (long)range.First * config.HiddenSize, length = (long)range.Count * config.HiddenSize;
        ArrayView<float> residual = workspace.Residual.View.SubView(offset, length);
        if (add)
            RmsNorm.AddAndApply(stream, residual, workspace.Projected.View.SubView(offset, length), gain, workspace.Normed, shape);
        else
            RmsNorm.Apply(stream, residual, gain, workspace.Normed, shape);
    }

    private void RunAttention(GpuStream stream, Qwen3Layer layer, int index, ArrayView<int> position, int count)
    {
        layer.QueryKeyValue.Multiply(stream, workspace.Normed, workspace.QueryKeyValue, count);
        Attend(stream, index, position, HeadOptions(layer, count));
        layer.Output.Multiply(stream, workspace.Attended, workspace.Projected, count);
    }

    private void RunDense(GpuStream stream, Qwen3Layer layer, int count)
    {
        layer.GateUp.Multiply(stream, workspace.Normed, workspace.GateUp, count);
        GatedActivation.Apply(stream, workspace.GateUp, workspace.Activated, count, config.IntermediateSize);
        layer.Down.Multiply(stream, workspace.Activated, workspace.Projected, count);
    }
}
