using ILGPU;

namespace GpuKit.Ilgpu.Models;

/// <summary>The operator that multiplies the experts of a layer.</summary>
internal enum ExpertPath
{
    /// <summary>A few tokens.</summary>
    ExpertMlp,

    /// <summary>Many tokens on Hopper, sorted by expert.</summary>
    HopperMixedLinear,

    /// <summary>Anything else.</summary>
    GroupedLinear,
}

/// <summary>
/// One pass of the network: tokens in, final hidden states out. Everything that changes between decoded tokens is read from
/// device memory, so a pass over one token can be recorded once and replayed.
/// </summary>
internal class Qwen3Forward(Qwen3Moe model, KvCache cache, RotaryTable rotary, Qwen3Workspace workspace)
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

    /// <summary>How a sparse layer's experts are multiplied with so many tokens.</summary>
    internal ExpertPath PathOf(Qwen3Layer layer, int count) => layer.Experts is not { } experts ? ExpertPath.GroupedLinear
        : count <= ExpertMlp.MostTokens && ExpertMlp.Exists(model.Device, experts) ? ExpertPath.ExpertMlp
        // In a batch a row's bits must not follow from the number of rows: dot products by warps.
        : !IsBatch && HopperMixedLinear.Exists(model.Device, experts.GateUp) && HopperMixedLinear.Exists(model.Device, experts.Down) ? ExpertPath.HopperMixedLinear
        : ExpertPath.GroupedLinear;

    /// <summary>The router, its choice, the experts and their weighted sum: normed states in, added to the residual stream.</summary>
    internal void RunExperts(GpuStream stream, Qwen3Layer layer, int index, ArrayView<int> position, int count)
    {
        ExpertPath path = PathOf(layer, count);
        int k = config.ExpertsPerToken, pairs = count * k;
        var chosen = new TokenRouting(workspace.Experts.View.SubView(0, pairs), workspace.ExpertWeights.View.SubView(0, pairs), k);
        if (count == 1 && RoutesItself(layer))
        {
            var routed = new RoutedToken(chosen, workspace.RouterLogits, config.NormTopkProb);
            if (HopperExperts.Exists(model.Device, layer.Router!, layer.Experts!.Value, k))
            {
                HopperExperts.Apply(stream, layer.Router!, layer.Experts.Value, routed, workspace.Normed, workspace.ExpertState, workspace.Residual);
                RouterObserver?.Invoke(index, workspace.RouterLogits.View.SubView(0, config.Experts));
                return;
            }
            try
            {
                DecodeLinear.Feed(stream, layer.Router!, workspace.Normed, workspace.RouterPosts);
                ExpertMlp.ApplyFed(stream, layer.Experts!.Value, routed, workspace.RouterPosts, workspace.Normed, workspace.Activated, workspace.Residual);
            }
            catch
            {
                // Logits that nobody has read would be taken for the next token's.
                workspace.RouterPosts.Fill(stream, 0);
                throw;
            }
            RouterObserver?.Invoke(index, workspace.RouterLogits.View.SubView(0, config.Experts));
            return;
        }
        ChooseExperts(stream, (layer.Router!, index), chosen, IsBatch ? position : default, count);
        if (path == ExpertPath.ExpertMlp)
        {
            ExpertMlp.Apply(stream, layer.Experts!.Value, chosen, workspace.Normed, workspace.ExpertWorkspace!, workspace.Residual);
            return;
        }
        ExpertSort.Apply(stream, workspace.Experts, workspace.Order, workspace.Offsets, pairs, config.Experts);
        var routing = new ExpertRouting(workspace.Experts, workspace.Order, workspace.Offsets);
        if (path == ExpertPath.HopperMixedLinear)
        {
            RunSorted(stream, layer.Experts!.Value, routing, count);
            return;
        }
        layer.GateUp.Multiply(stream, routing, workspace.Normed, workspace.GateUp, new GroupedSize(pairs, k));
        GatedActivation.Apply(stream, workspace.GateUp, workspace.Activated, pairs, config.MoeIntermediateSize);
        layer.Down.Multiply(stream, routing, workspace.Activated, workspace.Projected, new GroupedSize(pairs));
        MoeCombine.Apply(stream, workspace.Projected, workspace.ExpertWeights, workspace.Residual, new MoeCombineShape(count, k, config.HiddenSize));
    }

    // Whether one token's experts are chosen by the kernels that multiply them; not in a batch, whose rows have the bits of any number of rows, and not where logits are changed in between.
    private bool RoutesItself(Qwen3Layer layer) =>
        !IsBatch && RouterAdjuster is null && layer.Router is { } router && DecodeLinear.CanFeed(router) && DecodeLinear.Exists(model.Device, router)
        && layer.Experts is { } experts && ExpertMlp.ExistsRouted(model.Device, experts, config.ExpertsPerToken);

    // In one launch where that exists; once more when the logits have been changed behind it.
    private void ChooseExperts(GpuStream stream, (QuantizedMatrix Matrix, int Layer) router, in TokenRouting chosen, ArrayView<int> positions, int count)
    {
        bool together = count <= RouterLinear.MostTokens && RouterLinear.Exists(model.Device, router.Matrix);
        if (together)
            RouterLinear.Route(stream, router.Matrix, workspace.Normed, new RoutedRows(chosen, workspace.RouterLogits, positions, config.NormTopkProb), workspace.RouterCounters, count);
        else
            Linear.Multiply(stream, router.Matrix, workspace.Normed, workspace.RouterLogits, count);
        ArrayView<float> logits = workspace.RouterLogits.View.SubView(0, (long)count * config.Experts);
        RouterObserver?.Invoke(router.Layer, logits);
        bool changed = RouterAdjuster?.Invoke(router.Layer, logits) == true;
        if (together && !changed)
            return;
        var options = new RouterOptions(config.Experts, chosen.TopK, config.NormTopkProb);
        Router.SelectExperts(stream, workspace.RouterLogits, (chosen.Experts, chosen.Weights), count, options, positions);
    }

    // Hopper's kernels read tiles of neighbouring rows: pairs stay sorted by expert until the last product puts them back.
    private void RunSorted(GpuStream stream, in ExpertStack experts, in ExpertRouting routing, int count)
    {
        int k = config.ExpertsPerToken, pairs = count * k;
        // The last product's output is not there yet: its place holds the sorted inputs.
        ArrayView<BFloat16> sorted = workspace.Projected.View.Cast<BFloat16>();
        GatherRows.Apply(stream, routing.Order, workspace.Normed, sorted, pairs, k, config.HiddenSize);
        HopperMixedLinear.LaunchGrouped(stream, experts.GateUp, routing, sorted, workspace.GateUp.View.Cast<byte>(), false, pairs, scatters: false);
        GatedActivation.Apply(stream, workspace.GateUp, workspace.Activated, pairs, config.MoeIntermediateSize);
        HopperMixedLinear.LaunchGrouped(stream, experts.Down, routing, workspace.Activated, workspace.Projected.View.Cast<byte>(), true, pairs, scatters: true);
        MoeCombine.Apply(stream, workspace.Projected, workspace.ExpertWeights, workspace.Residual, new MoeCombineShape(count, k, config.HiddenSize));
    }
}
