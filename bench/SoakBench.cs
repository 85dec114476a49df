using System.Diagnostics;
using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Bench;

/// <summary>
/// A model in use for minutes: prompts of all lengths, answers cut off after a random token, conversations, fresh generators. What it shows is what must not grow: device
/// bytes with one generator alive, the managed heap after a full collection, the time of a token.
/// </summary>
internal sealed class SoakBench : IDisposable
{
    // Everything has been loaded and every buffer of the runtime has its size by then.
    private const double WarmUpSeconds = 20;
    private const int MostAnswer = 64, MostTurns = 6, SplitPrompt = 32;
    private const long MostHeapGrowth = 1 << 20;

    private readonly GpuDevice device;
    private readonly LanguageModel model;
    private readonly Random random = new(1);
    private readonly List<double> tokenUs = [];
    private TextGenerator generator;
    private int operations, cancelled, turns;

    private SoakBench(GpuDevice device, LanguageModel model)
    {
        (this.device, this.model) = (device, model);
        generator = new TextGenerator(model);
    }

    private readonly record struct Reading(double Seconds, long DeviceBytes, long Buffers, long Heap, int Kernels);

    /// <summary>Runs for the minutes that the options name.</summary>
    /// <param name="options">Device, model, minutes.</param>
    /// <param name="grew">How many of device bytes, buffers and managed heap grew more than they may.</param>
    public static IReadOnlyList<ResultRecord> Run(BenchOptions options, out int grew)
    {
        using GpuDevice device = options.OpenDevice();
        Console.Error.WriteLine($"{device.Name}: {device.Choice}");
        using LanguageModel model = LanguageModel.Load(device, options.Model);
        using var soak = new SoakBench(device, model);
        return [soak.Run(options.Minutes * 60.0, Path.GetFileName(Path.TrimEndingDirectorySeparator(options.Model)), out grew)];
    }

    public void Dispose() => generator.Dispose();

    private ResultRecord Run(double seconds, string name, out int grew)
    {
        var clock = Stopwatch.StartNew();
        Work(clock, Math.Min(WarmUpSeconds, seconds / 4));
        (operations, cancelled, turns) = (0, 0, 0);
        tokenUs.Clear();
        var readings = new List<Reading> { Read(clock) };
        const int Intervals = 12;
        double start = clock.Elapsed.TotalSeconds;
        double[] medians = new double[Intervals];
        for (int i = 0; i < Intervals; i++)
        {
            int before = tokenUs.Count;
            Work(clock, start + ((seconds - start) * (i + 1) / Intervals));
            readings.Add(Read(clock));
            double[] own = [.. tokenUs.Skip(before).Order()];
            medians[i] = Quantile(own, 0.5);
            Reading r = readings[^1];
            Console.Error.WriteLine($"{r.Seconds,6:F0} s: {operations,7} operations ({cancelled} cancelled, {turns} turns), {r.DeviceBytes,13:N0} device bytes in {r.Buffers} buffers, {r.Heap,11:N0} managed, {r.Kernels} kernels, {ThreadPool.ThreadCount} pool threads, a token {medians[i]:F0} µs, p99 {Quantile(own, 0.99):F0} µs");
        }
        long deviceGrowth = readings.Max(r => r.DeviceBytes) - readings[0].DeviceBytes, bufferGrowth = readings.Max(r => r.Buffers) - readings[0].Buffers;
        long heapGrowth = (long)(Slope(readings) * (readings[^1].Seconds - readings[0].Seconds));
        grew = (deviceGrowth != 0 ? 1 : 0) + (bufferGrowth != 0 ? 1 : 0) + (heapGrowth > MostHeapGrowth ? 1 : 0);
        double[] all = [.. tokenUs.Order()];
        return new ResultRecord
        {
            Bench = "soak",
            Model = name,
            Seconds = Math.Round(readings[^1].Seconds - readings[0].Seconds),
            Total = operations,
            Cancelled = cancelled,
            Us = Math.Round(Quantile(all, 0.5), 1),
            UsP99 = Math.Round(Quantile(all, 0.99), 1),
            UsMin = Math.Round(medians.Min(), 1),
            UsMax = Math.Round(medians.Max(), 1),
            DeviceBytes = readings[^1].DeviceBytes,
            DeviceBytesGrowth = deviceGrowth,
            HeapBytes = readings[^1].Heap,
            HeapBytesGrowth = heapGrowth,
            Device = device.Name,
            Driver = ResultRecord.DriverOf(device),
        };
    }

