using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Models.Quantization;

/// <summary>Checkpoints in every format: written, loaded, and what they then compute.</summary>
[Collection(ModelDevices.Collection)]
public sealed class CheckpointQuantizerTests(ModelDevices devices) : IDisposable
{
    private const string Up = "model.layers.1.mlp.experts.3.up_proj.weight";

    // Widths that fill no group, block, vector or byte.
    private static readonly Dictionary<string, CheckpointShape> Shapes = new()
    {
        ["plain"] = new() { Block = null },
        ["ragged, dense, tied"] = new() { Block = null, Hidden = 70, HeadDim = 6, ExpertWidth = 49, DenseWidth = 151, Vocabulary = 97, DenseLayers = [0], TiedHead = true },
    };

    private readonly TemporaryFolder folder = new();

    public static TheoryData<TestDevice, string, string> Cases
    {
        get
        {
            var data = new TheoryData<TestDevice, string, string>();
            foreach (TestDevice device in (TestDevice[])[TestDevice.Cpu, TestDevice.Cuda])
                foreach (CheckpointFormat format in CheckpointFormat.All)
                    foreach (string shape in Shapes.Keys)
                        data.Add(device, format.Name, shape);
            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void A_written_checkpoint_computes_with_its_weights(TestDevice device, string name, string kind)
    {
        CheckpointShape shape = Shapes[kind];
        var format = CheckpointFormat.Parse(name);
        GpuDevice open = devices.Open(device);
        using var source = new GeneratedCheckpoint(shape);
        QuantizeReport report = CheckpointQuantizer.Quantize(source.Folder, Target, format, cancellation: TestContext.Current.CancellationToken);
        Assert.Equal((source.Bytes, false, 1), (report.SourceBytes, report.IsSecondQuantization, report.Shards));
        Dictionary<string, double[]> weights = WrittenCheckpoint.Weights(Target, format, source.Weights);
        Assert.Equal(source.Weights.Keys.Order(StringComparer.Ordinal), weights.Keys.Order(StringComparer.Ordinal));
        int[] ids = ModelRun.RandomIds(17, shape.Vocabulary, 5);
        foreach (bool toBf16 in (bool[])[false, true])
        {
            using Qwen3Moe model = Qwen3Moe.Load(open, Target, new LoadOptions { DequantizeToBf16 = toBf16, BytesAtOnce = 1000 }, TestContext.Current.CancellationToken);
            using var session = new Qwen3Session(model, 80);
            ModelRun run = ModelRun.Prefill(session, ids);
            var oracle = new Qwen3Oracle(shape, weights) { Observed = run.Routers };
            float[] actual = [.. run.Logits.SelectMany(row => row)];
            double[] expected = [.. oracle.Logits(ids).SelectMany(row => row)];
            Assert.True(ModelRun.Cosine(actual, expected) >= 0.9995, $"cosine {ModelRun.Cosine(actual, expected)}");
            Assert.InRange(Compare.RelativeError(actual, expected), 0, 2.5e-2);
        }
    }

    [Theory]
    [InlineData(TestDevice.Cpu)]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void Every_matrix_has_the_bits_of_the_quantiser_on_every_device(TestDevice device)
    {
        GpuDevice open = TestDevices.Get(device);
        using var source = new GeneratedCheckpoint(new CheckpointShape { Block = null, Layers = 1, Experts = 2, Hidden = 80, DenseLayers = device == TestDevice.CpuWarp32 ? [0] : [] });
        using Checkpoint before = Checkpoint.Open(source.Folder);
        foreach (CheckpointFormat format in CheckpointFormat.All.Where(f => !f.Name.Contains("-g", StringComparison.Ordinal)))
        {
            QuantizeReport report = CheckpointQuantizer.Quantize(source.Folder, Target, format, new QuantizeOptions { Device = open, Force = true }, TestContext.Current.CancellationToken);
            using Checkpoint after = Checkpoint.Open(Target);
            string[] matrices = [.. before.Names.Where(n => n.EndsWith("_proj.weight", StringComparison.Ordinal))];
            Assert.Equal(format.Name == "bf16" ? 0 : matrices.Length, report.Converted);
            foreach (string name in before.Names)
            {
                HostMatrix written = matrices.Contains(name) ? WrittenCheckpoint.Matrix(after, name, format, source.Weights[name].Length) : new HostMatrix(WeightFormat.Bf16, 0, 0, after.Bytes(name).ToArray(), [], default);
                HostMatrix expected = matrices.Contains(name)
                    ? Quantizer.Quantize([.. source.Weights[name].Select(v => (float)v)], written.N, written.K, format.Format, format.Block)
                    : written with { Codes = before.Bytes(name).ToArray() };
                Assert.Equal(expected.Codes, written.Codes);
                Assert.Equal(expected.Scales, written.Scales);
                Assert.Equal(expected.GroupScales, written.GroupScales);
                Assert.Equal(expected.ZeroPoints, written.ZeroPoints);
            }
        }
    }

    [Theory]
    [InlineData("fp8")]
    [InlineData("int4-g32")]
    public void Shards_hold_the_same_tensors_as_one_file(string name)
    {
        using var source = new GeneratedCheckpoint(new CheckpointShape { Block = null, Shards = 2 });
        var format = CheckpointFormat.Parse(name);
        CheckpointQuantizer.Quantize(source.Folder, Target, format, cancellation: TestContext.Current.CancellationToken);
        string parts = folder.File("parts");
        var steps = new List<QuantizeProgress>();
        QuantizeReport report = CheckpointQuantizer.Quantize(source.Folder, parts, format, new QuantizeOptions { ShardBytes = 20_000, Progress = new Steps(steps.Add) }, TestContext.Current.CancellationToken);
        Assert.InRange(report.Shards, 3, 20);
        Assert.Equal((report.Tensors, report.Tensors, report.Bytes, report.Bytes), (steps[^1].Tensors, steps[^1].TotalTensors, steps[^1].Bytes, steps[^1].TotalBytes));
        using Checkpoint whole = Checkpoint.Open(Target), sharded = Checkpoint.Open(parts);
        Assert.Equal(whole.Names.Order(StringComparer.Ordinal), sharded.Names.Order(StringComparer.Ordinal));
        Assert.All(whole.Names, n => Assert.True(whole.Bytes(n).SequenceEqual(sharded.Bytes(n)), n));
        Assert.All(Directory.GetFiles(parts, "model-*"), f => Assert.True(new FileInfo(f).Length < 40_000, f));
        Qwen3Moe.Load(devices.Open(TestDevice.Cpu), parts, null, TestContext.Current.CancellationToken).Dispose();
    }

    [Fact]
    public void A_quantised_source_is_copied_dequantised_or_quantised_again()
    {
        using var source = new GeneratedCheckpoint(new CheckpointShape { Bf16Scales = true });
        QuantizeReport same = Write(source, "same", "fp8"), bf16 = Write(source, "bf16", "bf16"), again = Write(source, "again", "int4");
        Assert.Equal((0, false), (same.Converted, same.IsSecondQuantization));
        Assert.Equal((true, false), (bf16.Converted > 0, bf16.IsSecondQuantization));
        Assert.True(again.IsSecondQuantization);
        Assert.Null(Qwen3MoeConfig.Load(folder.File("bf16")).Quantization);
        using (Checkpoint before = Checkpoint.Open(source.Folder), after = Checkpoint.Open(folder.File("same")))
            Assert.All(before.Names, n => Assert.True(before.Bytes(n).SequenceEqual(after.Bytes(n)), n));
        Dictionary<string, double[]> values = WrittenCheckpoint.Weights(folder.File("bf16"), CheckpointFormat.Parse("bf16"), source.Weights);
        Assert.Equal(source.Weights[Up].Select(v => (double)(float)(BFloat16)(float)v), values[Up]);
        using Checkpoint int4 = Checkpoint.Open(folder.File("again"));
        Assert.False(int4.Contains(Up + "_scale_inv"));
        HostMatrix expected = Quantizer.Quantize([.. source.Weights[Up].Select(v => (float)v)], 48, 64, WeightFormat.Int4);
        Assert.Equal(expected.Codes, int4.Bytes(Up).ToArray());
    }

    [Fact]
    public void Everything_else_of_the_folder_comes_along_and_no_old_weights()
    {
        using var source = new GeneratedCheckpoint(new CheckpointShape { Block = null }, null, c => c["unknown_to_us"] = new[] { 1, 2 });
        foreach (string name in (string[])["tokenizer.json", "chat_template.jinja", "merges.txt", "LICENSE", "hf_quant_config.json", "pytorch_model.bin", "other.safetensors", "model.safetensors.index.json"])
            File.WriteAllText(Path.Combine(source.Folder, name), name);
        Write(source, "out", "nvfp4");
        Assert.Equal(
            ["LICENSE", "chat_template.jinja", "config.json", "merges.txt", "model.safetensors", "tokenizer.json"],
            Directory.GetFileSystemEntries(folder.File("out")).Select(f => Path.GetFileName(f)).Order(StringComparer.Ordinal));
        Assert.Contains("unknown_to_us", File.ReadAllText(Path.Combine(folder.File("out"), "config.json")), StringComparison.Ordinal);
        WeightQuantization quantization = Qwen3MoeConfig.Load(folder.File("out")).Quantization!;
        Assert.IsType<Nvfp4Quantization>(quantization);
        Assert.Equal(["lm_head", "model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm", "model.layers.0.mlp.gate"], quantization.ModulesToNotConvert.Take(4));
    }

    [Fact]
    public void A_folder_appears_whole_or_not_at_all()
    {
        using var source = new GeneratedCheckpoint(new CheckpointShape { Block = null });
        using var stop = new CancellationTokenSource();
        Directory.CreateDirectory(Target);
        File.WriteAllText(Path.Combine(Target, "mine"), "x");
        var steps = new Steps(p =>
        {
            if (p.Tensors == 5)
                stop.Cancel();
        });
        Assert.Throws<OperationCanceledException>(() => CheckpointQuantizer.Quantize(source.Folder, Target, CheckpointFormat.Parse("int4"), new QuantizeOptions { Force = true, Progress = steps, ShardBytes = 1000 }, stop.Token));
        Assert.Equal([Target], Directory.GetFileSystemEntries(folder.Path));
        Assert.Equal(["mine"], Directory.GetFileSystemEntries(Target).Select(f => Path.GetFileName(f)));
        Write(source, "out", "int4", force: true);
        Assert.False(File.Exists(Path.Combine(Target, "mine")));
        Assert.Equal([Target], Directory.GetFileSystemEntries(folder.Path));
    }

    [Fact]
    public void What_cannot_be_written_is_refused_and_nothing_is_left()
    {
        using var source = new GeneratedCheckpoint(new CheckpointShape { Block = null });
        folder.Write("file", "x");
        Directory.CreateDirectory(folder.File("full"));
        folder.Write("full/x", "x");
        Assert.Contains("is a file", Assert.Throws<ArgumentException>(() => Write(source, "file", "fp8")).Message, StringComparison.Ordinal);
        Assert.Contains("not empty", Assert.Throws<ArgumentException>(() => Write(source, "full", "fp8")).Message, StringComparison.Ordinal);
        Assert.Contains("holds the model", Assert.Throws<ArgumentException>(() => CheckpointQuantizer.Quantize(
            source.Folder, source.Folder, CheckpointFormat.Parse("fp8"), new QuantizeOptions { Force = true }, TestContext.Current.CancellationToken)).Message, StringComparison.Ordinal);
        Assert.Contains("1000 free", Assert.Throws<IOException>(() => CheckpointQuantizer.Quantize(
            source.Folder, folder.File("deep/new"), CheckpointFormat.Parse("fp8"), new QuantizeOptions { FreeBytes = _ => 1000 }, TestContext.Current.CancellationToken)).Message, StringComparison.Ordinal);
        using var broken = new GeneratedCheckpoint(new CheckpointShape { Block = null }, t => t[Up].Bytes.AsSpan((2 * 64 * 3) + 4, 2).Fill(0xFF));
        string message = Assert.Throws<ModelFileException>(() => Write(broken, "deep/new", "nvfp4")).Message;
        Assert.All((string[])[Up, "row 3", "column 2", "NaN"], word => Assert.Contains(word, message, StringComparison.Ordinal));
        Assert.Equal(["deep", "file", "full"], Directory.GetFileSystemEntries(folder.Path).Select(f => Path.GetFileName(f)).Order(StringComparer.Ordinal));
        Assert.Empty(Directory.GetFileSystemEntries(folder.File("deep")));
    }

    public void Dispose() => folder.Dispose();

    private string Target => folder.File("out");

    private QuantizeReport Write(GeneratedCheckpoint source, string target, string format, bool force = false) =>
        CheckpointQuantizer.Quantize(source.Folder, folder.File(target), CheckpointFormat.Parse(format), new QuantizeOptions { Force = force }, TestContext.Current.CancellationToken);

    private sealed class Steps(Action<QuantizeProgress> report) : IProgress<QuantizeProgress>
    {
        public void Report(QuantizeProgress value) => report(value);
    }
}
