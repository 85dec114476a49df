namespace GpuKit.Ilgpu.Models;

/// <summary>Weights to measure formats with.</summary>
/// <param name="Distribution">Where they are from: <c>gaussian</c>, <c>student-t4</c>, or the projection of a model.</param>
/// <param name="Model">The model whose weights they are; null for random ones.</param>
/// <param name="N">Rows.</param>
/// <param name="K">Columns.</param>
/// <param name="Values"><c>[N, K]</c>.</param>
public sealed record WeightSample(string Distribution, string? Model, int N, int K, float[] Values)
{
    /// <summary>Gaussian and heavy-tailed (Student's t, 4 degrees of freedom) weights of a shape.</summary>
    /// <param name="n">Rows.</param>
    /// <param name="k">Columns.</param>
    /// <param name="seed">Seed of the random numbers.</param>
    public static IReadOnlyList<WeightSample> Random(int n, int k, int seed)
    {
        float[] Draw(int stream, Func<Random, double> next)
        {
            var random = new Random(HashSeed(seed, stream));
            var values = new float[checked(n * k)];
            for (int i = 0; i < values.Length; i++)
                values[i] = (float)next(random);
            return values;
        }
        return [new("gaussian", null, n, k, Draw(1, Gaussian)), new("student-t4", null, n, k, Draw(2, StudentT4))];
    }

    /// <summary>Projections of a model's first layer: queries, gate and down (of its first expert).</summary>
    /// <param name="folder">A Hugging Face folder.</param>
    /// <exception cref="ModelFileException">A file is missing, malformed or not supported.</exception>
    public static IReadOnlyList<WeightSample> OfModel(string folder)
    {
        Qwen3MoeConfig config = Qwen3MoeConfig.Load(folder);
        using Checkpoint checkpoint = Checkpoint.Open(folder);
        var stored = new StoredWeights(checkpoint, config);
        string mlp = "model.layers.0.mlp." + (config.IsSparse(0) ? "experts.0." : "");
        var names = new Dictionary<string, string>
        {
            ["model.layers.0.self_attn.q_proj.weight"] = "q_proj",
            [mlp + "gate_proj.weight"] = "gate_proj",
            [mlp + "down_proj.weight"] = "down_proj",
        };
        return [.. LinearWeights.Of(config).Where(w => names.ContainsKey(w.Name))
            .Select(w => new WeightSample(names[w.Name], Path.GetFileName(checkpoint.Folder), w.N, w.K, MatrixEncoder.Values(stored.Open(w.Name, w.N, w.K))))];
    }

    /// <summary>Gaussian inputs <c>[m, k]</c>.</summary>
    internal static BFloat16[] Inputs(int m, int k, int seed)
    {
        var random = new Random(HashSeed(seed, 3));
        return [.. Enumerable.Range(0, checked(m * k)).Select(_ => (BFloat16)(float)Gaussian(random))];
    }

    private static double Gaussian(Random random) =>
        Math.Sqrt(-2 * Math.Log(1 - random.NextDouble())) * Math.Cos(2 * Math.PI * random.NextDouble());

    // A Gaussian over the root of a mean of four squares; minus twice the logarithm of two uniforms' product is the sum of such squares.
    private static double StudentT4(Random random)
    {
        double squares = -2 * Math.Log((1 - random.NextDouble()) * (1 - random.NextDouble()));
        return Gaussian(random) / Math.Sqrt(squares / 4);
    }

    private static int HashSeed(int seed, int stream) => unchecked((seed * 31) + stream);
}
