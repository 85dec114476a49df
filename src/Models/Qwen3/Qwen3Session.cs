using ILGPU;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// One sequence on a model: its KV cache, its activations and its sampling state, all allocated by the constructor. Not for
/// use by two threads at once; several sessions of one model may run side by side.
/// </summary>
public sealed partial class Qwen3Session : IDisposable
{
    // Prompt tokens that run at once. On a card enough that each of many experts gets rows to fill a tile: of 128 experts of which a token takes eight, 256 each on
    // average. On the CPU a bound on memory and on the time to a cancellation.
    internal const int CudaTokensAtOnce = 4096;
    internal const int CpuTokensAtOnce = 64;

    // The same where all logits are handed out, a row of the vocabulary a token.
    private const int LogitRowsAtOnce = 512;

    private readonly List<IDisposable> owned = [];
    private readonly List<int> tokens = [];
    private readonly GpuStream stream;
    private readonly KvCache cache;
    private readonly Qwen3Forward forward;
    private readonly Qwen3Workspace workspace;
    private readonly DeviceBuffer<int> promptIds;
    private readonly DeviceBuffer<int> position;
    private readonly DeviceBuffer<float> logits;
    private readonly Qwen3Decoder decoder;
    private int? pendingToken;
    private bool hasLogits;
    private bool disposed;

    /// <summary>Allocates a session.</summary>
    /// <param name="model">The weights; must outlive the session.</param>
    /// <param name="contextLength">Positions of the KV cache, 1 to the model's <see cref="Qwen3MoeConfig.MaxPositionEmbeddings"/>.</param>
    /// <param name="kvCache">How the KV cache stores keys and values.</param>
    /// <exception cref="ArgumentOutOfRangeException">The context length is out of range, or the model's heads do not fit the cache's format.</exception>
    /// <exception cref="GpuException">Device memory is exhausted; nothing stays allocated.</exception>
    public Qwen3Session(Qwen3Moe model, int contextLength, KvCacheFormat kvCache = KvCacheFormat.Bf16)
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
            cache = Own(new KvCache(device, config.Layers, config.KeyValueHeads, config.HeadDim, contextLength, kvCache));
            RotaryTable rotary = Own(new RotaryTable(device, config.HeadDim, contextLength, config.RopeTheta));
            workspace = Own(new Qwen3Workspace(device, config, Math.Min(contextLength, device.IsCuda ? CudaTokensAtOnce : CpuTokensAtOnce)));
            forward = new Qwen3Forward(model, cache, rotary, workspace);
            promptIds = Own(device.Allocate<int>(workspace.MaxTokens));
            position = Own(device.Allocate<int>(1));
            logits = Own(device.Allocate<float>(config.VocabSize));
            decoder = Own(new Qwen3Decoder(stream, forward, position, logits));
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

    /// <summary>How the KV cache stores keys and values.</summary>
    public KvCacheFormat KvCacheFormat => cache.Format;

    /// <summary>Tokens in the KV cache.</summary>
    public IReadOnlyList<int> Tokens => tokens;

    /// <summary>Forgets all but the first tokens.</summary>
    /// <param name="length">Tokens to keep, at most those in the cache.</param>
    public void Truncate(int length)
    {
        ObjectDisposedException.ThrowIf(disposed, this);
        if (length < 0 || length > tokens.Count)
            throw new ArgumentOutOfRangeException(nameof(length), length, $"The cache holds {tokens.Count} tokens.");
        tokens.RemoveRange(length, tokens.Count - length);
        pendingToken = null;
        hasLogits = false;
    }

    /// <summary>Appends tokens to the cache and computes the logits that follow the last one. A token drawn before is not appended.</summary>
    /// <param name="ids">Token ids, at least one.</param>
    /// <param name="cancellation">Stops between parts; the cache then holds the parts that were done.</param>
    /// <exception cref="ArgumentException">No ids, an id outside the vocabulary, or more than the context holds. Nothing is appended then.</exception>
    public void Prefill(ReadOnlySpan<int> ids, CancellationToken cancellation = default) =>
        Append(ids, null, cancellation);

