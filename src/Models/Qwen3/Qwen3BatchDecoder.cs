namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Draws the next token of every sequence of a batch and runs the network over the ones drawn. On a card a step is recorded once and replayed: tokens,
/// positions and which sequences there are come from device memory.
/// </summary>
/// <remarks>
/// As in <see cref="Qwen3Decoder"/> a replay is queued behind the one whose tokens are waited for. It is forgotten by setting positions, tokens and
/// draw counters anew, and its places of the caches are overwritten. With a repetition penalty, whose marks cannot be taken back, nothing runs ahead.
/// </remarks>
internal sealed class Qwen3BatchDecoder : IDisposable
{
    private readonly List<IDisposable> owned = [];
    private readonly GpuStream stream;
    private readonly Qwen3BatchForward forward;
    private readonly DeviceBuffer<int> positions;
    private readonly DeviceBuffer<int> tokens;
    private readonly DeviceBuffer<float> logits;
    private readonly DeviceBuffer<ulong> best;
    private readonly PinnedBuffer<int>[] readTokens = new PinnedBuffer<int>[2];
    private readonly GpuEvent[] done = new GpuEvent[2];
    private readonly SamplerState[] samplers;
    private readonly SamplingOptions[] sampling;
    private readonly long[] draws;
    private readonly int vocabulary;
    private GpuGraph? graph;
    private int nextSlot;
    private int queued;

