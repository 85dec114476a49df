using ILGPU;

namespace GpuKit.Ilgpu.Models;

/// <summary>The operator that multiplies the experts of a layer.</summary>
internal enum ExpertPath
{
    /// <summary>One token on Hopper, router included.</summary>
    HopperExperts,

    /// <summary>A few tokens.</summary>
    ExpertMlp,

    /// <summary>Many tokens on Hopper, sorted by expert.</summary>
    HopperMixedLinear,

    /// <summary>Anything else.</summary>
    GroupedLinear,
}

// The experts of a sparse layer: which operators run for so many tokens.
internal partial class Qwen3Forward
{
    /// <summary>How a sparse layer's experts are multiplied with so many tokens.</summary>
    internal ExpertPath PathOf(Qwen3Layer layer, int count) => layer.Experts is not { } experts ? ExpertPath.GroupedLinear
        : count == 1 && RoutesItself(layer) && HopperExperts.Exists(model.Device, layer.Router!, experts, config.ExpertsPerToken) ? ExpertPath.HopperExperts
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
            if (path == ExpertPath.HopperExperts)
                HopperExperts.Apply(stream, layer.Router!, layer.Experts!.Value, routed, workspace.Normed, workspace.ExpertState, workspace.Residual);
            else
                FeedExperts(stream, layer, routed);
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

    private void FeedExperts(GpuStream stream, Qwen3Layer layer, in RoutedToken routed)
    {
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
