using System.Diagnostics;
using System.Globalization;
using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Bench;

/// <summary>
/// One Mixture-of-Experts layer alone, as the model runs it: router, its choice, experts, weighted sum; no norm. Tokens are random, so each goes where it would; a
/// model's layers take turns, so that no expert is found in the cache.
/// </summary>
internal static class MoeBench
{
    private const string DefaultModel = SyntheticSpec.Prefix + "qwen3-30b-a3b,layers=8";
    private const int Seed = 1;

    // Root of the mean square of the difference, over that of the sum: activations are rounded to BF16 twice on the way.
    private const double MostError = 6e-3;

    /// <summary>Times the layer for each number of tokens.</summary>
    /// <param name="options">Device, model, rows.</param>
    /// <param name="wrong">How many results were not what they should be.</param>
    public static IReadOnlyList<ResultRecord> Run(BenchOptions options, out int wrong)
    {
        using GpuDevice device = options.OpenDevice();
        Console.Error.WriteLine($"{device.Name}: {device.Choice}");
        using Qwen3Moe model = DecodeContexts.Load(device, device.IsCuda ? options.ModelOr(DefaultModel) : options.Model, out string name);
        double? read = device.IsCuda ? ReadBandwidth.Measure(device.DefaultStream) : null;
        var results = new List<ResultRecord>();
        wrong = 0;
        foreach (int tokens in options.MoeRows)
        {
            ResultRecord record = Measure(model, tokens, read) with { Model = name };
            bool right = record.RelError <= MostError;
            wrong += right ? 0 : 1;
            results.Add(record);
            Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{tokens} tokens: {record.Us:F1} us, floor {record.FloorUs:F1} us, {record.DistinctExperts:F1} experts, {record.Tflops:F1} TFLOPS, error {record.RelError:E1}{(right ? "" : " WRONG")}"));
        }
        return results;
    }

