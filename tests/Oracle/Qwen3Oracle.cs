namespace GpuKit.Ilgpu.Tests.Oracle;

/// <summary>
/// The forward pass of a Qwen3-MoE network, written down once more in double precision: one vector a token, one loop a
/// formula, over tensors by their checkpoint names.
/// </summary>
public sealed class Qwen3Oracle(Qwen3Shape shape, IReadOnlyDictionary<string, double[]> weights)
{
    // Rounding activations to BF16 moves router logits by about this much. Experts closer than that may be chosen either way.
    private const double NearTie = 0.08;

    /// <summary>Router logits [layer][token][expert] of the implementation under test: they decide between experts that nearly tie.</summary>
    public IReadOnlyDictionary<int, float[][]> Observed { get; init; } = new Dictionary<int, float[][]>();

    /// <summary>Router logits of the last pass, [layer][token][expert].</summary>
    public Dictionary<int, double[][]> RouterLogits { get; } = [];

    /// <summary>[token][vocabulary] logits after every token.</summary>
    public double[][] Logits(ReadOnlySpan<int> ids)
    {
        double[][] x = [.. ids.ToArray().Select(id => weights["model.embed_tokens.weight"][(id * shape.Hidden)..((id + 1) * shape.Hidden)])];
        for (int layer = 0; layer < shape.Layers; layer++)
        {
            string name = $"model.layers.{layer}.";
            x = Add(x, Attention(name + "self_attn.", Norm(x, name + "input_layernorm.weight")));
            double[][] normed = Norm(x, name + "post_attention_layernorm.weight");
            bool dense = shape.DenseLayers.Contains(layer) || (layer + 1) % shape.SparseStep != 0;
            x = Add(x, dense ? [.. normed.Select(v => GatedMlp(name + "mlp.", v))] : Mixture(layer, name + "mlp.", normed));
        }
        string head = shape.TiedHead ? "model.embed_tokens.weight" : "lm_head.weight";
        return [.. Norm(x, "model.norm.weight").Select(v => Multiply(head, v))];
    }

    private double[][] Attention(string name, double[][] x)
    {
        int d = shape.HeadDim, group = shape.QueryHeads / shape.KeyValueHeads;
        double[][][] queries = [.. x.Select((v, t) => Heads(Multiply(name + "q_proj.weight", v), name + "q_norm.weight", t))];
        double[][][] keys = [.. x.Select((v, t) => Heads(Multiply(name + "k_proj.weight", v), name + "k_norm.weight", t))];
        double[][] values = [.. x.Select(v => Multiply(name + "v_proj.weight", v))];
        return [.. x.Select((_, t) =>
        {
            var attended = new double[shape.QueryHeads * d];
            for (int h = 0; h < shape.QueryHeads; h++)
            {
                double[] p = Softmax([.. Enumerable.Range(0, t + 1).Select(s => Dot(queries[t][h], keys[s][h / group]) / Math.Sqrt(d))]);
                for (int s = 0; s <= t; s++)
                    for (int i = 0; i < d; i++)
                        attended[(h * d) + i] += p[s] * values[s][(h / group * d) + i];
            }
            return Multiply(name + "o_proj.weight", attended);
        })];
    }

    // Splits a row into heads; each is normed, then pairs (i, i + d/2) are turned by position · theta^(−2i/d).
    private double[][] Heads(double[] row, string gain, int position) => [.. row.Chunk(shape.HeadDim).Select(head =>
    {
        double[] v = Norm(head, weights[gain]), turned = new double[v.Length];
        int half = v.Length / 2;
        for (int i = 0; i < half; i++)
        {
            (double sin, double cos) = Math.SinCos(position * Math.Pow(shape.RopeTheta, -2.0 * i / v.Length));
            turned[i] = (v[i] * cos) - (v[i + half] * sin);
            turned[i + half] = (v[i + half] * cos) + (v[i] * sin);
        }
        return turned;
    })];

    private double[][] Mixture(int layer, string name, double[][] x)
    {
        double[][] logits = RouterLogits[layer] = [.. x.Select(v => Multiply(name + "gate.weight", v))];
        return [.. x.Select((v, t) =>
        {
            double[] p = Softmax(logits[t]), sum = new double[shape.Hidden];
            int[] chosen = Choose(logits[t], Observed.TryGetValue(layer, out float[][]? seen) ? seen[t] : null);
            double total = shape.NormTopkProb ? chosen.Sum(e => p[e]) : 1;
            foreach (int e in chosen)
                sum = [.. sum.Zip(GatedMlp($"{name}experts.{e}.", v), (a, b) => a + (p[e] / total * b))];
            return sum;
        })];
    }

    private int[] Choose(double[] logits, float[]? observed)
    {
        int k = shape.ExpertsPerToken;
        int[] order = [.. Enumerable.Range(0, logits.Length).OrderByDescending(e => logits[e]).ThenBy(e => e)];
        if (observed is null || k == logits.Length || logits[order[k - 1]] - logits[order[k]] > NearTie)
            return order[..k];
        double last = logits[order[k - 1]];
        int[] certain = [.. order.Where(e => logits[e] > last + NearTie)];
        return [.. certain, .. order.Where(e => Math.Abs(logits[e] - last) <= NearTie).OrderByDescending(e => observed[e]).ThenBy(e => e).Take(k - certain.Length)];
    }

    private double[] GatedMlp(string name, double[] x)
    {
        double[] gate = Multiply(name + "gate_proj.weight", x), up = Multiply(name + "up_proj.weight", x);
        return Multiply(name + "down_proj.weight", [.. gate.Zip(up, (g, u) => g / (1 + Math.Exp(-g)) * u)]);
    }

    private double[] Multiply(string name, double[] x)
    {
        double[] w = weights[name], y = new double[w.Length / x.Length];
        for (int n = 0; n < y.Length; n++)
            y[n] = Dot(w.AsSpan(n * x.Length, x.Length), x);
        return y;
    }

    private double[][] Norm(double[][] x, string gain) => [.. x.Select(v => Norm(v, weights[gain]))];

    private double[] Norm(double[] x, double[] gain)
    {
        double scale = 1 / Math.Sqrt((Dot(x, x) / x.Length) + shape.Epsilon);
        return [.. x.Zip(gain, (v, g) => v * scale * g)];
    }

    private static double[][] Add(double[][] a, double[][] b) => [.. a.Zip(b, (u, v) => u.Zip(v, (p, q) => p + q).ToArray())];

    private static double[] Softmax(double[] x)
    {
        double largest = x.Max();
        double[] e = [.. x.Select(v => Math.Exp(v - largest))];
        double total = e.Sum();
        return [.. e.Select(v => v / total)];
    }

    private static double Dot(ReadOnlySpan<double> a, ReadOnlySpan<double> b)
    {
        double sum = 0;
        for (int i = 0; i < a.Length; i++)
            sum += a[i] * b[i];
        return sum;
    }
}
