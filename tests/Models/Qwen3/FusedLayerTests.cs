using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Models.Qwen3;

/// <summary>Layers over one token in few launches, which the CPU device for use does not have.</summary>
public sealed class FusedLayerTests
{
    private static readonly CheckpointShape Shape = new() { Hidden = 128, QueryHeads = 4, KeyValueHeads = 2, HeadDim = 64, Experts = 5, ExpertsPerToken = 2, ExpertWidth = 64, Layers = 2, Vocabulary = 40, Block = (32, 64) };

    public static TheoryData<TestDevice, bool, bool> Cases => new()
    {
        { TestDevice.CpuWarp32, true, true },
        { TestDevice.Cuda, true, true },
        { TestDevice.Cuda, false, true },
        { TestDevice.Cuda, true, false },
    };

    [Theory]
    [MemberData(nameof(Cases))]
    public void Tokens_one_by_one_have_the_logits_of_the_oracle(TestDevice device, bool normTopk, bool fp8)
    {
        CheckpointShape shape = Shape with { NormTopkProb = normTopk, Block = fp8 ? Shape.Block : null };
        TestDevices.Get(device);
        // One of its own: other tests launch on the shared ones.
        using GpuDevice open = device == TestDevice.Cuda ? GpuDevice.Open(DeviceKind.Cuda) : GpuDevice.OpenCpuForChecking();
        using var checkpoint = new GeneratedCheckpoint(shape);
        using Qwen3Moe model = checkpoint.Load(open);
        using var session = new Qwen3Session(model, 12);
        var launches = new List<string>();
        open.LaunchObserver = l => launches.Add(l.Kernel.Name);
        int[] ids = ModelRun.RandomIds(device == TestDevice.Cuda ? 9 : 3, shape.Vocabulary, 3);
        var logits = new List<float>();
        var routers = new Dictionary<int, float[][]>();
        try
        {
            foreach (int id in ids)
            {
                ModelRun run = ModelRun.Prefill(session, [id]);
                logits.AddRange(run.Logits[0]);
                foreach ((int layer, float[][] rows) in run.Routers)
                    routers[layer] = [.. routers.GetValueOrDefault(layer, []), .. rows];
            }
        }
        finally
        {
            open.LaunchObserver = null;
        }
        Assert.Equal(ids.Length * shape.Layers, launches.Count(l => l.StartsWith("DecodeAttention", StringComparison.Ordinal)));
        var oracle = new Qwen3Oracle(shape, checkpoint.Weights) { Observed = routers };
        double[] expected = [.. oracle.Logits(ids).SelectMany(row => row)];
        double error = Compare.RelativeError([.. logits], expected), cosine = ModelRun.Cosine([.. logits], expected);
        Assert.True(cosine >= 0.9995 && error <= 2e-2, $"cosine {cosine:F6}, relative error {error:E3}");
        foreach ((int layer, double[][] rows) in oracle.RouterLogits)
            Compare.Close([.. routers[layer].SelectMany(row => row)], [.. rows.SelectMany(row => row)], 2e-2);
    }
}
