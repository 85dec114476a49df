using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Tests.Support;

/// <summary>What a pass over a prompt gave, gathered from its parts.</summary>
/// <param name="Logits">[token][vocabulary].</param>
/// <param name="Routers">[token][expert] of each sparse layer.</param>
internal sealed record ModelRun(float[][] Logits, IReadOnlyDictionary<int, float[][]> Routers)
{
    /// <summary>Appends a prompt to a session and takes the logits after every token.</summary>
    public static ModelRun Prefill(Qwen3Session session, ReadOnlySpan<int> ids)
    {
        Qwen3MoeConfig config = session.Model.Config;
        var logits = new List<float[]>();
        var routers = new Dictionary<int, float[][]>();
        session.ObserveRouters((layer, part) => routers[layer] = [.. routers.GetValueOrDefault(layer, []), .. part.Chunk(config.Experts)]);
        session.PrefillWithLogits(ids, part => logits.AddRange(part.ToArray().Chunk(config.VocabSize)));
        session.ObserveRouters(null);
        return new ModelRun([.. logits], routers);
    }

    /// <summary>Continues a prompt from an empty cache by some tokens, stop tokens or not.</summary>
    public static int[] Continue(Qwen3Session session, int[] ids, int count, SamplingOptions? sampling = null)
    {
        session.Truncate(0);
        session.Prefill(ids);
        session.StartSampling(sampling ?? SamplingOptions.Greedy, ids);
        return [.. Enumerable.Range(0, count).Select(_ => session.Next())];
    }

    /// <summary>The most likely token after each of the prompt's.</summary>
    public int[] Top1 => [.. Logits.Select(row => Array.IndexOf(row, row.Max()))];

    /// <summary>Seeded ids of a vocabulary.</summary>
    public static int[] RandomIds(int count, int vocabulary, int seed)
    {
        var random = new Random(seed);
        return [.. Enumerable.Range(0, count).Select(_ => random.Next(vocabulary))];
    }

    /// <summary>Cosine of two tensors.</summary>
    public static double Cosine(ReadOnlySpan<float> actual, ReadOnlySpan<double> expected)
    {
        Assert.Equal(expected.Length, actual.Length);
        double dot = 0, a = 0, b = 0;
        for (int i = 0; i < actual.Length; i++)
        {
            dot += actual[i] * expected[i];
            a += (double)actual[i] * actual[i];
            b += expected[i] * expected[i];
        }
        return dot / Math.Sqrt(a * b);
    }
}
