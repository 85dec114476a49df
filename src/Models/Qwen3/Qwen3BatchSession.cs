using ILGPU;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Up to 16 sequences of different lengths on a model that draw their tokens together: every weight is read once a step for all of them. Each has its own KV cache
/// and its own sampling; it can stop and start anew while the others go on. All memory is allocated by the constructor. Not for use by two threads at once.
/// </summary>
/// <remarks>
/// A sequence's tokens are, bit for bit, those that it draws in any other batch of the same model and device: alone or with any neighbours of any lengths,
/// whatever the number of sequences and the context length. <see cref="Qwen3Session"/> runs other kernels on a card, whose sums have other orders: tokens differ where logits are nearly
/// equal. On a card a step is one replayed graph, and the next is queued before the tokens of the last are read (not with a repetition penalty).
/// </remarks>
public sealed partial class Qwen3BatchSession : IDisposable
{
    /// <summary>Most sequences of a batch.</summary>
    public const int MostSequences = DecodeRows.MostTokens;

    /// <summary>Stands for the token of a sequence that does not run.</summary>
    public const int NoToken = -1;

    private readonly List<IDisposable> owned = [];
    private readonly BatchSequence[] sequences;
    private readonly int[] nextTokens;
    private readonly int[] nextPositions;
    private readonly GpuStream stream;
    private readonly KvCacheBatch caches;
    private readonly Qwen3Workspace workspace;
    private readonly Qwen3BatchForward forward;
    private readonly Qwen3BatchDecoder decoder;
    private readonly DeviceBuffer<int> promptIds;
    private readonly DeviceBuffer<int> promptPosition;
    private bool changed = true;

