namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Draws tokens of one sequence and runs the network over each drawn one. On a card such a step is recorded once and replayed:
/// nothing of it depends on the host.
/// </summary>
internal sealed class Qwen3Decoder : IDisposable
{
    private readonly List<IDisposable> owned = [];
    private readonly GpuStream stream;
    private readonly Qwen3Forward forward;
    private readonly DeviceBuffer<int> position;
    private readonly DeviceBuffer<float> logits;
    private readonly DeviceBuffer<int> token;
    private readonly PinnedBuffer<int> readToken;
    private readonly SamplerState sampler;
    private SamplingOptions sampling = SamplingOptions.Greedy;
    private GpuGraph? graph;

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
            readToken = Own(stream.Device.AllocatePinned<int>(1));
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
        sampler.Reset(stream);
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
        Sample();
        return Read();
    }

    /// <summary>Runs the network over the token drawn last and draws the next one.</summary>
    public int Step()
    {
        if (!stream.Device.IsCuda)
        {
            RunStep();
        }
        else
        {
            graph ??= GpuGraph.Capture(stream, RunStep);
            graph.Replay(stream);
        }
        return Read();
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
        sampler.Reset(stream);
        stream.Synchronize();
    }

    private int Read()
    {
        stream.Synchronize();
        return readToken.Span[0];
    }

    private void RunStep()
    {
        forward.Run(stream, token, position, 1, 1);
        DeviceCounter.Advance(stream, position, 1);
        forward.RunHead(stream, logits, 1);
        Sample();
    }

    private void Sample()
    {
        Sampler.Sample(stream, logits, sampler, sampling, token);
        token.CopyToPinned(stream, readToken);
    }

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
