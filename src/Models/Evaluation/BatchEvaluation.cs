namespace GpuKit.Ilgpu.Models;

/// <summary>A reference's prompts through the steps of a batch: side by side, token by token, each until its end.</summary>
internal static class BatchEvaluation
{
    /// <summary>Runs every prompt, as many at once as a batch of the model has.</summary>
    public static List<PromptEvaluation> Run(Qwen3Moe model, ReferenceFile reference, ReferenceOptions options, CancellationToken cancellation)
    {
        var results = new List<PromptEvaluation>();
        int sequences = Math.Min(reference.Prompts.Count, Qwen3BatchSession.MostFor(model));
        using var session = new Qwen3BatchSession(model, sequences, reference.Prompts.Max(p => p.Ids.Length), options.KvCache);
        foreach (ReferencePrompt[] together in reference.Prompts.Chunk(sequences))
        {
            results.AddRange(RunTogether(session, reference, together, cancellation));
            options.Progress?.Report(new EvaluationProgress(results.Count, reference.Prompts.Count, $"prompt {together[^1].Number}"));
        }
        return results;
    }

    private static IEnumerable<PromptEvaluation> RunTogether(Qwen3BatchSession session, ReferenceFile reference, ReferencePrompt[] prompts, CancellationToken cancellation)
    {
        LogitComparison[] logits = [.. prompts.Select(_ => new LogitComparison())];
        var ids = new int[session.Sequences];
        for (int s = 0; s < session.Sequences; s++)
            session.Truncate(s, 0);
        for (int position = 0; position < prompts.Max(p => p.Ids.Length); position++)
        {
            cancellation.ThrowIfCancellationRequested();
            Array.Fill(ids, Qwen3BatchSession.NoToken);
            for (int s = 0; s < prompts.Length; s++)
                if (position < prompts[s].Ids.Length)
                    ids[s] = prompts[s].Ids[position];
            session.StepOver(ids);
            for (int s = 0; s < prompts.Length; s++)
                if (ids[s] != Qwen3BatchSession.NoToken)
                    logits[s].AddPosition(session.LastLogits(s), reference.Row(prompts[s].Logits, position));
        }
        return prompts.Zip(logits, ReferenceEvaluator.Result);
    }
}
