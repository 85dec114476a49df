using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Models.Qwen3;

/// <summary>Small random networks of every kind that the model in the repository is not, against double precision.</summary>
[Collection(ModelDevices.Collection)]
public sealed class GeneratedModelTests(ModelDevices devices)
{
    // Around the 16 rows from which products run on tensor cores, and beyond the CPU's 64 tokens at once.
    private static readonly int[] Lengths = [1, 15, 16, 17, 65];

    private static readonly Dictionary<string, CheckpointShape> Shapes = new()
    {
        ["plain"] = new(),
        ["partial edge blocks"] = new() { Hidden = 320, QueryHeads = 6, KeyValueHeads = 2, HeadDim = 48, ExpertWidth = 160, Experts = 3, Vocabulary = 130 },
        ["small blocks, parts on edges"] = new() { Block = (32, 64), ExpertWidth = 64, Hidden = 128 },
        ["small blocks, parts off edges"] = new() { Block = (32, 32), HeadDim = 20, Hidden = 72, ExpertWidth = 40 },
        ["tall blocks"] = new() { Block = (16, 64), Hidden = 96, ExpertWidth = 56 },
        ["odd widths"] = new() { Hidden = 70, HeadDim = 6, ExpertWidth = 49, DenseWidth = 51, Vocabulary = 97, DenseLayers = [1] },
        ["tied head"] = new() { TiedHead = true },
        ["dense first layer"] = new() { DenseLayers = [0], DenseWidth = 144 },
        ["dense last layer"] = new() { DenseLayers = [1] },
        ["all dense"] = new() { DenseLayers = [0, 1] },
        ["sparse every second layer"] = new() { Layers = 3, SparseStep = 2, DenseWidth = 128 },
        ["shards"] = new() { Shards = 2, Bf16Scales = true },
        ["BF16 scales"] = new() { Bf16Scales = true, Block = (32, 32) },
        ["top-k not normalised"] = new() { NormTopkProb = false, Experts = 8, ExpertsPerToken = 3 },
        ["one expert a token"] = new() { NormTopkProb = false, ExpertsPerToken = 1 },
        ["all experts"] = new() { Experts = 3, ExpertsPerToken = 3 },
        ["head dim not hidden / heads"] = new() { HeadDim = 40 },
        ["heads not shared"] = new() { KeyValueHeads = 4 },
        ["four heads share one"] = new() { KeyValueHeads = 1 },
        ["BF16 weights"] = new() { Block = null },
        ["BF16 weights, tied, dense"] = new() { Block = null, TiedHead = true, DenseLayers = [0], HeadDim = 24 },
        ["rope theta 1e7"] = new() { RopeTheta = 1e7, NewKeys = true, HeadDim = 32 },
    };

    public static TheoryData<TestDevice, string> Cases => ModelDevices.With(Shapes.Keys);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Logits_are_those_of_the_dequantised_weights(TestDevice device, string kind)
    {
        CheckpointShape shape = Shapes[kind];
        GpuDevice open = devices.Open(device);
        using var checkpoint = new GeneratedCheckpoint(shape);
        using Qwen3Moe model = checkpoint.Load(open);
        using var session = new Qwen3Session(model, 80);
        Check(session, checkpoint, shape, Lengths);
    }

    [Theory]
    [MemberData(nameof(ModelDevices.All), MemberType = typeof(ModelDevices))]
    public void Prompts_longer_than_a_part_continue_in_the_next(TestDevice device)
    {
        var shape = new CheckpointShape { Layers = 1 };
        GpuDevice open = devices.Open(device);
        using var checkpoint = new GeneratedCheckpoint(shape);
        using Qwen3Moe model = checkpoint.Load(open);
        using var session = new Qwen3Session(model, 600);
        Check(session, checkpoint, shape, device == TestDevice.Cuda ? [511, 512, 513, 600] : [63, 64, 129, 200]);
    }

    [Fact]
    public void A_prompt_in_one_part_draws_what_one_in_shorter_parts_does()
    {
        // On a card parts are shorter where all logits are handed out. Heads of 64 columns run in tiles.
        var shape = new CheckpointShape { Layers = 1, HeadDim = 64 };
        GpuDevice open = devices.Open(TestDevice.Cuda);
        using var checkpoint = new GeneratedCheckpoint(shape);
        using Qwen3Moe model = checkpoint.Load(open);
        using var session = new Qwen3Session(model, shape.MaxPositions);
        int[] ids = ModelRun.RandomIds(shape.MaxPositions - 1, shape.Vocabulary, 3);
        float[] last = ModelRun.Prefill(session, ids).Logits[^1];
        session.Truncate(0);
        session.Prefill(ids, TestContext.Current.CancellationToken);
        Assert.InRange(last[session.Next()], last.Max() - (0.02f * last.Max(Math.Abs)), last.Max());
    }

    [Theory]
    [InlineData("plain")]
    [InlineData("small blocks, parts off edges")]
    [InlineData("odd widths")]
    [InlineData("shards")]
    public void Weights_can_be_dequantised_to_BF16(string kind)
    {
        CheckpointShape shape = Shapes[kind];
        using var checkpoint = new GeneratedCheckpoint(shape);
        using Qwen3Moe model = checkpoint.Load(devices.Open(TestDevice.Cpu), new LoadOptions { DequantizeToBf16 = true });
        using var session = new Qwen3Session(model, 80);
        Check(session, checkpoint, shape, [17]);
    }

    [Theory]
    [InlineData("partial edge blocks", false)]
    [InlineData("partial edge blocks", true)]
    [InlineData("BF16 weights", false)]
    public void A_matrix_read_in_parts_is_the_matrix(string kind, bool toBf16)
    {
        using var checkpoint = new GeneratedCheckpoint(Shapes[kind]);
        float[] Logits(LoadOptions options)
        {
            using Qwen3Moe model = checkpoint.Load(devices.Open(TestDevice.Cpu), options);
            using var session = new Qwen3Session(model, 8);
            return [.. ModelRun.Prefill(session, [5, 77, 12]).Logits.SelectMany(row => row)];
        }
        var whole = new LoadOptions { DequantizeToBf16 = toBf16 };
        Assert.Equal(Logits(whole), Logits(whole with { BytesAtOnce = 1000 }));
    }

    private static void Check(Qwen3Session session, GeneratedCheckpoint checkpoint, CheckpointShape shape, int[] lengths)
    {
        foreach (int length in lengths)
        {
            int[] ids = ModelRun.RandomIds(length, shape.Vocabulary, length);
            session.Truncate(0);
            ModelRun run = ModelRun.Prefill(session, ids);
            var oracle = new Qwen3Oracle(shape, checkpoint.Weights) { Observed = run.Routers };
            double[] expected = [.. oracle.Logits(ids).SelectMany(row => row)];
            float[] actual = [.. run.Logits.SelectMany(row => row)];
            double error = Compare.RelativeError(actual, expected), cosine = ModelRun.Cosine(actual, expected);
            TestContext.Current.TestOutputHelper?.WriteLine($"{length} tokens: cosine {cosine:F6}, relative error {error:E2}");
            Assert.True(cosine >= 0.9995 && error <= 2e-2, $"{length} tokens: cosine {cosine:F6}, relative error {error:E3}.");
            Assert.Equal(oracle.RouterLogits.Keys, run.Routers.Keys);
            foreach ((int layer, double[][] logits) in oracle.RouterLogits)
                Compare.Close([.. run.Routers[layer].SelectMany(row => row)], [.. logits.SelectMany(row => row)], 2e-2);
        }
    }
}
