namespace GpuKit.Ilgpu.Models;

// What benchmarks and comparisons need and users do not.
public sealed partial class Qwen3Session
{
    /// <summary>
    /// Fills the cache with random keys and values in place of a prompt: what measurements at a context need of one. A token
    /// appended afterwards is the first that is real.
    /// </summary>
    internal void Pretend(int length)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(length, ContextLength);
        Truncate(0);
        for (int layer = 0; layer < cache.Layers; layer++)
        {
            RandomFill.Cache(stream, cache.Layer(layer), 2 * (ulong)layer);
        }
        for (int i = 0; i < length; i++)
            tokens.Add(i % Model.Config.VocabSize);
    }

    /// <summary>Runs one step launch by launch, whatever is recorded, for measurements of its parts.</summary>
    internal void StepDirectly() => decoder.StepDirectly();

    /// <summary>
    /// Appends tokens one by one, each by the step that decoding takes (on a card the recorded one), and hands out the logits after each:
    /// what a comparison of that step with a reference needs.
    /// </summary>
    internal void StepWithLogits(ReadOnlySpan<int> ids, Action<ReadOnlyMemory<float>> receive, CancellationToken cancellation = default)
    {
        ObjectDisposedException.ThrowIf(disposed, this);
        RequireIds(ids);
        pendingToken = null;
        decoder.Abandon();
        position.CopyFrom(stream, [tokens.Count]);
        var row = new float[Model.Config.VocabSize];
        foreach (int id in ids)
        {
            cancellation.ThrowIfCancellationRequested();
            decoder.StepOver(id);
            logits.CopyTo(stream, row);
            tokens.Add(id);
            receive(row);
        }
        hasLogits = true;
    }

    /// <summary>What is told, and may change, a sparse layer's router logits of a part of a prompt before experts are chosen.</summary>
    /// <param name="layer">The layer.</param>
    /// <param name="first">Position of the first token.</param>
    /// <param name="logits"><c>[tokens, experts]</c>.</param>
    /// <returns>Whether it changed them.</returns>
    internal delegate bool RouterAdjuster(int layer, int first, Span<float> logits);

    /// <summary>
    /// A prompt alone in the cache, whose choices of experts may be changed. A part of one token runs as several do: where a layer runs in few launches, they have chosen by then.
    /// </summary>
    internal void PrefillAdjusting(ReadOnlySpan<int> ids, RouterAdjuster adjust, CancellationToken cancellation = default)
    {
        Truncate(0);
        forward.RouterAdjuster = (layer, view) =>
        {
            float[] copy = ReadRouter(layer, (int)view.Length);
            bool changed = adjust(layer, tokens.Count, copy);
            if (changed)
                workspace.RouterLogits.CopyFrom(stream, copy);
            return changed;
        };
        try
        {
            Prefill(ids, cancellation);
        }
        finally
        {
            forward.RouterAdjuster = null;
        }
    }

    /// <summary>Prompt tokens that run at once.</summary>
    internal int TokensAtOnce => workspace.MaxTokens;

    /// <summary>Puts the position that kernels read where it was at an earlier token, so that its launches can be repeated; the next <see cref="Prefill"/> puts it right.</summary>
    internal void Rewind(int first) => position.CopyFrom(stream, [first]);

    /// <summary>The stream of the session's work.</summary>
    internal GpuStream Stream => stream;

    /// <summary>Queues one replay of the recorded step without reading its token; the list of tokens does not know of it. After two calls of <see cref="Next"/>.</summary>
    internal void ReplayStep() => decoder.Replay();

    /// <summary>Called with each sparse layer's router logits of every part of a prefill: layer, <c>[tokens, experts]</c>.</summary>
    internal void ObserveRouters(Action<int, float[]>? observer) => forward.RouterObserver = observer is null ? null : (layer, view) =>
        observer(layer, ReadRouter(layer, (int)view.Length));

    private float[] ReadRouter(int layer, int length)
    {
        var logits = new float[length];
        workspace.RouterLogits.CopyTo(stream, logits);
        return logits;
    }
}
