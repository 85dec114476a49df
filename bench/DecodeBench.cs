using System.Diagnostics;
using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Bench;

/// <summary>
/// Tokens a second of one sequence, greedy, prompt excluded. Two paths: what a program sees through
/// <see cref="TextGenerator"/> (text, stop tokens, one task a token), where a run is as many short generations as it takes,
/// and <see cref="Qwen3Session"/> alone, one unbroken sequence whatever the model says.
/// </summary>
internal static class DecodeBench
{
    private const string Prompt = "Psalm 23:1";

    public static IReadOnlyList<ResultRecord> Run(BenchOptions options, out int wrong)
    {
        wrong = 0;
        using GpuDevice device = options.OpenDevice();
        Console.Error.WriteLine($"{device.Name}: {device.Choice}");
        if (options.Long)
            return DecodeLong.Run(device, options, out wrong);
        if (options.Batches.Count > 0)
            return DecodeBatches.Run(device, options);
        if (options.Contexts.Count > 0 || options.Model.StartsWith(SyntheticSpec.Prefix, StringComparison.Ordinal))
            return DecodeContexts.Run(device, options);
        using LanguageModel model = LanguageModel.Load(device, options.Model);
        IReadOnlyList<int> prompt = model.Chat.EncodeChat(model.Tokenizer, [new ChatMessage(ChatRole.User, Prompt)]);
        int context = prompt.Count + options.Tokens;
        var template = new ResultRecord
        {
            Bench = "decode",
            Model = Path.GetFileName(Path.TrimEndingDirectorySeparator(options.Model)),
            Batch = 1,
            Device = device.Name,
            Driver = ResultRecord.DriverOf(device),
        };
        using var generator = new TextGenerator(model, context);
        using var session = new Qwen3Session(model.Network, context);
        return
        [
            Median(options.Runs, () => Generate(generator, prompt, options.Tokens)) with { Path = nameof(TextGenerator) },
            Median(options.Runs, () => Continue(session, prompt, options.Tokens)) with { Path = nameof(Qwen3Session) },
        ];

        ResultRecord Median(int runs, Func<(double Seconds, int Tokens, int Context)> measure)
        {
            _ = measure();
            (double Seconds, int Tokens, int Context)[] all = [.. Enumerable.Range(0, runs).Select(_ => measure()).OrderBy(r => r.Seconds / r.Tokens)];
            (double Seconds, int Tokens, int Context) middle = all[runs / 2];
            return template with
            {
                Context = middle.Context,
                Us = Microseconds(middle),
                UsMin = Microseconds(all[0]),
                UsMax = Microseconds(all[^1]),
                TokensPerS = Math.Round(middle.Tokens / middle.Seconds, 1),
            };
        }
    }

    private static double Microseconds((double Seconds, int Tokens, int Context) run) => Math.Round(run.Seconds / run.Tokens * 1e6, 2);

    // The first token of each generation belongs to the prompt's logits and is not counted.
    private static (double Seconds, int Tokens, int Context) Generate(TextGenerator generator, IReadOnlyList<int> prompt, int wanted)
    {
        double seconds = 0;
        int tokens = 0, longest = 0;
        while (tokens < wanted)
        {
            generator.Clear();
            Drain(generator, prompt, wanted).GetAwaiter().GetResult();
            GenerationStatistics statistics = generator.LastStatistics!;
            if (statistics.GeneratedTokens < 2)
                throw new InvalidOperationException($"The model answers '{Prompt}' with one token: there is nothing to time.");
            tokens += statistics.GeneratedTokens - 1;
            seconds += statistics.DecodeTime.TotalSeconds;
            longest = Math.Max(longest, statistics.PromptTokens + statistics.GeneratedTokens);
        }
        return (seconds, tokens, longest);
    }

    private static async Task Drain(TextGenerator generator, IReadOnlyList<int> prompt, int most)
    {
        await foreach (string _ in generator.GenerateAsync(prompt, new GenerationOptions { MaxTokens = most }).ConfigureAwait(false))
        {
        }
    }

    private static (double Seconds, int Tokens, int Context) Continue(Qwen3Session session, IReadOnlyList<int> prompt, int wanted)
    {
        session.Truncate(0);
        session.Prefill([.. prompt]);
        _ = session.Next();
        var clock = Stopwatch.StartNew();
        for (int i = 0; i < wanted; i++)
            _ = session.Next();
        return (clock.Elapsed.TotalSeconds, wanted, session.Tokens.Count);
    }
}