    /// <summary>Appends tokens and hands out the logits after every one of them: what a comparison with a reference needs. <see cref="Next"/> may follow.</summary>
    /// <param name="ids">Token ids, at least one.</param>
    /// <param name="receive">Called for consecutive parts with <c>[rows, vocabulary]</c> float32.</param>
    /// <param name="cancellation">Stops between parts.</param>
    /// <exception cref="ArgumentException">As for <see cref="Prefill"/>.</exception>
    public void PrefillWithLogits(ReadOnlySpan<int> ids, Action<ReadOnlyMemory<float>> receive, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(receive);
        Append(ids, receive, cancellation);
    }

    /// <summary>Sets how the next tokens are drawn and restarts the random numbers.</summary>
    /// <param name="options">How to draw.</param>
    /// <param name="seen">Tokens that the repetition penalty applies to from the start; usually the prompt.</param>
    public void StartSampling(SamplingOptions options, ReadOnlySpan<int> seen)
    {
        ObjectDisposedException.ThrowIf(disposed, this);
        decoder.Start(options, seen);
    }

    /// <summary>
    /// Draws the next token: after a prefill from its logits; after a drawn token by appending that one first. On a card the
    /// second kind is one replayed graph.
    /// </summary>
    /// <exception cref="InvalidOperationException">Nothing was prefilled, or the context is full.</exception>
    public int Next()
    {
        ObjectDisposedException.ThrowIf(disposed, this);
        if (pendingToken is { } pending)
        {
            if (tokens.Count == ContextLength)
                throw new InvalidOperationException($"The context of {ContextLength} tokens is full.");
            // Ahead only where the token to come still has a place.
            pendingToken = decoder.Step(mayRunAhead: tokens.Count + 1 < ContextLength);
            tokens.Add(pending);
        }
        else
            pendingToken = hasLogits ? decoder.Draw() : throw new InvalidOperationException("There is nothing to continue: prefill at least one token first.");
        hasLogits = false;
        return pendingToken.Value;
    }

    /// <summary>Returns the session's memory.</summary>
    public void Dispose()
    {
        disposed = true;
        // Memory must not go back while kernels use it; on a lost or closed device nothing runs any more.
        try
        {
            stream?.Synchronize();
        }
        catch (Exception e) when (e is GpuException or ObjectDisposedException)
        {
        }
        for (int i = owned.Count - 1; i >= 0; i--)
            owned[i].Dispose();
        owned.Clear();
    }

    private void Append(ReadOnlySpan<int> ids, Action<ReadOnlyMemory<float>>? receive, CancellationToken cancellation)
    {
        ObjectDisposedException.ThrowIf(disposed, this);
        RequireIds(ids);
        hasLogits = false;
        pendingToken = null;
        decoder.Abandon();
        position.CopyFrom(stream, [tokens.Count]);
        int most = receive is null ? workspace.MaxTokens : Math.Min(workspace.MaxTokens, LogitRowsAtOnce);
        for (int first = 0; first < ids.Length; first += most)
        {
            cancellation.ThrowIfCancellationRequested();
            int count = Math.Min(most, ids.Length - first);
            ReadOnlySpan<int> part = ids.Slice(first, count);
            bool last = first + count == ids.Length;
            promptIds.CopyFrom(stream, part);
            forward.Run(stream, promptIds, position, count, receive is not null ? count : last ? 1 : 0);
            DeviceCounter.Advance(stream, position, count);
            if (receive is not null)
                HandOut(count, last, receive);
            else if (last)
                forward.RunHead(stream, logits, 1);
            tokens.AddRange(part);
        }
        stream.Synchronize();
        hasLogits = true;
    }

    private void HandOut(int count, bool last, Action<ReadOnlyMemory<float>> receive)
    {
        using DeviceBuffer<float> all = Model.Device.Allocate<float>((long)count * Model.Config.VocabSize);
        forward.RunHead(stream, all, count);
        float[] rows = all.ToArray(stream);
        if (last)
            logits.CopyFrom(stream, rows.AsSpan(rows.Length - Model.Config.VocabSize));
        receive(rows);
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

    private T Own<T>(T resource)
        where T : IDisposable
    {
        owned.Add(resource);
        return resource;
    }
}
