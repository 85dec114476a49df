using System.Text.Json.Nodes;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Models.Qwen3;

/// <summary>Networks of random weights.</summary>
[Collection(ModelDevices.Collection)]
public sealed class SyntheticModelTests(ModelDevices devices)
{
    [Theory]
    [MemberData(nameof(ModelDevices.All), MemberType = typeof(ModelDevices))]
    public void A_written_checkpoint_is_the_network_made_on_the_device(TestDevice device)
    {
        GpuDevice open = devices.Open(device);
        using var folder = new TemporaryFolder();
        JsonObject shape = Shape();
        string target = Path.Combine(folder.Path, "model");
        long bytes = SyntheticCheckpoint.Write(open, shape, 7, target, cancellation: TestContext.Current.CancellationToken);
        using Qwen3Moe made = Qwen3Moe.Synthesize(open, Qwen3MoeConfig.Load(target), 7), read = Qwen3Moe.Load(open, target, cancellation: TestContext.Current.CancellationToken), other = Qwen3Moe.Synthesize(open, Qwen3MoeConfig.Load(target), 8);
        Assert.Equal(read.WeightBytes, made.WeightBytes);
        Assert.InRange(bytes, 1, made.WeightBytes);
        float[] expected = Logits(read);
        Assert.All(expected, v => Assert.True(float.IsFinite(v)));
        Assert.Equal(expected, Logits(made));
        Assert.NotEqual(expected, Logits(other));
    }

    [Fact]
    public void Weights_have_the_deviation_that_keeps_activations_their_size()
    {
        GpuDevice device = devices.Open(TestDevice.Cpu);
        const int N = 128, K = 256;
        foreach (WeightFormat format in Enum.GetValues<WeightFormat>())
        {
            using var matrix = new QuantizedMatrix(device, format, N, K, 2);
            RandomFill.Weights(device.DefaultStream, matrix, 0, (0, N), 3, 0.25f);
            RandomFill.Weights(device.DefaultStream, matrix, 1, (0, N), 4, 0.25f);
            float[] values = Quantizer.Dequantize(FirstOf(matrix));
            double deviation = Math.Sqrt(values.Average(v => (double)v * v));
            Assert.InRange(deviation, 0.2, 0.3);
            Assert.InRange(Math.Abs(values.Average(v => (double)v)), 0, 0.05);
        }
    }

    [Fact]
    public void Specifications_name_what_is_wrong_with_them()
    {
        SyntheticSpec spec = SyntheticSpec.Parse("synth:qwen3-30b-a3b,layers=3,seed=9");
        Assert.Equal((3, 2048, 128, 9ul), (spec.Config.Layers, spec.Config.HiddenSize, spec.Config.Experts, spec.Seed));
        Assert.Contains("qwen3-30b-a3b", Assert.Throws<ArgumentException>(() => SyntheticSpec.Parse("synth:other")).Message, StringComparison.Ordinal);
        Assert.Contains("layers=0", Assert.Throws<ArgumentException>(() => SyntheticSpec.Parse("qwen3-30b-a3b,layers=0")).Message, StringComparison.Ordinal);
    }

    private static HostMatrix FirstOf(QuantizedMatrix matrix)
    {
        HostMatrix all = MatrixEncoder.Download(matrix.Device.DefaultStream, matrix);
        return new HostMatrix(matrix.Format, matrix.N, matrix.K, all.Codes[..(int)matrix.BytesPerMatrix], all.Scales[..matrix.ScalesPerMatrix], matrix.Block)
        {
            GroupScales = all.GroupScales[..matrix.GroupScalesPerMatrix],
            ZeroPoints = all.ZeroPoints[..matrix.ZeroBytesPerMatrix],
        };
    }

    private static JsonObject Shape()
    {
        JsonObject shape = KnownConfigs.Json("qwen3-30b-a3b");
        foreach ((string key, int value) in new[]
        {
            ("hidden_size", 128), ("num_hidden_layers", 2), ("num_attention_heads", 4), ("num_key_value_heads", 2), ("head_dim", 32), ("intermediate_size", 128),
            ("moe_intermediate_size", 128), ("num_experts", 4), ("num_experts_per_tok", 2), ("vocab_size", 96), ("max_position_embeddings", 64),
        })
            shape[key] = value;
        shape["eos_token_id"] = 95;
        return shape;
    }

    private static float[] Logits(Qwen3Moe model)
    {
        using var session = new Qwen3Session(model, 16);
        return [.. ModelRun.Prefill(session, [5, 77, 12]).Logits.SelectMany(row => row)];
    }
}
