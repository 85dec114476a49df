using System.Runtime.InteropServices;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Models.Qwen3;

/// <summary>What loading refuses, and that nothing stays allocated then; what a loaded model holds.</summary>
[Collection(ModelDevices.Collection)]
public sealed class LoadingTests(ModelDevices devices)
{
    private const string Up = "model.layers.1.mlp.experts.3.up_proj.weight", Query = "model.layers.0.self_attn.q_proj.weight";
    private const string Gain = "model.layers.1.post_attention_layernorm.weight", Head = "lm_head.weight";

    private static readonly Dictionary<string, (Action<IDictionary<string, StoredTensor>> Damage, string[] Says)> DamageByName = new()
    {
        ["missing expert"] = (t => t.Remove(Up), [Up, "no tensor"]),
        ["missing norm"] = (t => t.Remove("model.norm.weight"), ["model.norm.weight"]),
        ["missing head"] = (t => t.Remove(Head), [Head]),
        ["missing embedding"] = (t => t.Remove("model.embed_tokens.weight"), ["model.embed_tokens.weight"]),
        ["missing scale"] = (t => t.Remove(Up + "_scale_inv"), [Up, "_scale_inv"]),
        ["wrong shape"] = (t => t[Query] = t[Query] with { Shape = [32, 128] }, [Query, "[32, 128]", "[64, 64]"]),
        ["flat"] = (t => t[Query] = t[Query] with { Shape = [64 * 64] }, [Query, "[4096]"]),
        ["wrong width of a norm"] = (t => t[Gain] = Zeros(TensorType.BF16, 65), [Gain, "[65]", "[64]"]),
        ["norm in float32"] = (t => t[Gain] = Zeros(TensorType.F32, 64), [Gain, "F32", "BF16"]),
        ["NaN in a norm"] = (t => t[Gain].Bytes.AsSpan(6, 2).Fill(0xFF), [Gain, "element 3"]),
        ["NaN code"] = (t => t[Up].Bytes[(5 * 64) + 7] = 0xFF, [Up, "row 5", "column 7", "NaN"]),
        ["NaN in a BF16 weight"] = (t => t[Head].Bytes.AsSpan((2 * 64) + 4, 2).Fill(0xFF), [Head, "row 1", "column 2", "NaN"]),
        ["NaN scale"] = (t => MemoryMarshal.Cast<byte, float>(t[Up + "_scale_inv"].Bytes.AsSpan())[0] = float.NaN, [Up + "_scale_inv", "scale 0"]),
        ["infinite scale"] = (t => MemoryMarshal.Cast<byte, float>(t[Query + "_scale_inv"].Bytes.AsSpan())[0] = float.PositiveInfinity, [Query + "_scale_inv"]),
        ["wrong scale shape"] = (t => t[Up + "_scale_inv"] = Zeros(TensorType.F32, 2, 1), [Up, "[2, 1]", "[1, 1]"]),
        ["flat scales"] = (t => t[Up + "_scale_inv"] = Zeros(TensorType.F32, 1), [Up, "[1]", "[1, 1]"]),
        ["scale in F16"] = (t => t[Up + "_scale_inv"] = Zeros(TensorType.F16, 1, 1), [Up, "F16"]),
        ["weight in F16"] = (t => t[Query] = Zeros(TensorType.F16, 64, 64), [Query, "F16"]),
        ["weight in E5M2"] = (t => t[Query] = Zeros(TensorType.F8E5M2, 64, 64), [Query, "F8_E5M2"]),
        ["one expert stored otherwise"] = (t => t[Up] = Zeros(TensorType.BF16, 48, 64), [Up, "BF16", "F8_E4M3"]),
    };

    private static readonly Dictionary<string, (Action<IDictionary<string, object?>> Change, string Says)> ConfigByName = new()
    {
        ["no quantization_config"] = (c => c["quantization_config"] = null, "quantization_config"),
        ["blocks too narrow"] = (c => c["quantization_config"] = new { quant_method = "fp8", weight_block_size = new[] { 16, 16 } }, "weight_block_size"),
        ["head too wide"] = (c => c["head_dim"] = 258, "head_dim"),
        ["too many experts a token"] = (c => (c["num_experts"], c["num_experts_per_tok"]) = (64, 33), "num_experts_per_tok"),
        ["vocabulary too large"] = (c => c["vocab_size"] = (1 << 22) + 1, "vocab_size"),
        ["more layers than stored"] = (c => c["num_hidden_layers"] = 3, "model.layers.2.input_layernorm.weight"),
        ["more experts than stored"] = (c => c["num_experts"] = 5, "model.layers.0.mlp"),
    };

    public static TheoryData<TestDevice, string> Damages => ModelDevices.With(DamageByName.Keys);

    public static TheoryData<string> Configs => [.. ConfigByName.Keys];

    [Theory]
    [MemberData(nameof(Damages))]
    public void A_damaged_checkpoint_is_refused_by_the_tensors_name(TestDevice device, string damage)
    {
        GpuDevice open = devices.Open(device);
        using var checkpoint = new GeneratedCheckpoint(new CheckpointShape(), DamageByName[damage].Damage);
        foreach ((bool toBf16, int staging) in ((bool, int)[])[(false, 0), (true, 0), (false, 1000), (true, 1000)])
        {
            string message = Refused(open, checkpoint, new LoadOptions { DequantizeToBf16 = toBf16, StagingBytes = staging });
            Assert.All(DamageByName[damage].Says, part => Assert.Contains(part, message, StringComparison.Ordinal));
        }
    }