    /// <summary>Allocates what drawing needs; no sequence runs.</summary>
    /// <param name="stream">The batch's stream.</param>
    /// <param name="forward">The batch's network.</param>
    /// <param name="sequences">Sequences of the batch.</param>
    /// <param name="vocabulary">Length of a row of logits.</param>
    public Qwen3BatchDecoder(GpuStream stream, Qwen3BatchForward forward, int sequences, int vocabulary)
    {
        (this.stream, this.forward, this.vocabulary) = (stream, forward, vocabulary);
        samplers = new SamplerState[sequences];
        draws = new long[sequences];
        sampling = new SamplingOptions[sequences];
        Array.Fill(sampling, SamplingOptions.Greedy);
        GpuDevice device = stream.Device;
        try
        {
            positions = Own(device.Allocate<int>(sequences));
            tokens = Own(device.Allocate<int>(sequences));
            logits = Own(device.Allocate<float>((long)sequences * vocabulary));
            best = Own(device.Allocate<ulong>(sequences));
            for (int i = 0; i < readTokens.Length; i++)
            {
                readTokens[i] = Own(device.AllocatePinned<int>(sequences));
                done[i] = Own(device.CreateEvent());
            }
            for (int s = 0; s < sequences; s++)
                samplers[s] = Own(new SamplerState(device, vocabulary));
            best.Fill(stream, 0);
            LoadStep();
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The logits of the last step, <c>[sequences, vocabulary]</c>; rows of sequences that do not run are NaN.</summary>
    public DeviceBuffer<float> Logits => logits;

    /// <summary>Sets how a sequence's tokens are drawn and restarts its random numbers.</summary>
    public void Start(int sequence, SamplingOptions options, ReadOnlySpan<int> seen)
    {
        ArgumentNullException.ThrowIfNull(options);
        options.Validate();
        Abandon();
        SamplerState sampler = samplers[sequence];
        sampler.Reset(stream);
        draws[sequence] = 0;
        if (options.RepetitionPenalty != 1 && !seen.IsEmpty)
        {
            using DeviceBuffer<int> ids = stream.Device.Upload(seen);
            sampler.MarkSeen(stream, ids);
            stream.Synchronize();
        }
        // A graph keeps the options that it was recorded with.
        if (options != sampling[sequence])
            DropGraph();
        sampling[sequence] = options;
    }

    /// <summary>Sets what the next step runs over. A step that was queued ahead must have been abandoned.</summary>
    /// <param name="newTokens">[sequences].</param>
    /// <param name="newPositions">[sequences] the tokens' positions; negative for sequences that do not run.</param>
    public void Set(ReadOnlySpan<int> newTokens, ReadOnlySpan<int> newPositions)
    {
        tokens.CopyFrom(stream, newTokens);
        positions.CopyFrom(stream, newPositions);
    }

    /// <summary>Runs the network over the tokens drawn last or set and draws the next ones.</summary>
    /// <param name="mayRunAhead">Whether the step after this one may be queued before its tokens are asked for.</param>
    /// <returns>[sequences] the tokens; of sequences that do not run, anything. Valid until the next step.</returns>
    public ReadOnlySpan<int> Step(bool mayRunAhead)
    {
        if (!stream.Device.IsCuda)
        {
            RunStep();
            Mark();
            return Take();
        }
        graph ??= GpuGraph.Capture(stream, RunStep);
        if (queued == 0)
            Queue();
        if (mayRunAhead && !HasPenalty())
            Queue();
        return Take();
    }

    /// <summary>Forgets a step that was queued ahead. Tokens and positions are the caller's to set.</summary>
    public void Abandon()
    {
        if (queued == 0)
            return;
        queued = 0;
        for (int s = 0; s < samplers.Length; s++)
            if (!Sampler.IsGreedy(sampling[s]))
                samplers[s].SetDraws(stream, draws[s]);
    }

    /// <summary>Notes that a sequence's token of the last step was one of its draws.</summary>
    public void Count(int sequence) => draws[sequence]++;

    /// <summary>One step launch by launch, without a graph; its tokens are not read.</summary>
    public void StepDirectly() => RunStep();

    /// <summary>Queues one replay without reading its tokens. On a card only, after a first <see cref="Step"/>.</summary>
    public void Replay() => graph!.Replay(stream);

    public void Dispose()
    {
        DropGraph();
        for (int i = owned.Count - 1; i >= 0; i--)
            owned[i].Dispose();
        owned.Clear();
    }

    // A step over the tokens 0 loads its kernels, which cannot happen while recording. What it leaves at position 0 of the caches is overwritten by the first prefill.
    private void LoadStep()
    {
        var none = new int[samplers.Length];
        if (stream.Device.IsCuda)
        {
            Set(none, none);
            RunStep();
            Sampler.SampleIfRunning(stream, logits.View.SubView(0, vocabulary), samplers[0], new SamplingOptions { Temperature = 1 }, (tokens, positions));
            samplers[0].Reset(stream);
        }
        Array.Fill(none, Qwen3BatchSession.NoToken);
        positions.CopyFrom(stream, none);
        stream.Synchronize();
    }

    private void Queue()
    {
        graph!.Replay(stream);
        Mark();
    }

    // Each of two steps in flight has a place of its own for its tokens.
    private void Mark()
    {
        tokens.CopyToPinned(stream, readTokens[nextSlot]);
        done[nextSlot].Record(stream);
        nextSlot ^= 1;
        queued++;
    }

    private ReadOnlySpan<int> Take()
    {
        int slot = (nextSlot - queued) & 1;
        done[slot].Synchronize();
        queued--;
        return readTokens[slot].Span;
    }

    private bool HasPenalty()
    {
        foreach (SamplingOptions options in sampling)
            if (options.RepetitionPenalty != 1)
                return true;
        return false;
    }

    private void RunStep()
    {
        int count = samplers.Length;
        forward.Run(stream, tokens, positions, count, count);
        forward.RunHead(stream, logits, count);
        uint greedy = 0;
        for (int s = 0; s < count; s++)
            greedy |= Sampler.IsGreedy(sampling[s]) ? 1u << s : 0;
        if (greedy != 0)
            GreedyRows.Sample(stream, logits, best, positions, tokens, greedy);
        for (int s = 0; s < count; s++)
            if (!Sampler.IsGreedy(sampling[s]))
                Sampler.SampleIfRunning(stream, logits.View.SubView((long)s * vocabulary, vocabulary), samplers[s], sampling[s], (tokens.View.SubView(s, 1), positions.View.SubView(s, 1)));
        // Last: it does not overlap, and the head's weights would wait for it.
        DeviceCounter.AdvanceAll(stream, positions, 1);
    }

    private void DropGraph()
    {
        graph?.Dispose();
        graph = null;
    }

    private T Own<T>(T resource)
        where T : IDisposable
    {
        owned.Add(resource);
        return resource;
    }
}
