using System.Diagnostics;
using System.Globalization;
using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Bench;

/// <summary>
/// Decoding several sequences together, greedy, from contexts of a given length. Caches are filled with random keys and values, each sequence's with its own, and
/// each has another last token of its prompt, so that sequences choose experts of their own.
/// </summary>
internal static class DecodeBatches
{
    private const int WarmUps = 3, Replays = 8;

    public static IReadOnlyList<ResultRecord> Run(GpuDevice device, BenchOptions options)
    {
        using Qwen3Moe model = DecodeContexts.Load(device, options.Model, out string name);
        double? read = device.IsCuda ? ReadBandwidth.Measure(device.DefaultStream) : null;
        var results = new List<ResultRecord>();
        foreach (int context in options.Contexts.DefaultIfEmpty(DecodeContexts.DefaultContext))
            foreach (int batch in options.Batches)
            {
                // Room for the tokens of a run and of the replays.
                using var session = new Qwen3BatchSession(model, batch, context + options.Tokens + 64, options.KvCache);
                Begin(session, context);
                double distinct = DistinctExperts(session);
                long bytes = StepBytes(model, batch, context, distinct, options.KvCache);
                var template = new ResultRecord
                {
                    Bench = "decode",
                    KvCache = ResultRecord.NameOf(options.KvCache),
                    Model = name,
                    Batch = batch,
                    Context = context,
                    DistinctExperts = Math.Round(distinct, 2),
                    StepBytes = bytes,
                    ReadGbps = read is { } r ? Math.Round(r, 1) : null,
                    FloorUs = read is { } rate ? Math.Round(bytes / rate / 1000, 1) : null,
                    Device = device.Name,
                    Driver = ResultRecord.DriverOf(device),
                };
                results.Add(TimeTokens(session, options, template));
                if (device.IsCuda)
                    results.Add(TimeReplays(session, template));
                if (options.Kernels && device.IsCuda)
                {
                    Begin(session, context);
                    results.AddRange(DecodeKernels.Run(session.Stream, session.StepDirectly, template));
                }
            }
        return results;
    }

    // A first step records the graph and leaves each sequence with a drawn token.
    private static void Begin(Qwen3BatchSession session, int context)
    {
        for (int s = 0; s < session.Sequences; s++)
        {
            session.Pretend(s, context - 1);
            session.Prefill(s, [(1 + (7919 * s)) % session.Model.Config.VocabSize]);
        }
        session.Next(new int[session.Sequences]);
        session.Stream.Synchronize();
    }

    /// <summary>What a program sees: one call a step.</summary>
    private static ResultRecord TimeTokens(Qwen3BatchSession session, BenchOptions options, ResultRecord template)
    {
        var tokens = new int[session.Sequences];
        var times = new List<double>();
        long allocated = 0;
        for (int run = 0; run <= options.Runs; run++)
        {
            Begin(session, template.Context!.Value);
            long before = GC.GetAllocatedBytesForCurrentThread(), start = Stopwatch.GetTimestamp();
            for (int i = 0; i < options.Tokens; i++)
                session.Next(tokens);
            double us = Stopwatch.GetElapsedTime(start).TotalMicroseconds / options.Tokens;
            allocated = (GC.GetAllocatedBytesForCurrentThread() - before) / options.Tokens;
            if (run > 0)
                times.Add(us);
        }
        return Record(template with { Path = nameof(Qwen3BatchSession), AllocatedBytes = allocated }, times);
    }

    /// <summary>The card alone: replays of the recorded step one behind the other.</summary>
    private static ResultRecord TimeReplays(Qwen3BatchSession session, ResultRecord template)
    {
        GpuDevice device = session.Model.Device;
        using GpuEvent start = device.CreateEvent(), end = device.CreateEvent();
        var times = new List<double>();
        for (int run = 0; run < WarmUps + 5; run++)
        {
            Begin(session, template.Context!.Value);
            start.Record(session.Stream);
            for (int i = 0; i < Replays; i++)
                session.ReplayStep();
            end.Record(session.Stream);
            end.Synchronize();
            if (run >= WarmUps)
                times.Add(end.MillisecondsSince(start) * 1000 / Replays);
        }
        return Record(template with { Path = ReportBatch.Replays }, times);
    }

    private static ResultRecord Record(ResultRecord template, List<double> times)
    {
        times.Sort();
        double median = times[times.Count / 2], rate = 1e6 * template.Batch!.Value / median;
        Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{template.Path}, context {template.Context}, batch {template.Batch}: {median:F1} us a step, {rate:F0} tokens/s; {template.DistinctExperts:F1} experts a layer, {template.StepBytes / 1e9:F2} GB, floor {template.FloorUs:F0} us"));
        return template with { Us = Math.Round(median, 2), UsMin = Math.Round(times[0], 2), UsMax = Math.Round(times[^1], 2), TokensPerS = Math.Round(rate, 1) };
    }

    // From the router logits of one more step: a token chooses those with the largest.
    private static double DistinctExperts(Qwen3BatchSession session)
    {
        Qwen3MoeConfig config = session.Model.Config;
        var counts = new List<int>();
        session.ObserveRouters((_, logits) => counts.Add(logits.Chunk(config.Experts)
            .SelectMany(row => Enumerable.Range(0, row.Length).OrderByDescending(e => row[e]).Take(config.ExpertsPerToken)).Distinct().Count()));
        session.StepDirectly();
        session.ObserveRouters(null);
        session.Stream.Synchronize();
        return counts.Count == 0 ? 0 : counts.Average();
    }

    // The embedding is a few rows; tied to the head it is read there.
    private static long StepBytes(Qwen3Moe model, int batch, int context, double distinct, KvCacheFormat format)
    {
        Qwen3MoeConfig config = model.Config;
        double bytes = model.Head.Bytes;
        foreach (Qwen3Layer layer in model.Layers)
        {
            double share = layer.Router is null ? 1 : distinct / config.Experts;
            bytes += layer.QueryKeyValue.Bytes + layer.Output.Bytes + (layer.Router?.Bytes ?? 0) + (share * (layer.GateUp.Bytes + layer.Down.Bytes));
        }
        // A key and a value, in FP8 with a scale each.
        long row = format == KvCacheFormat.Fp8 ? 2 * (config.HeadDim + 4L) : 4L * config.HeadDim;
        return (long)bytes + (row * batch * context * config.Layers * config.KeyValueHeads);
    }
}
