using System.Runtime.InteropServices;
using ILGPU;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// One sequence on a model: its KV cache, its activations and its sampling state, all allocated by the constructor. Not for
/// use by two threads at once; several sessions of one model may run side by side.
/// </summary>
public sealed class Qwen3Session : IDisposable
{
    // Prompt tokens that run at once: enough to fill tensor-core tiles on a card; on the CPU a bound on memory and on the
    // time to a cancellation.
    private const int CudaTokensAtOnce = 512;
    private const int CpuTokensAtOnce = 64;

    private readonly List<IDisposable> owned = [];
    private readonly List<int> tokens = [];
    private readonly GpuStream stream;
    private readonly Qwen3Forward forward;
    private readonly Qwen3Workspace workspace;
    private readonly DeviceBuffer<int> promptIds;
    private readonly DeviceBuffer<int> position;
    private readonly DeviceBuffer<int> token;
    private readonly DeviceBuffer<float> logits;
    private readonly PinnedBuffer<int> readToken;
    private readonly SamplerState sampler;
    private SamplingOptions sampling = SamplingOptions.Greedy;
    private GpuGraph? graph;
    private int? pendingToken;
    private bool hasLogits;

    /// <summary>Allocates a session.</summary>
    /// <param name="model">The weights; must outlive the session.</param>
    /// <param name="contextLength">Positions of the KV cache, 1 to the model's <see cref="Qwen3MoeConfig.MaxPositionEmbeddings"/>.</param>
    /// <exception cref="ArgumentOutOfRangeException">The context length is out of range.</exception>
    /// <exception cref="GpuException">Device memory is exhausted; nothing stays allocated.</exception>
    public Qwen3Session(Qwen3Moe model, int contextLength)
    {
        ArgumentNullException.ThrowIfNull(model);
        Qwen3MoeConfig config = model.Config;
        if (contextLength < 1 || contextLength > config.MaxPositionEmbeddings)
            throw new ArgumentOutOfRangeException(nameof(contextLength), contextLength, $"The context must be 1 to {config.MaxPositionEmbeddings} tokens (max_position_embeddings).");
        Model = model;
        ContextLength = contextLength;
        GpuDevice device = model.Device;
        try
        {
            stream = Own(device.CreateStream());
            KvCache cache = Own(new KvCache(device, config.Layers, config.KeyValueHeads, config.HeadDim, contextLength));
            RotaryTable rotary = Own(new RotaryTable(device, config.HeadDim, contextLength, config.RopeTheta));
            workspace = Own(new Qwen3Workspace(device, config, Math.Min(contextLength, device.IsCuda ? CudaTokensAtOnce : CpuTokensAtOnce)));
            forward = new Qwen3Forward(model, cache, rotary, workspace);
            promptIds = Own(device.Allocate<int>(workspace.MaxTokens));
            position = Own(device.Allocate<int>(1));
            token = Own(device.Allocate<int>(1));
            logits = Own(device.Allocate<float>(config.VocabSize));
            readToken = Own(device.AllocatePinned<int>(1));
            sampler = Own(new SamplerState(device, config.VocabSize));
            LoadStep();
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The weights.</summary>
    public Qwen3Moe Model { get; }

    /// <summary>Positions of the KV cache.</summary>
    public int ContextLength { get; }

    /// <summary>Tokens in the KV cache.</summary>
    public IReadOnlyList<int> Tokens => tokens;

    /// <summary>Forgets all but the first tokens.</summary>
    /// <param name="length">Tokens to keep, at most those in the cache.</param>
    public void Truncate(int length)
    {
        if (length < 0 || length > tokens.Count)
            throw new ArgumentOutOfRangeException(nameof(length), length, $"The cache holds {tokens.Count} tokens.");
        tokens.RemoveRange(length, tokens.Count - length);
        pendingToken = null;
        hasLogits = false;
    }

    /// <summary>Appends tokens to the cache and computes the logits that follow the last one.</summary>
    /// <param name="ids">Token ids, at least one.</param>
    /// <param name="cancellation">Stops between parts; the cache then holds the parts that were done.</param>
    /// <exception cref="ArgumentException">No ids, an id outside the vocabulary, or more than the context holds. Nothing is appended then.</exception>
    public void Prefill(ReadOnlySpan<int> ids, CancellationToken cancellation = default) =>
        Append(ids, (count, last) => last ? 1 : 0, null, cancellation);

    /// <summary>Appends tokens and hands out the logits after every one of them: what a comparison with a reference needs.</summary>
    /// <param name="ids">Token ids, at least one.</param>
    /// <param name="receive">Called for consecutive parts with <c>[rows, vocabulary]</c> float32.</param>
    /// <param name="cancellation">Stops between parts.</param>
    /// <exception cref="ArgumentException">As for <see cref="Prefill"/>.</exception>
    public void PrefillWithLogits(ReadOnlySpan<int> ids, Action<ReadOnlyMemory<float>> receive, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(receive);
        Append(ids, (count, _) => count, receive, cancellation);
    }

    /// <summary>Sets how the next tokens are drawn and restarts the random numbers.</summary>
    /// <param name="options">How to draw.</param>
    /// <param name="seen">Tokens that the repetition penalty applies to from the start; usually the prompt.</param>
    public void StartSampling(SamplingOptions options, ReadOnlySpan<int> seen)
    {
        ArgumentNullException.ThrowIfNull(options);
        options.Validate();
        sampler.Reset(stream);
        if (options.RepetitionPenalty != 1)
            MarkSeen(seen);
        if (options != sampling)
            DropGraph();
        sampling = options;
    }

    /// <summary>
    /// Draws the next token: after a prefill from its logits; after a drawn token by appending that one first. On a card the
    /// second kind is one replayed graph.
    /// </summary>
    /// <exception cref="InvalidOperationException">Nothing was prefilled, or the context is full.</exception>
    public int Next()
    {
        if (!hasLogits && pendingToken is null)
            throw new InvalidOperationException("There is nothing to continue: prefill at least one token first.");
        if (hasLogits)
        {
            Sample();
        }
        else
        {
            if (tokens.Count == ContextLength)
                throw new InvalidOperationException($"The context of {ContextLength} tokens is full.");
            RunStep();
            tokens.Add(pendingToken!.Value);
        }
        stream.Synchronize();
        hasLogits = false;
        pendingToken = readToken.Span[0];
        return pendingToken.Value;
    }

    /// <summary>Called with each sparse layer's router logits of every part of a prefill: layer, <c>[tokens, experts]</c>.</summary>
    internal void ObserveRouters(Action<int, float[]>? observer) => forward.RouterObserver = observer is null ? null : (layer, view) =>
    {
        var copy = new float[view.Length];
        stream.Synchronize();
        workspace.RouterLogits.CopyTo(stream, copy);
        observer(layer, copy);
    };

    /// <summary>Returns the session's memory.</summary>
    public void Dispose()
    {
        // Memory must not go back while kernels use it; on a lost or closed device nothing runs any more.
        try
        {
            stream?.Synchronize();
        }
        catch (Exception e) when (e is GpuException or ObjectDisposedException)
        {
        }
        DropGraph();
        for (int i = owned.Count - 1; i >= 0; i--)
            owned[i].Dispose();
        owned.Clear();
    }

    private void Append(ReadOnlySpan<int> ids, Func<int, bool, int> wanted, Action<ReadOnlyMemory<float>>? receive, CancellationToken cancellation)
    {
        RequireIds(ids);
        hasLogits = false;
        pendingToken = null;
        position.CopyFrom(stream, [tokens.Count]);
        for (int first = 0; first < ids.Length; first += workspace.MaxTokens)
        {
            cancellation.ThrowIfCancellationRequested();
            int count = Math.Min(workspace.MaxTokens, ids.Length - first);
            ReadOnlySpan<int> part = ids.Slice(first, count);
            bool last = first + count == ids.Length;
            promptIds.CopyFrom(stream, part);
            forward.Run(stream, promptIds, position, count, wanted(count, last));
            DeviceCounter.Advance(stream, position, count);
            if (receive is not null)
                HandOut(count, receive);
            else if (last)
                forward.RunHead(stream, logits, 1);
            tokens.AddRange(part);
        }
        stream.Synchronize();
        hasLogits = receive is null;
    }

    private void HandOut(int count, Action<ReadOnlyMemory<float>> receive)
    {
        using DeviceBuffer<float> all = Model.Device.Allocate<float>((long)count * Model.Config.VocabSize);
        forward.RunHead(stream, all, count);
        receive(all.ToArray(stream));
    }

    private void RequireIds(ReadOnlySpan<int> ids)
    {
        if (ids.IsEmpty)
            throw new ArgumentException("There must be at least one token.", nameof(ids));
        foreach (int id in ids)
            if ((uint)id >= (uint)Model.Config.VocabSize)
                throw new ArgumentException($"Token {id} is outside the vocabulary of {Model.Config.VocabSize}.", nameof(ids));
        if (ids.Length > ContextLength - tokens.Count)
            throw new ArgumentException($"{ids.Length} tokens do not fit: the context holds {ContextLength}, of which {tokens.Count} are used.", nameof(ids));
    }

    private void Sample()
    {
        Sampler.Sample(stream, logits, sampler, sampling, token);
        token.CopyToPinned(stream, readToken);
    }

    private void Step()
    {
        forward.Run(stream, token, position, 1, 1);
        DeviceCounter.Advance(stream, position, 1);
        forward.RunHead(stream, logits, 1);
        Sample();
    }

    private void RunStep()
    {
        if (!Model.Device.IsCuda)
        {
            Step();
            return;
        }
        graph ??= GpuGraph.Capture(stream, Step);
        graph.Replay(stream);
    }

    // A step at position 0 loads its kernels, which cannot happen while recording, and the first token then costs what
    // later ones do. What it leaves in the cache is overwritten by the first prefill.
    private void LoadStep()
    {
        if (!Model.Device.IsCuda)
            return;
        token.Fill(stream, 0);
        position.Fill(stream, 0);
        Step();
        sampler.Reset(stream);
        stream.Synchronize();
    }

    private void MarkSeen(ReadOnlySpan<int> seen)
    {
        if (seen.IsEmpty)
            return;
        using DeviceBuffer<int> ids = Model.Device.Upload(seen);
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