    [Theory]
    [MemberData(nameof(Configs))]
    public void A_configuration_that_does_not_fit_is_refused_by_name(string kind)
    {
        using var checkpoint = new GeneratedCheckpoint(new CheckpointShape(), null, ConfigByName[kind].Change);
        string message = Refused(devices.Open(TestDevice.Cpu), checkpoint, null);
        Assert.Contains(ConfigByName[kind].Says, message, StringComparison.Ordinal);
        if (kind == "no quantization_config")
            Assert.Contains(Query, message, StringComparison.Ordinal);
    }

    [Fact]
    public void An_embedding_in_FP8_is_refused_unless_it_is_dequantised()
    {
        const string name = "model.embed_tokens.weight";
        using var checkpoint = new GeneratedCheckpoint(new CheckpointShape(), t =>
            (t[name], t[name + "_scale_inv"]) = (Zeros(TensorType.F8E4M3, 96, 64), Zeros(TensorType.F32, 1, 1)));
        GpuDevice open = devices.Open(TestDevice.Cpu);
        Assert.Contains($"'{name}' must be BF16", Refused(open, checkpoint, null), StringComparison.Ordinal);
        checkpoint.Load(open, new LoadOptions { DequantizeToBf16 = true }).Dispose();
    }

    [Fact]
    public void The_limits_at_loading_are_those_of_the_kernels()
    {
        Assert.Equal(GpuKit.Ilgpu.Kernels.Attention.MaxHeadDim, Qwen3Moe.MostHeadDim);
        Assert.Equal(GpuKit.Ilgpu.Kernels.Router.MaxTopK, Qwen3Moe.MostExpertsPerToken);
        Assert.Equal(GpuKit.Ilgpu.Kernels.Sampler.MaxVocabulary, Qwen3Moe.MostVocabulary);
    }

    [Theory]
    [MemberData(nameof(ModelDevices.All), MemberType = typeof(ModelDevices))]
    public void Loading_stops_wherever_it_is_cancelled(TestDevice device)
    {
        GpuDevice open = devices.Open(device);
        using var checkpoint = new GeneratedCheckpoint(new CheckpointShape());
        var progress = new List<LoadProgress>();
        long before = open.Ledger.LiveBytes;
        checkpoint.Load(open, new LoadOptions { Progress = new Steps(progress.Add) }).Dispose();
        Assert.Equal(before, open.Ledger.LiveBytes);
        Assert.Equal((checkpoint.Bytes, checkpoint.Bytes), (progress[^1].LoadedBytes, progress[^1].TotalBytes));
        Assert.Equal(progress.Select(p => p.LoadedBytes).Order(), progress.Select(p => p.LoadedBytes));
        Assert.Throws<OperationCanceledException>(() => Qwen3Moe.Load(open, checkpoint.Folder, null, new CancellationToken(true)));
        for (int stopAt = 0; stopAt < progress.Count - 1; stopAt++)
        {
            using var stop = new CancellationTokenSource();
            int step = 0, at = stopAt;
            var steps = new Steps(_ =>
            {
                if (step++ == at)
                    stop.Cancel();
            });
            Assert.Throws<OperationCanceledException>(() => Qwen3Moe.Load(open, checkpoint.Folder, new LoadOptions { Progress = steps }, stop.Token));
            Assert.Equal(before, open.Ledger.LiveBytes);
        }
    }

    [Theory]
    [InlineData("FP8")]
    [InlineData("BF16 scales")]
    [InlineData("tied")]
    [InlineData("BF16")]
    public void Every_weight_is_resident_once(string kind)
    {
        CheckpointShape shape = new() { Hidden = 256, Block = kind == "BF16" ? null : (64, 64), Bf16Scales = kind == "BF16 scales", TiedHead = kind == "tied" };
        GpuDevice open = devices.Open(TestDevice.Cpu);
        using var checkpoint = new GeneratedCheckpoint(shape);
        (long bytes, long buffers) = (open.Ledger.LiveBytes, open.Ledger.LiveBuffers);
        Qwen3Moe model = checkpoint.Load(open);
        long held = open.Ledger.LiveBytes - bytes;
        // Buffers are whole 16-byte words.
        long most = checkpoint.Bytes + checkpoint.Bf16ScaleBytes + (16 * (open.Ledger.LiveBuffers - buffers));
        Assert.InRange(held, checkpoint.Bytes, most);
        Assert.Equal(held, model.WeightBytes);
        using (new Qwen3Session(model, 16))
            Assert.True(open.Ledger.LiveBytes > bytes + held);
        Assert.Equal(bytes + held, open.Ledger.LiveBytes);
        model.Dispose();
        model.Dispose();
        Assert.Equal((bytes, buffers), (open.Ledger.LiveBytes, open.Ledger.LiveBuffers));
    }

    private static string Refused(GpuDevice device, GeneratedCheckpoint checkpoint, LoadOptions? options)
    {
        (long, long) before = (device.Ledger.LiveBytes, device.Ledger.LiveBuffers);
        string message = Assert.Throws<ModelFileException>(() => checkpoint.Load(device, options)).Message;
        Assert.Equal(before, (device.Ledger.LiveBytes, device.Ledger.LiveBuffers));
        return message;
    }

    private static StoredTensor Zeros(TensorType type, params long[] shape) =>
        new(type, shape, new byte[shape.Aggregate((long)type.SizeInBytes(), (a, b) => a * b)]);

    private sealed class Steps(Action<LoadProgress> report) : IProgress<LoadProgress>
    {
        public void Report(LoadProgress value) => report(value);
    }
}
