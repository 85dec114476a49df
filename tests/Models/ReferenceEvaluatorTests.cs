using System.Runtime.InteropServices;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;
using Tensor = (string Name, GpuKit.Ilgpu.Models.TensorType Type, long[] Shape, byte[] Bytes);

namespace GpuKit.Ilgpu.Tests.Models;

/// <summary>What the comparison with a reference measures, refuses and fails. The figures themselves are checked through gpukit eval.</summary>
public sealed class ReferenceEvaluatorTests : IDisposable
{
    private readonly TemporaryFolder folder = new();
    private readonly Lazy<Qwen3Moe> model = new(() => Qwen3Moe.Load(TestDevices.Get(TestDevice.Cpu), RepositoryFolder.TinyModel));

    public static TheoryData<string, string, int[], string> WrongTensors => new()
    {
        { "prompt1.input_ids", "I64", [7], "prompt1.input_ids" },
        { "prompt1.input_ids", "I32", [1, 7], "prompt1.input_ids" },
        { "prompt1.input_ids", "I32", [0], "prompt1.input_ids" },
        { "prompt1.input_ids", "I32", [2049], "2048 positions" },
        { "prompt1.logits", "F32", [6, 2048], "F32 [7, 2048]" },
        { "prompt1.logits", "BF16", [7, 2048], "prompt1.logits" },
        { "prompt1.router2.logits", "F32", [7, 15], "prompt1.router2.logits" },
        { "prompt1.router4.logits", "F32", [7, 16], "layer 4" },
        { "prompt1.router01.logits", "F32", [7, 16], "prompt1.router01.logits" },
        { "prompt1.router.logits", "F32", [7, 16], "prompt1.router.logits" },
        { "prompt1.greedy", "F32", [7], "prompt1.greedy" },
        { "prompt1.greedy", "I32", [2048], "2055 tokens" },
        { "prompt01.logits", "F32", [7, 2048], "prompt01.logits" },
        { "prompt2.logits", "F32", [7, 2048], "prompt2.input_ids" },
        { "prompt2.input_ids", "I32", [7], "prompt2.logits" },
        { "logits", "F32", [1], "'logits'" },
    };

