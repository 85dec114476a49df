using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Continues prompts on one session. What a prompt shares with the tokens already in the KV cache is not computed again, so
/// the next turn of a conversation costs only its new tokens. One generation at a time.
/// </summary>
public sealed class TextGenerator : IDisposable
{
    private readonly LanguageModel model;
    private readonly Qwen3Session session;
    private int running;

    /// <summary>Allocates the KV cache and activations.</summary>
    /// <param name="model">The loaded model; must outlive the generator.</param>
    /// <param name="contextLength">Positions of the KV cache; null takes <see cref="LanguageModel.DefaultContextLength"/>.</param>
    /// <param name="kvCache">How the KV cache stores keys and values.</param>
    /// <exception cref="ArgumentOutOfRangeException">The context length is out of range, or the model's heads do not fit the cache's format.</exception>
    /// <exception cref="GpuException">Device memory is exhausted.</exception>
    public TextGenerator(LanguageModel model, int? contextLength = null, KvCacheFormat kvCache = KvCacheFormat.Bf16)
    {
        ArgumentNullException.ThrowIfNull(model);
        this.model = model;
        session = new Qwen3Session(model.Network, contextLength ?? model.DefaultContextLength, kvCache);
    }

    /// <summary>Positions of the KV cache.</summary>
    public int ContextLength => session.ContextLength;

    /// <summary>What the last finished generation took, or null.</summary>
    public GenerationStatistics? LastStatistics { get; private set; }

    /// <summary>
    /// Refuses a prompt that is too long for the context however it is split into tokens. Costs nothing but its length: call it before
    /// tokenising text from outside.
    /// </summary>
    /// <param name="prompt">The text, rendered if it is a conversation.</param>
    /// <exception cref="ArgumentException">The prompt cannot fit.</exception>
    public void RequireRoom(string prompt)
    {
        ArgumentNullException.ThrowIfNull(prompt);
        long least = model.Tokenizer.LeastTokens(prompt);
        if (least > ContextLength)
            throw new ArgumentException($"The prompt has {prompt.Length} characters, which are {least} tokens at least; the context holds {ContextLength}.", nameof(prompt));
    }

    /// <summary>Generates text after a prompt, in pieces as they come.</summary>
    /// <param name="prompt">Token ids of the whole prompt; at least one.</param>
    /// <param name="options">Length, sampling and stops.</param>
    /// <param name="cancellation">Stops within one token; the cache keeps what was computed.</param>
    /// <exception cref="ArgumentException">The prompt is empty, does not fit the context, or an option is out of range.</exception>
    /// <exception cref="InvalidOperationException">A generation is still running.</exception>
    public async IAsyncEnumerable<string> GenerateAsync(IReadOnlyList<int> prompt, GenerationOptions? options = null, [EnumeratorCancellation] CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(prompt);
        options ??= new GenerationOptions();
        ArgumentOutOfRangeException.ThrowIfLessThan(options.MaxTokens, 1, nameof(options.MaxTokens));
        options.Sampling.Validate();
        if (prompt.Count == 0)
            throw new ArgumentException("The prompt is empty; at least one token is needed.", nameof(prompt));
        if (prompt.Count > ContextLength)
            throw new ArgumentException($"The prompt has {prompt.Count} tokens; the context holds {ContextLength}.", nameof(prompt));
        if (Interlocked.Exchange(ref running, 1) != 0)
            throw new InvalidOperationException("A generation is still running on this generator.");
        try
        {
            LastStatistics = null;
            var clock = Stopwatch.StartNew();
            int cached = await Task.Run(() => Prefill(prompt, options.Sampling, cancellation), cancellation).ConfigureAwait(false);
            TimeSpan prefillTime = clock.Elapsed;
            var decoder = model.Tokenizer.CreateStreamingDecoder();
            var filter = new StopTextFilter(options.StopTexts);
            int generated = 0;
            FinishReason? finish = null;
            while (finish is null)
            {
                cancellation.ThrowIfCancellationRequested();
                int id = await Task.Run(session.Next, CancellationToken.None).ConfigureAwait(false);
                generated++;
                bool stop = model.StopTokenIds.Contains(id);
                string text = filter.Append(stop ? decoder.Flush() : decoder.Append(id));
                finish = stop ? FinishReason.Stop
                    : filter.Stopped ? FinishReason.StopText
                    : generated == options.MaxTokens ? FinishReason.MaxTokens
                    : session.Tokens.Count == ContextLength ? FinishReason.ContextFull
                    : null;
                if (finish is not null)
                    text += filter.Append(decoder.Flush()) + filter.Flush();
                if (text.Length > 0)
                    yield return text;
            }
            LastStatistics = new GenerationStatistics(prompt.Count, cached, generated, prefillTime, clock.Elapsed - prefillTime, finish.Value);
        }
        finally
        {
            Volatile.Write(ref running, 0);
        }
    }

    /// <summary>Forgets everything in the KV cache.</summary>
    public void Clear() => session.Truncate(0);

    /// <summary>Returns the memory.</summary>
    public void Dispose() => session.Dispose();

    // Returns how many tokens were in the cache. At least one token is computed, since its logits are needed.
    private int Prefill(IReadOnlyList<int> prompt, SamplingOptions sampling, CancellationToken cancellation)
    {
        int[] ids = [.. prompt];
        int shared = ids.AsSpan().CommonPrefixLength([.. session.Tokens]);
        shared = Math.Min(shared, Math.Max(0, ids.Length - 1));
        session.Truncate(shared);
        session.Prefill(ids.AsSpan(shared), cancellation);
        session.StartSampling(sampling, ids);
        return shared;
    }
}