    private void Work(Stopwatch clock, double until)
    {
        while (clock.Elapsed.TotalSeconds < until)
        {
            operations++;
            switch (random.Next(8))
            {
                case 0:
                    Converse().GetAwaiter().GetResult();
                    break;
                case 1:
                    // A generator of another size: its memory goes back.
                    generator.Dispose();
                    using (var small = new TextGenerator(model, random.Next(2, 256)))
                        Answer(small, small.ContextLength - 1, null).GetAwaiter().GetResult();
                    generator = new TextGenerator(model);
                    break;
                case 2 or 3:
                    Answer(generator, random.Next(1, 64), random.Next(0, 16)).GetAwaiter().GetResult();
                    break;
                default:
                    Answer(generator, Length(), null).GetAwaiter().GetResult();
                    break;
            }
        }
    }

    // Most prompts are short, some fill the context.
    private int Length() => 1 + (int)((generator.ContextLength - 2) * Math.Pow(random.NextDouble(), 4));

    // Cancelled before it begins at 0, else when so many pieces of text have come.
    private async Task Answer(TextGenerator on, int length, int? cancelAfter)
    {
        int[] prompt = [.. Enumerable.Range(0, length).Select(_ => random.Next(model.Tokenizer.VocabularySize))];
        var options = new GenerationOptions { MaxTokens = random.Next(1, MostAnswer), Sampling = model.DefaultSampling((ulong)operations) };
        using var cancellation = new CancellationTokenSource();
        if (cancelAfter == 0)
            cancellation.Cancel();
        int pieces = 0;
        try
        {
            await foreach (string _ in on.GenerateAsync(prompt, options, cancellation.Token).ConfigureAwait(false))
                if (++pieces == cancelAfter)
                    cancellation.Cancel();
        }
        catch (OperationCanceledException)
        {
            cancelled++;
            return;
        }
        Note(on);
    }

    private async Task Converse()
    {
        var conversation = new Conversation(model, generator);
        for (int i = random.Next(1, MostTurns); i > 0; i--)
        {
            turns++;
            await foreach (string _ in conversation.AskAsync($"Psalm {random.Next(1, 150)}:{random.Next(1, 20)}", new GenerationOptions { MaxTokens = MostAnswer }).ConfigureAwait(false))
            {
            }
            Note(generator);
        }
    }

    private void Note(TextGenerator on)
    {
        if (on.LastStatistics is { GeneratedTokens: > 1 } statistics)
            tokenUs.Add(statistics.DecodeTime.TotalMicroseconds / statistics.GeneratedTokens);
    }

    private Reading Read(Stopwatch clock)
    {
        // A generator that has had no prompt of this length holds no memory for sums of parts yet.
        Answer(generator, SplitPrompt, null).GetAwaiter().GetResult();
        GC.Collect();
        GC.WaitForPendingFinalizers();
        GC.Collect();
        // The times kept for the quantiles are the bench's own.
        long own = (long)tokenUs.Capacity * sizeof(double);
        return new Reading(clock.Elapsed.TotalSeconds, device.Ledger.LiveBytes + device.Ledger.ScratchBytes, device.Ledger.LiveBuffers, GC.GetTotalMemory(true) - own, device.Kernels.CompiledCount);
    }

    private static double Quantile(double[] sorted, double part) => sorted.Length == 0 ? 0 : sorted[(int)(part * (sorted.Length - 1))];

    // Bytes a second, least squares.
    private static double Slope(List<Reading> readings)
    {
        double time = readings.Average(r => r.Seconds), heap = readings.Average(r => (double)r.Heap);
        return readings.Sum(r => (r.Seconds - time) * (r.Heap - heap)) / readings.Sum(r => (r.Seconds - time) * (r.Seconds - time));
    }
}