    /// <summary>Allocates a batch in which no sequence runs.</summary>
    /// <param name="model">The weights; must outlive the batch.</param>
    /// <param name="sequences">1 to 16; 15 on a card where some weights do not stream (docs/kernels/gemv.md) or experts are of two-term FP8.</param>
    /// <param name="contextLength">Positions of each sequence's KV cache, 1 to the model's <see cref="Qwen3MoeConfig.MaxPositionEmbeddings"/>.</param>
    /// <param name="kvCache">How the KV caches store keys and values.</param>
    /// <exception cref="ArgumentOutOfRangeException">The number of sequences or the context length is out of range.</exception>
    /// <exception cref="GpuException">Device memory is exhausted; nothing stays allocated.</exception>
    public Qwen3BatchSession(Qwen3Moe model, int sequences, int contextLength, KvCacheFormat kvCache = KvCacheFormat.Bf16)
    {
        ArgumentNullException.ThrowIfNull(model);
        Qwen3MoeConfig config = model.Config;
        int most = MostFor(model);
        if (sequences < 1 || sequences > most)
            throw new ArgumentOutOfRangeException(nameof(sequences), sequences, $"A batch of this model has 1 to {most} sequences.");
        if (contextLength < 1 || contextLength > config.MaxPositionEmbeddings)
            throw new ArgumentOutOfRangeException(nameof(contextLength), contextLength, $"The context must be 1 to {config.MaxPositionEmbeddings} tokens (max_position_embeddings).");
        (Model, Sequences, ContextLength) = (model, sequences, contextLength);
        GpuDevice device = model.Device;
        this.sequences = new BatchSequence[sequences];
        nextTokens = new int[sequences];
        nextPositions = new int[sequences];
        try
        {
            stream = Own(device.CreateStream());
            caches = Own(new KvCacheBatch(device, sequences, config.Layers, config.KeyValueHeads, config.HeadDim, contextLength, kvCache));
            RotaryTable rotary = Own(new RotaryTable(device, config.HeadDim, contextLength, config.RopeTheta));
            int atOnce = Math.Min(contextLength, device.IsCuda ? Qwen3Session.CudaTokensAtOnce : Qwen3Session.CpuTokensAtOnce);
            workspace = Own(new Qwen3Workspace(device, config, Math.Max(sequences, atOnce), sequences));
            forward = new Qwen3BatchForward(model, caches, rotary, workspace, sequences);
            for (int s = 0; s < sequences; s++)
                this.sequences[s] = new BatchSequence(new Qwen3Forward(model, caches[s], rotary, workspace), contextLength);
            promptIds = Own(device.Allocate<int>(workspace.MaxTokens));
            promptPosition = Own(device.Allocate<int>(1));
            decoder = Own(new Qwen3BatchDecoder(stream, forward, sequences, config.VocabSize));
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The weights.</summary>
    public Qwen3Moe Model { get; }

    /// <summary>How many sequences there are, running or not.</summary>
    public int Sequences { get; }

    /// <summary>Positions of each sequence's KV cache.</summary>
    public int ContextLength { get; }

    /// <summary>The tokens of a sequence: what was prefilled and what was drawn, but for the token drawn last.</summary>
    /// <param name="sequence">0 to <see cref="Sequences"/> − 1.</param>
    /// <exception cref="ArgumentOutOfRangeException">There is no such sequence.</exception>
    public IReadOnlyList<int> Tokens(int sequence) => Get(sequence).Tokens;

    /// <summary>Whether <see cref="Next"/> draws a token of the sequence.</summary>
    /// <param name="sequence">0 to <see cref="Sequences"/> − 1.</param>
    /// <exception cref="ArgumentOutOfRangeException">There is no such sequence.</exception>
    public bool IsRunning(int sequence) => Get(sequence).IsRunning;

    /// <summary>Whether the sequence has drawn the last token that its context has room for: it must stop or be truncated before the next step.</summary>
    /// <param name="sequence">0 to <see cref="Sequences"/> − 1.</param>
    /// <exception cref="ArgumentOutOfRangeException">There is no such sequence.</exception>
    public bool IsFull(int sequence) => Get(sequence).NextPosition == ContextLength;

    /// <summary>
    /// Appends tokens to a sequence, which runs from then on; a token drawn before is not appended. The others stay as they are. The last token's logits are
    /// computed by the next step, together with those of the others.
    /// </summary>
    /// <param name="sequence">0 to <see cref="Sequences"/> − 1.</param>
    /// <param name="ids">Token ids, at least one.</param>
    /// <param name="cancellation">Stops between parts; the sequence then holds the parts that were done and does not run.</param>
    /// <exception cref="ArgumentException">There is no such sequence, no ids, an id outside the vocabulary, or more than the context holds. Nothing changes then.</exception>
    public void Prefill(int sequence, ReadOnlySpan<int> ids, CancellationToken cancellation = default)
    {
        BatchSequence own = Get(sequence);
        RequireIds(own, ids);
        Halt(own);
        // A token that was prefilled last and has had no step yet goes first.
        int[] all = [.. own.Tokens.Skip(own.Cached), .. ids];
        own.Tokens.RemoveRange(own.Cached, own.Tokens.Count - own.Cached);
        promptPosition.CopyFrom(stream, [own.Cached]);
        for (int first = 0; first < all.Length - 1; first += workspace.MaxTokens)
        {
            cancellation.ThrowIfCancellationRequested();
            int count = Math.Min(workspace.MaxTokens, all.Length - 1 - first);
            ReadOnlySpan<int> part = all.AsSpan(first, count);
            promptIds.CopyFrom(stream, part);
            own.Forward.Run(stream, promptIds, promptPosition, count, 0);
            DeviceCounter.Advance(stream, promptPosition, count);
            own.Tokens.AddRange(part);
            own.Cached += count;
        }
        own.Tokens.Add(all[^1]);
        own.IsRunning = true;
    }

    /// <summary>Sets how the next tokens of a sequence are drawn and restarts its random numbers. Holds until it is called again, whatever else happens to the sequence; at first: greedy.</summary>
    /// <param name="sequence">0 to <see cref="Sequences"/> − 1.</param>
    /// <param name="options">How to draw.</param>
    /// <param name="seen">Tokens that the repetition penalty applies to from the start; usually the prompt.</param>
    /// <exception cref="ArgumentOutOfRangeException">There is no such sequence, or an option is out of range.</exception>
    public void StartSampling(int sequence, SamplingOptions options, ReadOnlySpan<int> seen)
    {
        _ = Get(sequence);
        decoder.Start(sequence, options, seen);
        changed = true;
    }

    /// <summary>Draws the next token of every running sequence, after appending the one drawn before. On a card one replayed graph.</summary>
    /// <param name="tokens">One place a sequence: its token, or <see cref="NoToken"/> where it does not run.</param>
    /// <exception cref="ArgumentException">There are not as many places as sequences.</exception>
    /// <exception cref="InvalidOperationException">No sequence runs, or the context of a running one is full. Nothing changes then.</exception>
    public void Next(Span<int> tokens)
    {
        ObjectDisposedException.ThrowIf(owned.Count == 0, this);
        if (tokens.Length != Sequences)
            throw new ArgumentException($"There are {tokens.Length} places for the tokens of {Sequences} sequences.", nameof(tokens));
        bool mayRunAhead = RequireRoom();
        if (changed)
            SetStep();
        ReadOnlySpan<int> drawn = decoder.Step(mayRunAhead);
        for (int s = 0; s < Sequences; s++)
        {
            BatchSequence own = sequences[s];
            tokens[s] = own.IsRunning ? drawn[s] : NoToken;
            if (!own.IsRunning)
                continue;
            own.Append(drawn[s]);
            decoder.Count(s);
        }
    }

    /// <summary>Lets a sequence draw no more tokens until the next prefill; its cache stays, without the token drawn last. A sequence that does not run costs next to nothing.</summary>
    /// <param name="sequence">0 to <see cref="Sequences"/> − 1.</param>
    /// <exception cref="ArgumentOutOfRangeException">There is no such sequence.</exception>
    public void Stop(int sequence) => Halt(Get(sequence));

    /// <summary>Stops a sequence and forgets all but its first tokens: none for a new prompt.</summary>
    /// <param name="sequence">0 to <see cref="Sequences"/> − 1.</param>
    /// <param name="length">Tokens to keep, at most those in its cache.</param>
    /// <exception cref="ArgumentOutOfRangeException">There is no such sequence, or it has not so many tokens.</exception>
    public void Truncate(int sequence, int length)
    {
        BatchSequence own = Get(sequence);
        if (length < 0 || length > own.Tokens.Count)
            throw new ArgumentOutOfRangeException(nameof(length), length, $"Sequence {sequence} holds {own.Tokens.Count} tokens.");
        Halt(own);
        own.Tokens.RemoveRange(length, own.Tokens.Count - length);
        own.Cached = Math.Min(own.Cached, length);
    }

    /// <summary>Returns the batch's memory.</summary>
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
        for (int i = owned.Count - 1; i >= 0; i--)
            owned[i].Dispose();
        owned.Clear();
    }

    // Beyond 15 rows products that do not stream run in tiles on a card, with other bits than those of fewer rows.
    internal static int MostFor(Qwen3Moe model) =>
        !model.Device.IsCuda || (Linear.Streams(model.Head) && model.Layers.All(Streams)) ? MostSequences : MostSequences - 1;

    private static bool Streams(Qwen3Layer layer)
    {
        IEnumerable<QuantizedMatrix> products = layer.QueryKeyValue.Matrices.Concat(layer.Output.Matrices);
        products = layer.Router is { } router ? products.Append(router) : products.Concat(layer.GateUp.Matrices).Concat(layer.Down.Matrices);
        return products.All(Linear.Streams) && (layer.Router is null || (layer.Experts is { } experts && ExpertMlp.Exists(experts.GateUp.Device, experts)));
    }

    private BatchSequence Get(int sequence)
    {
        ObjectDisposedException.ThrowIf(owned.Count == 0, this);
        return (uint)sequence < (uint)Sequences
            ? sequences[sequence]
            : throw new ArgumentOutOfRangeException(nameof(sequence), sequence, $"The batch has the sequences 0 to {Sequences - 1}.");
    }

    private void Halt(BatchSequence own)
    {
        decoder.Abandon();
        own.IsRunning = false;
        own.Pending = null;
        changed = true;
    }

    // Whether the step after the next has room as well.
    private bool RequireRoom()
    {
        bool runs = false, ahead = true;
        for (int s = 0; s < Sequences; s++)
        {
            BatchSequence own = sequences[s];
            if (!own.IsRunning)
                continue;
            runs = true;
            if (own.NextPosition == ContextLength)
                throw new InvalidOperationException($"The context of {ContextLength} tokens of sequence {s} is full: stop or truncate it.");
            ahead &= own.NextPosition + 1 < ContextLength;
        }
        return runs ? ahead : throw new InvalidOperationException("No sequence runs: prefill at least one token of one first.");
    }

    private void SetStep()
    {
        decoder.Abandon();
        for (int s = 0; s < Sequences; s++)
        {
            BatchSequence own = sequences[s];
            nextTokens[s] = own.IsRunning ? own.NextToken : 0;
            nextPositions[s] = own.IsRunning ? own.NextPosition : NoToken;
        }
        decoder.Set(nextTokens, nextPositions);
        changed = false;
    }

    private void RequireIds(BatchSequence own, ReadOnlySpan<int> ids)
    {
        if (ids.IsEmpty)
            throw new ArgumentException("There must be at least one token.", nameof(ids));
        foreach (int id in ids)
            if ((uint)id >= (uint)Model.Config.VocabSize)
                throw new ArgumentException($"Token {id} is outside the vocabulary of {Model.Config.VocabSize}.", nameof(ids));
        if (ids.Length > ContextLength - own.Tokens.Count)
            throw new ArgumentException($"{ids.Length} tokens do not fit: the context holds {ContextLength}, of which {own.Tokens.Count} are used.", nameof(ids));
    }

    private T Own<T>(T resource)
        where T : IDisposable
    {
        owned.Add(resource);
        return resource;
    }
}
