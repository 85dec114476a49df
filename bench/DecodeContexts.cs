using System.Diagnostics;
using System.Globalization;
using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Bench;

/// <summary>
/// Decoding from contexts of given lengths, greedy, batch 1, of a model with or without files. The cache is filled with random
/// keys and values: their contents do not change what a step costs.
/// </summary>
internal static class DecodeContexts
{
    internal const int DefaultContext = 128;
    private const int WarmUps = 3;

    public static IReadOnlyList<ResultRecord> Run(GpuDevice device, BenchOptions options)
    {
        using Qwen3Moe model = Load(device, options.Model, out string name);
        double? read = device.IsCuda ? ReadBandwidth.Measure(device.DefaultStream) : null;
        var template = new ResultRecord
        {
            Bench = "decode",
            KvCache = ResultRecord.NameOf(options.KvCache),
            Model = name,
            Batch = 1,
            ReadGbps = read is { } r ? Math.Round(r, 1) : null,
            Device = device.Name,
            Driver = ResultRecord.DriverOf(device),
        };
        var results = new List<ResultRecord>();
        foreach (int context in options.Contexts.DefaultIfEmpty(DefaultContext))
        {
            // Room for the tokens of every run and of the replays.
            using var session = new Qwen3Session(model, context + options.Tokens + 64, options.KvCache);
            ResultRecord record = template with { Context = context };
            results.Add(TimeTokens(session, options, context, record));
            if (device.IsCuda)
                results.Add(TimeReplays(session, record));
            if (Environment.GetEnvironmentVariable("GPUKIT_STAMPS") is { } file)
            {
                long[] all = StampSink.Read(session.Stream);
                session.Stream.Synchronize();
                File.WriteAllBytes(file, System.Runtime.InteropServices.MemoryMarshal.AsBytes<long>(all).ToArray());
            }
            if (options.Kernels && device.IsCuda)
                results.AddRange(DecodeKernels.Run(session.Stream, session.StepDirectly, record));
        }
        return results;
    }

    /// <summary>Loads a folder, or makes the model that a synthetic name stands for.</summary>
    public static Qwen3Moe Load(GpuDevice device, string text, out string name)
    {
        long start = Stopwatch.GetTimestamp();
        bool synthetic = text.StartsWith(SyntheticSpec.Prefix, StringComparison.Ordinal);
        name = synthetic ? text : Path.GetFileName(Path.TrimEndingDirectorySeparator(text));
        Qwen3Moe model = synthetic && SyntheticSpec.Parse(text) is { } spec ? Qwen3Moe.Synthesize(device, spec.Config, spec.Seed) : Qwen3Moe.Load(device, text);
        Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{name}: {model.WeightBytes / 1e9:F2} GB in {Stopwatch.GetElapsedTime(start).TotalSeconds:F1} s"));
        return model;
    }

    /// <summary>What a program sees: one call a token.</summary>
    private static ResultRecord TimeTokens(Qwen3Session session, BenchOptions options, int context, ResultRecord template)
    {
        var times = new List<double>();
        long allocated = 0;
        for (int run = 0; run <= options.Runs; run++)
        {
            Begin(session, context);
            long before = GC.GetAllocatedBytesForCurrentThread(), start = Stopwatch.GetTimestamp();
            for (int i = 0; i < options.Tokens; i++)
                _ = session.Next();
            double us = Stopwatch.GetElapsedTime(start).TotalMicroseconds / options.Tokens;
            allocated = (GC.GetAllocatedBytesForCurrentThread() - before) / options.Tokens;
            if (run > 0)
                times.Add(us);
        }
        times.Sort();
        double median = times[times.Count / 2];
        Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"context {context}: {median:F1} us a token, {1e6 / median:F1} tokens/s"));
        return template with
        {
            Path = nameof(Qwen3Session),
            Us = Math.Round(median, 2),
            UsMin = Math.Round(times[0], 2),
            UsMax = Math.Round(times[^1], 2),
            TokensPerS = Math.Round(1e6 / median, 1),
            AllocatedBytes = allocated,
        };
    }

    /// <summary>The card alone: replays of the recorded step one behind the other.</summary>
    private static ResultRecord TimeReplays(Qwen3Session session, ResultRecord template)
    {
        const int Replays = 8;
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
        times.Sort();
        double median = times[times.Count / 2];
        Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"context {template.Context}: {median:F1} us a replayed step, {1e6 / median:F1} steps/s"));
        return template with { Path = "replays", Us = Math.Round(median, 2), UsMin = Math.Round(times[0], 2), UsMax = Math.Round(times[^1], 2), TokensPerS = Math.Round(1e6 / median, 1) };
    }

    /// <summary>Two draws: the first from the prompt's logits, the second records the step.</summary>
    public static void Begin(Qwen3Session session, int context)
    {
        session.Pretend(context - 1);
        session.Prefill([1]);
        _ = session.Next();
        _ = session.Next();
        session.Stream.Synchronize();
    }
}
