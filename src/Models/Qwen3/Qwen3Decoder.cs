namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Draws tokens of one sequence and runs the network over each drawn one. On a card such a step is recorded once and replayed:
/// nothing of it depends on the host.
/// </summary>
/// <remarks>
/// A replay is queued behind the one whose token is waited for, so that the card does not wait for the host. When its token is not asked for, what
/// it did is overwritten or taken back: its position of the cache by the next token, its draw by setting the counter. Only with a repetition
/// penalty, whose marks cannot be taken back, nothing runs ahead.
/// </remarks>
internal sealed class Qwen3Decoder : IDisposable
{
    private readonly List<IDisposable> owned = [];
    private readonly GpuStream stream;
    private readonly Qwen3Forward forward;
    private readonly DeviceBuffer<int> position;
    private readonly DeviceBuffer<float> logits;
    private readonly DeviceBuffer<int> token;
    private readonly PinnedBuffer<int>[] readTokens = new PinnedBuffer<int>[2];
    private readonly GpuEvent[] done = new GpuEvent[2];
    private readonly SamplerState sampler;
    private SamplingOptions sampling = SamplingOptions.Greedy;
    private GpuGraph? graph;
    private int nextSlot;
    private int queued;
    private long draws;

    /// <summary>Allocates what drawing needs.</summary>
    /// <param name="stream">The sequence's stream.</param>
    /// <param name="forward">The sequence's network.</param>
    /// <param name="position">[1] position of the next token; a step advances it.</param>
    /// <param name="logits">[vocabulary] logits after the last token; a step overwrites them.</param>
    public Qwen3Decoder(GpuStream stream, Qwen3Forward forward, DeviceBuffer<int> position, DeviceBuffer<float> logits)
    {
        (this.stream, this.forward, this.position, this.logits) = (stream, forward, position, logits);
        try
        {
            token = Own(stream.Device.Allocate<int>(1));
            for (int i = 0; i < readTokens.Length; i++)
            {
                readTokens[i] = Own(stream.Device.AllocatePinned<int>(1));
                done[i] = Own(stream.Device.CreateEvent());
            }
            sampler = Own(new SamplerState(stream.Device, (int)logits.Length));
            LoadStep();
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Sets how tokens are drawn and restarts the random numbers.</summary>
    public void Start(SamplingOptions options, ReadOnlySpan<int> seen)
    {
        ArgumentNullException.ThrowIfNull(options);
        options.Validate();
        Abandon();
        sampler.Reset(stream);
        draws = 0;
        if (options.RepetitionPenalty != 1)
            MarkSeen(seen);
        // A graph keeps the options that it was recorded with.
        if (options != sampling)
            DropGraph();
        sampling = options;
    }

    /// <summary>Draws a token from the logits.</summary>
    public int Draw()
    {
        Abandon();
        Sample();
        Mark();
        return Take();
    }

    /// <summary>Runs the network over the token drawn last and draws the next one.</summary>
    /// <param name="mayRunAhead">Whether the step after this one may be queued before its token is asked for.</param>
    public int Step(bool mayRunAhead)
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
        if (mayRunAhead && sampling.RepetitionPenalty == 1)
            Queue();
        return Take();
    }

    /// <summary>Runs the step over a given token instead of a drawn one. What it draws is not counted, the position advances.</summary>
    public void StepOver(int id)
    {
        Abandon();
        token.CopyFrom(stream, [id]);
        if (stream.Device.IsCuda)
            (graph ??= GpuGraph.Capture(stream, RunStep)).Replay(stream);
        else
            RunStep();
        sampler.SetDraws(stream, draws);
    }

    /// <summary>Forgets a step that was queued ahead. Position and logits are the caller's to set.</summary>
    public void Abandon()
    {
        if (queued == 0)
            return;
        queued = 0;
        sampler.SetDraws(stream, draws);
    }

    /// <summary>One step launch by launch, without a graph; its token is not read.</summary>
    public void StepDirectly() => RunStep();

    /// <summary>Queues one replay without reading its token. On a card only, after a first <see cref="Step"/>.</summary>
    public void Replay() => graph!.Replay(stream);

    public void Dispose()
    {
        DropGraph();
        for (int i = owned.Count - 1; i >= 0; i--)
            owned[i].Dispose();
        owned.Clear();
    }

    // A step over token 0 loads its kernels, which cannot happen while recording, and the first drawn token then costs what
    // later ones do. What it leaves at position 0 of the cache is overwritten by the first prefill.
    private void LoadStep()
    {
        if (!stream.Device.IsCuda)
            return;
        token.Fill(stream, 0);
        position.Fill(stream, 0);
        RunStep();
        Sampler.Sample(stream, logits, sampler, new SamplingOptions { Temperature = 1 }, token);
        sampler.Reset(stream);
        stream.Synchronize();
    }

    private void Queue()
    {
        graph!.Replay(stream);
        Mark();
    }

    // Each of two steps in flight has a place of its own for its token.
    private void Mark()
    {
        token.CopyToPinned(stream, readTokens[nextSlot]);
        done[nextSlot].Record(stream);
        nextSlot ^= 1;
        queued++;
    }

    private int Take()
    {
        int slot = (nextSlot - queued) & 1;
        done[slot].Synchronize();
        queued--;
        draws++;
        return readTokens[slot].Span[0];
    }

    private void RunStep()
    {
        forward.Run(stream, token, position, 1, 1);
        forward.RunHead(stream, logits, 1);
        Sample();
        // Last: it does not overlap, and the head's weights would wait for it.
        DeviceCounter.Advance(stream, position, 1);
    }

    private void Sample() => Sampler.Sample(stream, logits, sampler, sampling, token);

    private void MarkSeen(ReadOnlySpan<int> seen)
    {
        if (seen.IsEmpty)
            return;
        using DeviceBuffer<int> ids = stream.Device.Upload(seen);
        sampler.MarkSeen(stream, ids);
        stream.Synchronize();
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
