using ILGPU;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// One pass of the network over one token of each sequence of a batch: weights are read once for all, each token attends to its own cache. A sequence with a
/// negative position has no token: it chooses no experts, stores nothing, and its row is NaN.
/// </summary>
/// <remarks>
/// A row's bits depend neither on the other rows nor on their number: norms, attention and routing are row by row, products of up to 16 streamed
/// rows have one order of sums, and <see cref="ExpertMlp"/> is made so. A batch of one runs the same kernels as larger ones.
/// </remarks>
internal sealed class Qwen3BatchForward : Qwen3Forward
{
    private readonly Qwen3Moe model;
    private readonly KvCacheBatch caches;
    private readonly Qwen3Workspace activations;
    private readonly int sequences;

    /// <summary>Puts together what a batch runs on.</summary>
    /// <param name="model">The weights.</param>
    /// <param name="caches">A cache a sequence.</param>
    /// <param name="rotary">Angles of every position of a cache.</param>
    /// <param name="workspace">Made for as many sequences.</param>
    /// <param name="sequences">Sequences of the batch.</param>
    public Qwen3BatchForward(Qwen3Moe model, KvCacheBatch caches, RotaryTable rotary, Qwen3Workspace workspace, int sequences)
        : base(model, caches[0], rotary, workspace) =>
        (this.model, this.caches, activations, this.sequences) = (model, caches, workspace, sequences);

    /// <inheritdoc/>
    protected override bool IsBatch => true;

    /// <summary>
    /// A sparse layer in seven launches, on devices and for weights that have them: query-key-value product; attention with what stands before it; output product with the residual
    /// addition and the router; norm and routing; gate and up; down; the weighted sum with the norm of what follows.
    /// </summary>
    protected override bool RunFused(GpuStream stream, int index, ArrayView<int> position, int count, ref bool normed)
    {
        Qwen3Layer layer = model.Layers[index];
        if (activations.Attention is null || layer.Router is not { } weights || !DecodeLinear.CanFeed(weights)
            || layer.Output.Single is not { } output || !DecodeLinear.Exists(model.Device, output)
            || layer.Experts is not { } experts || !ExpertMlp.Exists(model.Device, experts))
            return false;
        float epsilon = (float)model.Config.RmsNormEps;
        if (!normed)
            Norm(stream, layer.InputNorm, false, (0, count));
        layer.QueryKeyValue.Multiply(stream, activations.Normed, activations.QueryKeyValue, count);
        Attend(stream, index, position, HeadOptions(layer, count));
        var router = new RouterFeed(weights, new InputNorm(layer.PostAttentionNorm, epsilon), activations.BatchRouterSums);
        DecodeRows.Add(stream, output, activations.Attended, activations.Residual, router, position);
        int k = model.Config.ExpertsPerToken, pairs = count * k;
        var routing = new TokenRouting(activations.Experts.View.SubView(0, pairs), activations.ExpertWeights.View.SubView(0, pairs), k);
        DecodeRows.Route(stream, activations.Residual, router, activations.Normed, new RoutedRows(routing, activations.RouterLogits, position, model.Config.NormTopkProb), activations.ExpertWorkspace!);
        DeviceBuffer<BFloat16> following = index + 1 < model.Config.Layers ? model.Layers[index + 1].InputNorm : model.FinalNorm;
        ExpertMlp.ApplyListed(stream, experts, routing, activations.ExpertWorkspace!, activations.Residual, new FollowingNorm(new InputNorm(following, epsilon), activations.Normed));
        normed = true;
        return true;
    }

    /// <inheritdoc/>
    protected override void Attend(GpuStream stream, int index, ArrayView<int> position, in QkNormRotaryOptions options)
    {
        if (activations.Attention is { } attention)
        {
            DecodeAttention.ApplyBatch(stream, activations.QueryKeyValue, position, caches.Layer(index), (activations.Attended, attention), options);
            return;
        }
        // Where attention of one token is no launch of its own, each sequence has its two.
        QkNormRotaryOptions one = options with { Tokens = 1 };
        var shape = new AttentionShape(1, options.QueryHeads);
        for (int s = 0; s < sequences; s++)
        {
            KvLayer cached = caches[s].Layer(index);
            ArrayView<int> own = position.SubView(s, 1);
            ArrayView<BFloat16> query = Row(activations.Query, s);
            QkNormRotary.Apply(stream, Row(activations.QueryKeyValue, s), own, query, cached, one);
            Attention.Apply(stream, query, cached, own, Row(activations.Attended, s), shape);
        }
    }

    private ArrayView<BFloat16> Row(DeviceBuffer<BFloat16> rows, int sequence)
    {
        long width = rows.Length / activations.MaxTokens;
        return rows.View.SubView(sequence * width, width);
    }
}
