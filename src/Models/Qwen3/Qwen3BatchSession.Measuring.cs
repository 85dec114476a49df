using ILGPU;

namespace GpuKit.Ilgpu.Models;

// What benchmarks and comparisons need and users do not.
public sealed partial class Qwen3BatchSession
{
    /// <summary>
    /// Fills a sequence's cache with random keys and values in place of a prompt: what measurements at a context need of one. A token
    /// appended afterwards is the first that is real.
    /// </summary>
    internal void Pretend(int sequence, int length)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(length, ContextLength);
        Truncate(sequence, 0);
        KvCache cache = caches[sequence];
        for (int layer = 0; layer < cache.Layers; layer++)
        {
            ulong seed = 2 * (((ulong)sequence * (ulong)cache.Layers) + (ulong)layer);
            RandomFill.Cache(stream, cache.Layer(layer), seed);
        }
        BatchSequence own = sequences[sequence];
        for (int i = 0; i < length; i++)
            own.Tokens.Add(i % Model.Config.VocabSize);
        own.Cached = length;
    }

    /// <summary>
    /// Appends one given token to each of some sequences by the step that decoding takes (on a card the recorded one), without counting what it draws; their logits are
    /// <see cref="LastLogits"/>. No sequence runs afterwards.
    /// </summary>
    /// <param name="ids">[sequences] the tokens; <see cref="NoToken"/> where a sequence has none.</param>
    internal void StepOver(ReadOnlySpan<int> ids)
    {
        for (int s = 0; s < Sequences; s++)
        {
            Halt(sequences[s]);
            (nextTokens[s], nextPositions[s]) = ids[s] == NoToken ? (0, NoToken) : (ids[s], sequences[s].Cached);
        }
        decoder.Set(nextTokens, nextPositions);
        _ = decoder.Step(mayRunAhead: false);
        for (int s = 0; s < Sequences; s++)
        {
            if (ids[s] == NoToken)
                continue;
            sequences[s].Tokens.Add(ids[s]);
            sequences[s].Cached++;
        }
    }

    /// <summary>Runs one step launch by launch, whatever is recorded, for measurements of its parts.</summary>
    internal void StepDirectly() => decoder.StepDirectly();

    /// <summary>The stream of the batch's work.</summary>
    internal GpuStream Stream => stream;

    /// <summary>Queues one replay of the recorded step without reading its tokens; the lists of tokens do not know of it. After a call of <see cref="Next"/>.</summary>
    internal void ReplayStep() => decoder.Replay();

    /// <summary>A sequence's logits in the step that was queued last, which on a card may be the one after the last <see cref="Next"/>.</summary>
    internal float[] LastLogits(int sequence)
    {
        var row = new float[Model.Config.VocabSize];
        decoder.Logits.CopyTo(stream, row, (long)sequence * row.Length);
        return row;
    }

    /// <summary>Called with each sparse layer's router logits of a step that runs directly: layer, <c>[sequences, experts]</c>.</summary>
    internal void ObserveRouters(Action<int, float[]>? observer) => forward.RouterObserver = observer is null ? null : (layer, view) =>
    {
        var copy = new float[view.Length];
        workspace.RouterLogits.CopyTo(stream, copy);
        observer(layer, copy);
    };
}
