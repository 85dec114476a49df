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
        using var run = new Watched(device, shape);
        Qwen3Session session = run.Session;
        int[] ids = ModelRun.RandomIds(device == TestDevice.Cuda ? 9 : 3, shape.Vocabulary, 3);
        var logits = new List<float>();
        var routers = new Dictionary<int, float[][]>();
        foreach (int id in ids)
        {
            ModelRun one = ModelRun.Prefill(session, [id]);
            logits.AddRange(one.Logits[0]);
            foreach ((int layer, float[][] rows) in one.Routers)
                routers[layer] = [.. routers.GetValueOrDefault(layer, []), .. rows];
        }
        Assert.Equal(ids.Length * shape.Layers, run.Launches("DecodeAttention"));
        var oracle = new Qwen3Oracle(shape, run.Checkpoint.Weights) { Observed = routers };
        double[] expected = [.. oracle.Logits(ids).SelectMany(row => row)];
        double error = Compare.RelativeError([.. logits], expected), cosine = ModelRun.Cosine([.. logits], expected);
        Assert.True(cosine >= 0.9995 && error <= 2e-2, $"cosine {cosine:F6}, relative error {error:E3}");
        foreach ((int layer, double[][] rows) in oracle.RouterLogits)
            Compare.Close([.. routers[layer].SelectMany(row => row)], [.. rows.SelectMany(row => row)], 2e-2);
    }

    // Of few tokens the router chooses in the launch that makes its logits; of one in those of a fused layer, which then gives way.
    [Theory]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void Few_tokens_choose_from_adjusted_logits(TestDevice device)
    {
        using var run = new Watched(device, Shape);
        Qwen3Session session = run.Session;
        foreach (int count in (int[])[1, 5])
        {
            int[] ids = ModelRun.RandomIds(count, Shape.Vocabulary, 6);
            int before = run.Launches("RouterLinear");
            session.PrefillAdjusting(ids, (_, _, _) => false, TestContext.Current.CancellationToken);
            Assert.Equal(before + Shape.Layers, run.Launches("RouterLinear"));
            float[] plain = Next();
            session.PrefillAdjusting(ids, (layer, first, logits) =>
            {
                foreach (ref float logit in logits)
                    logit = -logit;
                return true;
            }, TestContext.Current.CancellationToken);
            Assert.NotEqual(plain, Next());
            if (count == 1)
                continue;
            session.Truncate(0);
            session.Prefill(ids, TestContext.Current.CancellationToken);
            Assert.Equal(plain, Next());
        }

        float[] Next() => ModelRun.Prefill(session, [5]).Logits[0];
    }

    [Theory]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void A_batch_has_the_logits_of_the_oracle_and_the_bits_of_a_batch_of_one(TestDevice device)
    {
        TestDevices.Get(device);
        using GpuDevice open = TestDevices.Open(device);
        using var checkpoint = new GeneratedCheckpoint(Shape);
        using Qwen3Moe model = checkpoint.Load(open);
        using Qwen3BatchSession batch = new(model, 3, 12), alone = new(model, 1, 20);
        // The second sequence does not run.
        int[][] prompts = [ModelRun.RandomIds(2, Shape.Vocabulary, 3), [], ModelRun.RandomIds(1, Shape.Vocabulary, 4)];
        batch.Prefill(0, prompts[0], TestContext.Current.CancellationToken);
        batch.Prefill(2, prompts[2], TestContext.Current.CancellationToken);
        var launches = new List<string>();
        open.LaunchObserver = l => launches.Add(l.Kernel.Name);
        batch.StepDirectly();
        open.LaunchObserver = null;
        // Seven launches a layer; embedding, last norm, head, two of drawing and the positions.
        Assert.Equal((7 * Shape.Layers) + 6, launches.Count);
        batch.Next(new int[3]);
        foreach (int s in new[] { 0, 2 })
        {
            float[] logits = batch.LastLogits(s);
            alone.Truncate(0, 0);
            alone.Prefill(0, prompts[s], TestContext.Current.CancellationToken);
            alone.Next(new int[1]);
            Assert.Equal(alone.LastLogits(0), logits);
            if (device == TestDevice.Cuda)
                continue;
            double[] expected = new Qwen3Oracle(Shape, checkpoint.Weights).Logits(prompts[s])[^1];
            Compare.Close(logits, expected, 2e-2);
        }
    }

    // In a graph launches overlap and a step is queued ahead; a prompt of one token runs the same kernels one by one. Random weights forget nothing: one
    // wrong bit changes the tokens that follow.
    [Fact]
    public void Replayed_steps_of_a_models_width_are_direct_steps()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cuda);
        Qwen3MoeConfig config = KnownConfigs.Get("qwen3-30b-a3b") with { Layers = 6, Experts = 16, VocabSize = 4096, EosTokenIds = [] };
        using Qwen3Moe model = Qwen3Moe.Synthesize(device, config, 5);
        using var session = new Qwen3Session(model, 700);
        foreach (int context in new[] { 4, 120, 600 })
        {
            int[] prompt = ModelRun.RandomIds(context, config.VocabSize, context), replayed = ModelRun.Continue(session, prompt, 80);
            Assert.Equal(replayed, ModelRun.Continue(session, prompt, 80));
            session.Truncate(0);
            session.Prefill(prompt, TestContext.Current.CancellationToken);
            session.StartSampling(SamplingOptions.Greedy, prompt);
            var direct = new List<int> { session.Next() };
            while (direct.Count < replayed.Length)
                direct.Add(ModelRun.Prefill(session, [direct[^1]]).Top1[0]);
            Assert.Equal(replayed, direct);
        }
    }

    /// <summary>A session whose launches are noted, on a device of its own: other tests launch on the shared ones.</summary>
    private sealed class Watched : IDisposable
    {
        private readonly GpuDevice device;
        private readonly Qwen3Moe model;
        private readonly List<string> launches = [];

        public Watched(TestDevice which, CheckpointShape shape)
        {
            TestDevices.Get(which);
            device = TestDevices.Open(which);
            Checkpoint = new GeneratedCheckpoint(shape);
            model = Checkpoint.Load(device);
            Session = new Qwen3Session(model, 12);
            device.LaunchObserver = l => launches.Add(l.Kernel.Name);
        }

        public GeneratedCheckpoint Checkpoint { get; }

        public Qwen3Session Session { get; }

        /// <summary>Launches until now of kernels whose names begin so.</summary>
        public int Launches(string kernel) => launches.Count(l => l.StartsWith(kernel, StringComparison.Ordinal));

        public void Dispose()
        {
            device.LaunchObserver = null;
            Session.Dispose();
            model.Dispose();
            Checkpoint.Dispose();
            device.Dispose();
        }
    }
}
