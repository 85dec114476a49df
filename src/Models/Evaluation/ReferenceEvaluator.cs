namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Compares a network with a reference file: logits of every position, the routers' choices and greedy continuations. Works
/// on token ids and needs no tokenizer.
/// </summary>
/// <remarks>
/// The file is a safetensors file with, for each prompt i (numbers may have gaps), <c>prompti.input_ids</c> I32 [tokens],
/// <c>prompti.logits</c> F32 [tokens, vocabulary] and optionally <c>prompti.routerL.logits</c> F32 [tokens, experts] of layer L
/// and <c>prompti.greedy</c> I32: the most likely continuation up to a stop token.
/// </remarks>
public static class ReferenceEvaluator
{
    /// <summary>Runs every prompt of a reference file.</summary>
    /// <param name="model">The network; one session of it is used.</param>
    /// <param name="file">The reference.</param>
    /// <param name="options">The bar and progress.</param>
    /// <param name="cancellation">Stops between parts of a prompt and between generated tokens.</param>
    /// <exception cref="ModelFileException">The file is missing or malformed, or not one of this network; the tensor is named.</exception>
    /// <exception cref="GpuException">Device memory is exhausted.</exception>
    /// <exception cref="OperationCanceledException">The evaluation was cancelled.</exception>
    public static ReferenceReport Evaluate(Qwen3Moe model, string file, ReferenceOptions? options = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        options ??= new ReferenceOptions();
        using ReferenceFile reference = ReferenceFile.Open(file, model.Config);
        IReadOnlyList<PromptEvaluation> results = options.Path == EvaluationPath.Batch
            ? BatchEvaluation.Run(model, reference, options, cancellation)
            : RunAlone(model, reference, options, cancellation);
        return new ReferenceReport(options.MinCosine, results);
    }

    /// <summary>What a prompt's comparison gave.</summary>
    internal static PromptEvaluation Result(ReferencePrompt prompt, LogitComparison logits) => new()
    {
        Prompt = prompt.Number,
        Tokens = prompt.Ids.Length,
        RelativeError = logits.RelativeError,
        Cosine = logits.Cosine,
        WorstCosine = logits.WorstCosine,
        WorstPosition = logits.WorstPosition,
        TopOneAgreement = logits.TopOneAgreement,
    };

    private static List<PromptEvaluation> RunAlone(Qwen3Moe model, ReferenceFile reference, ReferenceOptions options, CancellationToken cancellation)
    {
        IReadOnlySet<int> stops = options.StopTokenIds ?? model.Config.EosTokenIds.ToHashSet();
        using var session = new Qwen3Session(model, reference.Prompts.Max(p => p.Positions), options.KvCache);
        var results = new List<PromptEvaluation>();
        foreach (ReferencePrompt prompt in reference.Prompts)
        {
            PromptEvaluation result = Compare(session, reference, prompt, options, cancellation);
            results.Add(result with { Greedy = prompt.Greedy is null ? null : Continue(session, prompt, stops, cancellation) });
            options.Progress?.Report(new EvaluationProgress(results.Count, reference.Prompts.Count, $"prompt {prompt.Number}"));
        }
        return results;
    }

    private static PromptEvaluation Compare(Qwen3Session session, ReferenceFile reference, ReferencePrompt prompt, ReferenceOptions options, CancellationToken cancellation)
    {
        int vocabulary = session.Model.Config.VocabSize;
        var logits = new LogitComparison();
        session.Truncate(0);
        if (options.Path == EvaluationPath.Decode)
        {
            session.StepWithLogits(prompt.Ids, Add, cancellation);
            return Result(prompt, logits);
        }
        session.PrefillWithLogits(prompt.Ids, Add, cancellation);
        // Once more for the routers: what they choose by a hair is settled as the reference has it, which must not help the logits.
        var routers = new RouterComparison(reference, prompt, session.Model.Config, options.RouterMargin);
        if (prompt.Routers.Count > 0)
            session.PrefillAdjusting(prompt.Ids, routers.Settle, cancellation);
        return Result(prompt, logits) with { RouterAgreement = routers.Agreement, RouterMisses = routers.Misses, WorstRouterChoice = routers.Worst };

        void Add(ReadOnlyMemory<float> part)
        {
            for (int row = 0; row < part.Length / vocabulary; row++)
                logits.AddPosition(part.Span.Slice(row * vocabulary, vocabulary), reference.Row(prompt.Logits, logits.Positions));
        }
    }

    // Prefilled anew, so that the continuation starts from the cache that a generation would have.
    private static GreedyComparison Continue(Qwen3Session session, ReferencePrompt prompt, IReadOnlySet<int> stops, CancellationToken cancellation)
    {
        session.Truncate(0);
        session.Prefill(prompt.Ids, cancellation);
        session.StartSampling(SamplingOptions.Greedy, []);
        var ids = new List<int>();
        while (ids.Count < prompt.Greedy!.Length)
        {
            cancellation.ThrowIfCancellationRequested();
            ids.Add(session.Next());
            if (stops.Contains(ids[^1]))
                break;
        }
        return new GreedyComparison(prompt.Greedy, ids);
    }
}
