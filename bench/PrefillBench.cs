using System.Diagnostics;
using System.Globalization;
using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Bench;

/// <summary>
/// Time to the first token of prompts of given lengths, batch 1: the prompt through the network and one token drawn, greedy. Prompts are random token ids,
/// others in every run, so that routing is that of no particular text.
/// </summary>
internal static class PrefillBench
{
    private const int Seed = 1;

    public static IReadOnlyList<ResultRecord> Run(BenchOptions options)
    {
        using GpuDevice device = options.OpenDevice();
        Console.Error.WriteLine($"{device.Name}: {device.Choice}");
        using Qwen3Moe model = DecodeContexts.Load(device, options.Model, out string name);
        var template = new ResultRecord
        {
            Bench = "prefill",
            KvCache = ResultRecord.NameOf(options.KvCache),
            Model = name,
            Batch = 1,
            Device = device.Name,
            Driver = ResultRecord.DriverOf(device),
        };
        var results = new List<ResultRecord>();
        foreach (int tokens in options.Prompts)
        {
            using var session = new Qwen3Session(model, tokens, options.KvCache);
            var random = new Random(Seed + tokens);
            ResultRecord record = Measure(session, random, options.Runs, template with { M = tokens });
            results.Add(record);
            if (options.Kernels && device.IsCuda)
                results.AddRange(PrefillKernels.Run(session, Prompt(random, session), record));
        }
        return results;
    }

    /// <summary>Multiplications and additions of the matrix products: each token's of every layer, those of attention, and the head's of the last token.</summary>
    public static double Operations(Qwen3MoeConfig config, int tokens)
    {
        double hidden = config.HiddenSize, heads = (double)config.QueryHeads * config.HeadDim, keys = (double)config.KeyValueHeads * config.HeadDim;
        double projections = hidden * ((2 * heads) + (2 * keys)), pairs = tokens * (tokens + 1.0) / 2;
        double sparse = (hidden * config.Experts) + (3.0 * config.ExpertsPerToken * hidden * config.MoeIntermediateSize), dense = 3 * hidden * config.IntermediateSize;
        double products = hidden * config.VocabSize;
        for (int layer = 0; layer < config.Layers; layer++)
            products += (tokens * (projections + (config.IsSparse(layer) ? sparse : dense))) + (2 * heads * pairs);
        return 2 * products;
    }

    private static ResultRecord Measure(Qwen3Session session, Random random, int runs, ResultRecord template)
    {
        var times = new List<double>();
        int tokens = template.M!.Value;
        for (int run = 0; run <= runs; run++)
        {
            int[] prompt = Prompt(random, session);
            session.Truncate(0);
            long start = Stopwatch.GetTimestamp();
            session.Prefill(prompt);
            _ = session.Next();
            // The first run warms up.
            if (run > 0)
                times.Add(Stopwatch.GetElapsedTime(start).TotalMicroseconds);
        }
        times.Sort();
        double median = times[times.Count / 2], tflops = Operations(session.Model.Config, tokens) / median / 1e6;
        Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{tokens} tokens: {median / 1000:F2} ms to the first token, {tokens * 1e6 / median:F0} tokens/s, {tflops:F1} TFLOPS"));
        return template with
        {
            Path = nameof(Qwen3Session),
            Us = Math.Round(median, 1),
            UsMin = Math.Round(times[0], 1),
            UsMax = Math.Round(times[^1], 1),
            TokensPerS = Math.Round(tokens * 1e6 / median, 1),
            Tflops = Math.Round(tflops, 3),
        };
    }

    private static int[] Prompt(Random random, Qwen3Session session)
    {
        var prompt = new int[session.ContextLength];
        for (int i = 0; i < prompt.Length; i++)
            prompt[i] = random.Next(session.Model.Config.VocabSize);
        return prompt;
    }
}