    [Theory]
    [MemberData(nameof(WrongTensors))]
    public void A_malformed_reference_is_refused_by_the_tensors_name(string name, string type, int[] shape, string word)
    {
        TensorType element = type switch { "I64" => TensorType.I64, "I32" => TensorType.I32, "F32" => TensorType.F32, _ => TensorType.BF16 };
        long[] extents = [.. shape.Select(s => (long)s)];
        var wrong = new Tensor(name, element, extents, new byte[extents.Aggregate((long)element.SizeInBytes(), (a, b) => a * b)]);
        string file = Write([.. Prompt1().Where(t => t.Name != name), wrong]);
        Assert.Contains(word, Assert.Throws<ModelFileException>(() => Evaluate(file)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void An_id_outside_the_vocabulary_is_refused()
    {
        List<Tensor> tensors = Prompt1();
        BitConverter.TryWriteBytes(tensors.Single(t => t.Name == "prompt1.input_ids").Bytes.AsSpan(8), 2048);
        Assert.Contains("the id 2048 at 2", Assert.Throws<ModelFileException>(() => Evaluate(Write(tensors))).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Other_logits_routers_and_continuations_are_missed()
    {
        List<Tensor> tensors = Prompt1();
        tensors.Add(new Tensor("prompt1.greedy", TensorType.I32, [2], new byte[8]));
        // Each position gets the logits of the position before it; layer 0 gets other router logits.
        byte[] logits = tensors.Single(t => t.Name == "prompt1.logits").Bytes;
        logits.AsSpan(0, 6 * 8192).CopyTo(logits.AsSpan(8192));
        tensors.Single(t => t.Name == "prompt1.router0.logits").Bytes.AsSpan().Reverse();
        ReferenceReport report = Evaluate(Write(tensors));
        PromptEvaluation result = Assert.Single(report.Prompts);
        Assert.False(report.Passed);
        Assert.Equal(3, report.Misses.Count);
        Assert.InRange(result.Cosine, -1, 0.99);
        Assert.InRange(result.WorstPosition, 1, 6);
        Assert.InRange(result.RouterAgreement!.Value, 0.7, 0.8);
        Assert.Equal(0, result.Greedy!.FirstDifference);
    }

    [Fact]
    public void A_choice_of_experts_is_missed_where_probabilities_differ_by_more_than_the_margin()
    {
        List<Tensor> tensors = Prompt1();
        // Token 2 takes 4 of 16 experts; in the reference the 4th and the 5th of its first layer change places, 5 % apart.
        Span<float> row = MemoryMarshal.Cast<byte, float>(tensors.Single(t => t.Name == "prompt1.router0.logits").Bytes.AsSpan()).Slice(2 * 16, 16);
        float[] sorted = [.. row.ToArray().OrderDescending()];
        int fourth = row.IndexOf(sorted[3]), fifth = row.IndexOf(sorted[4]);
        row[fifth] = row[fourth] + MathF.Log(1.05f);
        row[fourth] = Math.Min(row[fourth], sorted[2]);
        string file = Write(tensors);
        PromptEvaluation missed = Evaluate(file).Prompts[0];
        Assert.Equal(1, missed.RouterMisses);
        RouterDifference worst = missed.WorstRouterChoice!;
        Assert.Equal((0, 2, fifth, fourth), (worst.Layer, worst.Position, worst.LeftOut, worst.Taken));
        Assert.InRange(worst.Gap, 0.0499, 0.0501);
        Assert.InRange(worst.OwnGap, 0, 100);
        Assert.Equal(27 / 28.0, missed.RouterAgreement);
        Assert.Equal(27 / 28.0, Evaluate(file, new ReferenceOptions { RouterMargin = 0.04 }).Prompts[0].RouterAgreement);
        Assert.True(Evaluate(file, new ReferenceOptions { RouterMargin = 0.06 }).Passed);
        Assert.Contains("1 choices of experts", Assert.Single(Evaluate(file, new ReferenceOptions { RouterMargin = 0.04 }).Misses), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(EvaluationPath.Decode)]
    [InlineData(EvaluationPath.Batch)]
    public void Decode_steps_and_a_batch_are_compared_at_every_position(EvaluationPath path)
    {
        // Two prompts of different lengths side by side.
        string file = Write([.. Tensors("prompt1."), .. Tensors("prompt0.")]);
        ReferenceReport report = Evaluate(file, new ReferenceOptions { Path = path });
        Assert.Equal([1, 7], report.Prompts.Select(p => p.Tokens));
        Assert.All(report.Prompts, p => Assert.InRange(p.WorstCosine, 0.999, 1.000001));
        Assert.All(report.Prompts, p => Assert.Null(p.RouterAgreement));
        Assert.True(report.Passed);
        // The other way round nothing fits.
        byte[] logits = [.. Tensors("prompt1.").Single(t => t.Name == "prompt1.logits").Bytes];
        MemoryMarshal.Cast<byte, float>(logits.AsSpan()).Slice(6 * 2048, 2048).Reverse();
        file = Write([.. Tensors("prompt1.").Where(t => t.Name != "prompt1.logits"), new("prompt1.logits", TensorType.F32, [7, 2048], logits)]);
        PromptEvaluation wrong = Assert.Single(Evaluate(file, new ReferenceOptions { Path = path }).Prompts);
        Assert.Equal(6, wrong.WorstPosition);
    }

    [Theory]
    [InlineData(EvaluationPath.Prefill)]
    [InlineData(EvaluationPath.Decode)]
    [InlineData(EvaluationPath.Batch)]
    public void An_FP8_cache_reaches_its_own_bar_and_is_not_a_BF16_one(EvaluationPath path)
    {
        var options = new ReferenceOptions
        {
            Path = path,
            KvCache = KvCacheFormat.Fp8,
            MinCosine = ReferenceOptions.DefaultMinCosineFp8Cache,
            RouterMargin = ReferenceOptions.DefaultRouterMarginRounded,
        };
        ReferenceReport report = Evaluate(Write([.. Tensors("prompt2."), .. Tensors("prompt0.")]), options);
        Assert.Equal([], report.Misses);
        Assert.Equal([1, 16], report.Prompts.Select(p => p.Tokens));
        Assert.All(report.Prompts, p => Assert.InRange(p.RelativeError, 0.005, 0.1));
        // The answer of ten tokens, where the path has one.
        Assert.Equal(path != EvaluationPath.Batch, report.Prompts[1].Greedy?.Matches == true);
    }

    [Fact]
    public void Long_prompts_are_compared_part_by_part()
    {
        // Logits of zeros have no direction; what counts is that every position was met, over several parts of a prefill.
        const int Tokens = 150;
        string file = Write([new("prompt0.input_ids", TensorType.I32, [Tokens], new byte[Tokens * 4]), new("prompt0.logits", TensorType.F32, [Tokens, 2048], new byte[Tokens * 8192])]);
        ReferenceReport report = Evaluate(file);
        Assert.False(report.Passed);
        Assert.True(double.IsNaN(report.Prompts[0].Cosine));
        Assert.Null(report.Prompts[0].RouterAgreement);
    }

    [Fact]
    public void It_reports_and_can_be_cancelled()
    {
        using var cancel = new CancellationTokenSource();
        string reference = Path.Combine(RepositoryFolder.TinyModel, "reference.safetensors");
        var progress = new CancelAtFirst(cancel);
        Assert.Throws<OperationCanceledException>(() => ReferenceEvaluator.Evaluate(model.Value, reference, new ReferenceOptions { Progress = progress }, cancel.Token));
        Assert.Equal([new EvaluationProgress(1, 6, "prompt 0")], progress.Reports);
    }

    public void Dispose()
    {
        if (model.IsValueCreated)
            model.Value.Dispose();
        folder.Dispose();
    }

    private static List<Tensor> Prompt1() => Tensors("prompt1.");

    private static List<Tensor> Tensors(string prefix)
    {
        using SafetensorsFile file = SafetensorsFile.Open(Path.Combine(RepositoryFolder.TinyModel, "reference.safetensors"));
        return [.. file.Tensors.Values.Where(t => t.Name.StartsWith(prefix, StringComparison.Ordinal)).Select(t => (t.Name, t.Type, t.Shape.ToArray(), file.Bytes(t).ToArray()))];
    }

    private ReferenceReport Evaluate(string file, ReferenceOptions? options = null) => ReferenceEvaluator.Evaluate(model.Value, file, options, TestContext.Current.CancellationToken);

    private string Write(IEnumerable<Tensor> tensors)
    {
        string file = folder.File("wrong.safetensors");
        SafetensorsWriter.Write(file, tensors);
        return file;
    }

    private sealed class CancelAtFirst(CancellationTokenSource source) : IProgress<EvaluationProgress>
    {
        public List<EvaluationProgress> Reports { get; } = [];

        public void Report(EvaluationProgress value)
        {
            Reports.Add(value);
            source.Cancel();
        }
    }
}