    private static ResultRecord Measure(Qwen3Moe model, int tokens, double? read)
    {
        GpuDevice device = model.Device;
        Qwen3MoeConfig config = model.Config;
        int[] layers = [.. Enumerable.Range(0, config.Layers).Where(config.IsSparse)];
        if (layers.Length == 0 || model.Layers[layers[0]].Experts is null)
            throw new ArgumentException("The model has no sparse layer whose experts are stored as two stacks.");
        using GpuStream stream = device.CreateStream();
        using var cache = new KvCache(device, config.Layers, config.KeyValueHeads, config.HeadDim, 1);
        using var rotary = new RotaryTable(device, config.HeadDim, 1, config.RopeTheta);
        using var workspace = new Qwen3Workspace(device, config, tokens);
        var forward = new Qwen3Forward(model, cache, rotary, workspace);
        BFloat16[] inputs = Inputs(tokens * config.HiddenSize);
        workspace.Normed.CopyFrom(stream, inputs);
        workspace.Residual.Fill(stream, 0);
        stream.Synchronize();

        void Layer(int turn) => forward.RunExperts(stream, model.Layers[layers[turn]], layers[turn], default, tokens);
        double error = MoeCheck.Error(model.Layers[layers[0]], config, inputs, () => Layer(0), stream, workspace);
        double distinct = Enumerable.Range(0, layers.Length).Average(turn =>
        {
            Layer(turn);
            return (double)workspace.Experts.ToArray(stream).Distinct().Count();
        });
        GpuTime time = device.IsCuda ? GpuTimer.Measure(stream, layers.Length, Layer) : OnHost(stream, Layer);
        if (ExpertMlp.Stamps is { } stamps)
        {
            ulong[] two = stamps.ToArray(stream);
            ulong origin = Enumerable.Range(0, 128).Min(c => two[32768 + (c * 8) + 5]), second = Enumerable.Range(0, 128).Min(c => two[40000 + 32768 + (c * 8) + 5]);
            int late = origin > second ? 0 : 40000;
            ulong zero = Math.Min(origin, second);
            foreach (int at in new[] { 40000 - late, late })
                Console.Error.WriteLine("ns: " + string.Join(" ", new[] { (3, "r-start"), (4, "r-before"), (5, "r-wait"), (6, "r-sum"), (0, "f-start"), (1, "f-choice"), (2, "f-end") }.Select(k =>
                {
                    long[] d = [.. Enumerable.Range(0, 128).Select(c => (long)(two[at + 32768 + (c * 8) + k.Item1] - zero)).Order()];
                    return $"{k.Item2}:{d[0]}/{d[64]}/{d[127]}";
                })));
            ulong[] t = two[late..];
            Console.Error.WriteLine("sms: " + string.Join(" ", Enumerable.Range(0, 128).OrderBy(c => two[late + 32768 + (c * 8) + 3]).Select(c =>
            {
                ulong At(int w, int k) => (t[(((c * 16) + w) * 16) + k] - t[(((c * 16) + 1) * 16) + 2]) / 100;
                return $"{two[late + 32768 + (c * 8) + 3]}/{c}:{Enumerable.Range(0, 16).Max(w => At(w, 5))},{Enumerable.Range(0, 16).Max(w => At(w, 8))},{Enumerable.Range(0, 16).Max(w => At(w, 12))},{At(1, 15)}";
            })));
            foreach (int w in new[] { 0, 1, 5, 15 })
                Console.Error.WriteLine($"warp {w}: " + string.Join(" ", Enumerable.Range(1, 15).Select(k =>
                {
                    long[] d = [.. Enumerable.Range(0, 128).Select(c => (long)(t[(((c * 16) + w) * 16) + k] - t[(c * 256) + 0])).Order()];
                    return $"{k}:{d[6]}/{d[64]}/{d[121]}";
                })));
        }
        Qwen3Layer first = model.Layers[layers[0]];
        double bytes = first.Router!.Bytes + (distinct / config.Experts * (first.GateUp.Bytes + first.Down.Bytes));
        double operations = 2.0 * tokens * config.HiddenSize * (config.Experts + (3.0 * config.ExpertsPerToken * config.MoeIntermediateSize));
        return new ResultRecord
        {
            Bench = "moe",
            Path = forward.PathOf(first, tokens).ToString(),
            Format = first.GateUp.Single!.Format.ToString(),
            M = tokens,
            Us = Math.Round(time.Us, 2),
            UsMin = Math.Round(time.UsMin, 2),
            UsMax = Math.Round(time.UsMax, 2),
            Tflops = Math.Round(operations / time.Us / 1e6, 3),
            Gbps = Math.Round(bytes / time.Us / 1000, 1),
            ReadGbps = read is { } rate ? Math.Round(rate, 1) : null,
            FloorUs = read is { } floor ? Math.Round(bytes / floor / 1000, 2) : null,
            DistinctExperts = Math.Round(distinct, 2),
            // NaN has no place in JSON.
            RelError = double.IsFinite(error) ? error : double.MaxValue,
            Device = device.Name,
            Driver = ResultRecord.DriverOf(device),
        };
    }

    private static GpuTime OnHost(GpuStream stream, Action<int> layer)
    {
        long start = Stopwatch.GetTimestamp();
        layer(0);
        stream.Synchronize();
        double us = Stopwatch.GetElapsedTime(start).TotalMicroseconds;
        return new GpuTime(us, us, us);
    }

    // Sums of twelve uniform numbers: near enough to a normed state's.
    private static BFloat16[] Inputs(int count)
    {
        var random = new Random(Seed);
        var inputs = new BFloat16[count];
        for (int i = 0; i < count; i++)
        {
            double sum = -6;
            for (int j = 0; j < 12; j++)
                sum += random.NextDouble();
            inputs[i] = (BFloat16)(float)sum;
        }
        return inputs;
    }
}
