using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Bench;

/// <summary>What a layer of experts should give, in double precision from the weights as they are stored: its own router, its own sums.</summary>
internal static class MoeCheck
{
    private const int MostTokens = 8;

    /// <summary>Runs the layer on a residual stream of zeros and compares some tokens, all where they are few.</summary>
    /// <returns>Root of the mean square of the differences, over that of what should be.</returns>
    public static double Error(Qwen3Layer layer, Qwen3MoeConfig config, BFloat16[] inputs, Action run, GpuStream stream, Qwen3Workspace workspace)
    {
        int hidden = config.HiddenSize, tokens = inputs.Length / hidden, step = Math.Max(1, tokens / MostTokens);
        run();
        stream.Synchronize();
        float[] residual = workspace.Residual.ToArray(stream);
        int[] chosen = workspace.Experts.ToArray(stream);
        workspace.Residual.Fill(stream, 0);
        stream.Synchronize();
        float[] router = Quantizer.Dequantize(Host(layer.Router!, 0, stream));
        var expected = new Dictionary<int, double[]>();
        var routes = new List<(int Expert, int Token, double Weight)>();
        for (int token = 0; token < tokens && expected.Count < MostTokens; token += step)
        {
            expected.Add(token, new double[hidden]);
            routes.AddRange(Route(router, config, inputs.AsSpan(token * hidden, hidden), chosen.AsSpan(token * config.ExpertsPerToken, config.ExpertsPerToken)).Select(r => (r.Expert, token, r.Weight)));
        }
        // Each expert's weights are read once.
        foreach (IGrouping<int, (int Expert, int Token, double Weight)> expert in routes.GroupBy(r => r.Expert))
        {
            float[] gateUp = Quantizer.Dequantize(Host(layer.GateUp.Single!, expert.Key, stream)), down = Quantizer.Dequantize(Host(layer.Down.Single!, expert.Key, stream));
            foreach ((_, int token, double weight) in expert)
                AddExpert(gateUp, down, config, inputs.AsSpan(token * hidden, hidden), weight, expected[token]);
        }
        double difference = 0, size = 0;
        foreach ((int token, double[] sums) in expected)
            for (int i = 0; i < hidden; i++)
            {
                difference += Math.Pow(residual[(token * hidden) + i] - sums[i], 2);
                size += sums[i] * sums[i];
            }
        return Math.Sqrt(difference / size);
    }

    // The device's choice where it is one that float32 logits may make; a wrong one counts as no expert at all, and the error shows it.
    private static IEnumerable<(int Expert, double Weight)> Route(float[] router, Qwen3MoeConfig config, ReadOnlySpan<BFloat16> x, ReadOnlySpan<int> chosen)
    {
        var logits = new double[config.Experts];
        for (int e = 0; e < logits.Length; e++)
            logits[e] = Dot(router.AsSpan(e * x.Length, x.Length), x);
        double least = logits.OrderDescending().ElementAt(config.ExpertsPerToken - 1), most = logits.Max();
        double mass = config.NormTopkProb ? 0 : logits.Sum(l => Math.Exp(l - most));
        var kept = new List<int>();
        foreach (int expert in chosen.ToArray().Distinct())
            if ((uint)expert < (uint)logits.Length && logits[expert] >= least - (1e-4 * (1 + Math.Abs(least))))
                kept.Add(expert);
        if (config.NormTopkProb)
            mass = kept.Sum(e => Math.Exp(logits[e] - most));
        return kept.Select(e => (e, Math.Exp(logits[e] - most) / mass));
    }

    private static void AddExpert(float[] gateUp, float[] down, Qwen3MoeConfig config, ReadOnlySpan<BFloat16> x, double weight, double[] sums)
    {
        int width = config.MoeIntermediateSize, hidden = x.Length;
        var activated = new double[width];
        for (int i = 0; i < width; i++)
        {
            double gate = Dot(gateUp.AsSpan(i * hidden, hidden), x), up = Dot(gateUp.AsSpan((width + i) * hidden, hidden), x);
            activated[i] = gate / (1 + Math.Exp(-gate)) * up;
        }
        for (int n = 0; n < hidden; n++)
        {
            double sum = 0;
            for (int i = 0; i < width; i++)
                sum += down[(n * width) + i] * activated[i];
            sums[n] += weight * sum;
        }
    }

    private static double Dot(ReadOnlySpan<float> w, ReadOnlySpan<BFloat16> x)
    {
        double sum = 0;
        for (int i = 0; i < w.Length; i++)
            sum += w[i] * (double)(float)x[i];
        return sum;
    }

    // One matrix of a stack.
    private static HostMatrix Host(QuantizedMatrix stack, int index, GpuStream stream)
    {
        T[] Part<T>(DeviceBuffer<T> all)
            where T : unmanaged
        {
            var part = new T[all.Length / stack.Count];
            all.CopyTo(stream, part, (long)index * part.Length);
            return part;
        }
        return new HostMatrix(stack.Format, stack.N, stack.K, Part(stack.Codes), Part(stack.Scales), stack.Block) { GroupScales = Part(stack.GroupScales), ZeroPoints = Part(stack.ZeroPoints) };
    }
}
