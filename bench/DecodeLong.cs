using System.Diagnostics;
using System.Globalization;
using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Bench;

/// <summary>
/// Many tokens in one unbroken run, greedy, batch 1: memory must stay as it is, and the last tokens must take what tokens at their positions take in a
/// sequence that begins there. A token costs more the longer the context is, so first and last ones cannot be compared with each other.
/// </summary>
internal static class DecodeLong
{
    private const int MostWindow = 1000;
    private const long MostHeapGrowth = 1 << 20;
    private const double MostSlowdown = 1.05;

    /// <summary>Runs from one context on.</summary>
    /// <param name="device">Where.</param>
    /// <param name="options">Model, tokens, context.</param>
    /// <param name="grew">How many of device bytes, managed heap and time grew more than they may.</param>
    public static IReadOnlyList<ResultRecord> Run(GpuDevice device, BenchOptions options, out int grew)
    {
        using Qwen3Moe model = DecodeContexts.Load(device, options.Model, out string name);
        int context = options.Contexts.FirstOrDefault(DecodeContexts.DefaultContext), window = Math.Clamp(options.Tokens / 4, 1, MostWindow);
        using var session = new Qwen3Session(model, context + options.Tokens + 8, options.KvCache);
        DecodeContexts.Begin(session, context);
        (long deviceBytes, long heap, long most) = (Held(device), Heap(), 0);
        var times = new List<double>();
        long allocated = GC.GetAllocatedBytesForCurrentThread();
        for (int done = 0; done < options.Tokens; done += window)
        {
            times.Add(Time(session, Math.Min(window, options.Tokens - done)));
            most = Math.Max(most, Held(device) - deviceBytes);
        }
        allocated = (GC.GetAllocatedBytesForCurrentThread() - allocated) / options.Tokens;
        long heapGrowth = Heap() - heap;
        int length = session.Tokens.Count, last = options.Tokens % window == 0 ? window : options.Tokens % window;
        // The same positions, begun anew.
        DecodeContexts.Begin(session, length - last - 1);
        double fresh = Time(session, last);
        Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{options.Tokens} tokens to a context of {length}: the first {window} {times[0]:F1} us a token, the last {last} {times[^1]:F1}, begun there {fresh:F1}; device bytes +{most}, managed heap {heapGrowth:+0;-0;0}, {allocated} managed bytes a token"));
        grew = (most != 0 ? 1 : 0) + (heapGrowth > MostHeapGrowth ? 1 : 0) + (times[^1] > MostSlowdown * fresh ? 1 : 0);
        return
        [
            new ResultRecord
            {
                Bench = "decode",
                KvCache = ResultRecord.NameOf(options.KvCache),
                Path = "long run",
                Model = name,
                Batch = 1,
                Context = length,
                Total = options.Tokens,
                Us = Math.Round(times.Average(), 2),
                UsFirst = Math.Round(times[0], 2),
                UsLast = Math.Round(times[^1], 2),
                UsFresh = Math.Round(fresh, 2),
                AllocatedBytes = allocated,
                DeviceBytes = Held(device),
                DeviceBytesGrowth = most,
                HeapBytes = heap + heapGrowth,
                HeapBytesGrowth = heapGrowth,
                Device = device.Name,
                Driver = ResultRecord.DriverOf(device),
            },
        ];
    }

    private static long Held(GpuDevice device) => device.Ledger.LiveBytes + device.Ledger.ScratchBytes;

    private static double Time(Qwen3Session session, int tokens)
    {
        long start = Stopwatch.GetTimestamp();
        for (int i = 0; i < tokens; i++)
            _ = session.Next();
        return Stopwatch.GetElapsedTime(start).TotalMicroseconds / tokens;
    }

    private static long Heap()
    {
        GC.Collect();
        GC.WaitForPendingFinalizers();
        return GC.GetTotalMemory(true);
    }
}
