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
            RandomFill.Gaussian(stream, cache.Keys(layer), 2 * (ulong)layer, 0, 1);
            RandomFill.Gaussian(stream, cache.Values(layer), (2 * (ulong)layer) + 1, 0, 1);
        }
        for (int i = 0; i < length; i++)
            tokens.Add(i % Model.Config.VocabSize);
    }

    /// <summary>Runs one step launch by launch, whatever is recorded, for measurements of its parts.</summary>
    internal void StepDirectly() => decoder.StepDirectly();

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
    {
        var copy = new float[view.Length];
        if (step is not null && copy.Length == Model.Config.Experts)
            step.Logits.CopyTo(stream, copy, (long)layer * copy.Length);
        else
            workspace.RouterLogits.CopyTo(stream, copy);
        observer(layer, copy);
    };
}
