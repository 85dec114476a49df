using System.Runtime.InteropServices;
using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Ops;

public sealed class ExpertMlpTests
{
    private const int Hidden = 128, Experts = 5;

    public static TheoryData<TestDevice, WeightFormat, int> Cases
    {
        get
        {
            var data = new TheoryData<TestDevice, WeightFormat, int>();
            foreach (TestDevice device in new[] { TestDevice.CpuWarp32, TestDevice.Cuda })
            {
                foreach (WeightFormat format in new[] { WeightFormat.Bf16, WeightFormat.Fp8Block, WeightFormat.Nvfp4, WeightFormat.Int4, WeightFormat.Int4Zero })
                    data.Add(device, format, 1);
                data.Add(device, WeightFormat.Fp8Block, 3);
            }
            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void MatchesTheOracle(TestDevice which, WeightFormat format, int tokens)
    {
        using var run = new Case(TestDevices.Get(which), format, tokens, 2);
        float[] y = run.Apply(0, tokens);
        Compare.Close(y, run.Oracle(normed: false), 3e-3);
        if (tokens == 1)
            Assert.Equal(y, run.Apply(0, 1));
    }

    [Theory]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void ATokenHasTheSameBitsAloneAndInABatch(TestDevice which)
    {
        // Three chunks a row of down: three warps.
        using var run = new Case(TestDevices.Get(which), WeightFormat.Bf16, 9, 2, (64, 96, 3));
        float[] nine = run.Apply(0, 9);
        Compare.Close(nine, run.Oracle(normed: false), 3e-3);
        Assert.Equal(nine[(3 * 64)..(5 * 64)], run.Apply(3, 2));
        Assert.Equal(nine[(8 * 64)..], run.Apply(8, 1));
    }

    // More tokens of an expert than an mma has columns; more experts of a token than are on their way at once, by the kernels' own choice, too.
    [Theory]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void MoreThanARoundIsRight(TestDevice which)
    {
        using var crowd = new Case(TestDevices.Get(which), WeightFormat.Bf16, 11, 3, (64, 96, 3));
        float[] y = crowd.Apply(0, 11);
        Compare.Close(y, crowd.Oracle(normed: false), 3e-3);
        Assert.Equal(y[(10 * 64)..], crowd.Apply(10, 1));
        Assert.Equal(y[(2 * 64)..(3 * 64)], crowd.Apply(2, 1));
        Assert.Equal(y[(4 * 64)..(9 * 64)], crowd.Apply(4, 5));
        using var many = new Case(TestDevices.Get(which), WeightFormat.Fp8Block, 1, 19, (128, 64, 23), new ScaleBlock(32, 64));
        Compare.Close(many.Apply(0, 1), many.Oracle(normed: false), 3e-3);
        Assert.Equal(AppliedRouted(many), AppliedRouted(many));
    }

    // As many experts as there is a kernel for, a chunk of each a warp.
    [Theory]
    [InlineData(TestDevice.CpuWarp32, 64, 256, 11)]
    [InlineData(TestDevice.CpuWarp32, 128, 64, 8)]
    [InlineData(TestDevice.Cuda, 64, 256, 11)]
    [InlineData(TestDevice.Cuda, 128, 64, 8)]
    [InlineData(TestDevice.Cuda, 2048, 768, 128)]
    public void EightExpertsOfOneTokenAreRight(TestDevice which, int hidden, int width, int experts)
    {
        using var run = new Case(TestDevices.Get(which), WeightFormat.Fp8Block, 1, 8, (hidden, width, experts), new ScaleBlock(64, 64));
        Assert.Equal(AppliedRouted(run), AppliedRouted(run));
    }

    // A state that is normed already, in all formats: the router's product, then the kernels choose from it.
    [Theory]
    [MemberData(nameof(FedCases))]
    public void OneNormedTokenIsRoutedByItsRouter(TestDevice which, WeightFormat format, bool normalize)
    {
        using var run = new Case(TestDevices.Get(which), format, 1, 3, (128, 128, 16));
        float[] fed = run.ApplyFed(normalize, out float[] logits);
        run.Route(logits, normalize);
        Compare.Close(fed, run.Oracle(normed: false), 3e-3);
        Assert.Equal(fed, run.ApplyFed(normalize, out _));
    }

    // A layer in one launch: one, two and three tiles a block, scales on both sides of a tile, experts that the last tile of a block begins, and a choice with equal logits. What a block computes itself has the bits of what others post.
    [Theory]
    [InlineData(TestDevice.CpuWarp32, 256, 8, 9, 128)]
    [InlineData(TestDevice.Cuda, 128, 16, 17, 32)]
    [InlineData(TestDevice.Cuda, 256, 8, 128, 128)]
    [InlineData(TestDevice.Cuda, 512, 8, 12, 16)]
    [InlineData(TestDevice.Cuda, 768, 8, 24, 128)]
    [InlineData(TestDevice.Cuda, 2048, 3, 3, 128)]
    [InlineData(TestDevice.Cuda, 6144, 1, 1, 128)]
    [InlineData(TestDevice.Cuda, 384, 16, 40, 128)]
    public void OneNormedTokenInOneLaunchMatchesTheOracle(TestDevice which, int width, int topK, int experts, int blockRows)
    {
        GpuDevice device = TestDevices.Get(which);
        if (which == TestDevice.CpuWarp32)
            device = TestDevices.Open(which, warps: 16);
        using var run = new Case(device, WeightFormat.Fp8Block, 1, topK, (2048, width, experts), new ScaleBlock(blockRows, 128));
        foreach (bool normalize in device.IsCuda ? new[] { true, false } : [false])
        {
            using DeviceBuffer<uint> state = device.Upload<uint>(new uint[HopperExperts.StateLength]);
            float[] first = run.ApplyInOneLaunch(normalize, state, null, out float[] logits);
            run.Route(logits, normalize);
            Compare.Close(first, run.Oracle(normed: false), 3e-3);
            // Both sets of words, again and again; then blocks with no patience, some and enough.
            if (device.IsCuda)
                foreach (int? patience in new int?[] { null, null, 1, 2, 1, 7, 20, null, 1, null })
                    Assert.Equal(first, run.ApplyInOneLaunch(normalize, state, patience, out _));
        }
    }

    // 128 blocks a launch, whatever order they count in; over the end of the numbers, too.
    [Fact]
    public void LaunchesTakeTheirSetsInTurn()
    {
        uint start = 0xFFFFFE00;
        for (int launch = 0; launch < 8; launch++)
            for (uint block = 0; block < 128; block++)
                Assert.Equal(launch & 1, GpuKit.Ilgpu.Kernels.HopperExpertState.Set(unchecked(start + (uint)(launch * 128) + block)));
    }

    // Launches that have the card's blocks between them wait for blocks of their own that have no room: none stands still, none is wrong.
    [Fact]
    public void LayersOfOneLaunchRunBesideEachOther()
    {
        const int Width = 256, TopK = 8, Experts = 12, Streams = 4, Launches = 100;
        GpuDevice device = TestDevices.Get(TestDevice.Cuda);
        using var run = new Case(device, WeightFormat.Fp8Block, 1, TopK, (2048, Width, Experts), new ScaleBlock(128, 128));
        using QuantizedMatrix router = QuantizedMatrix.Upload(device, Quantizer.Quantize(RandomData.Gaussian(Experts * 2048, 9, 0.02f), Experts, 2048, WeightFormat.Bf16, null));
        float[][] Residuals(bool together)
        {
            GpuStream[] streams = [.. Enumerable.Range(0, Streams).Select(_ => device.CreateStream())];
            var residuals = new List<DeviceBuffer<float>>();
            var others = new List<IDisposable>(streams);
            foreach (GpuStream stream in streams)
            {
                DeviceBuffer<uint> state = device.Upload<uint>(new uint[HopperExperts.StateLength]);
                DeviceBuffer<BFloat16> x = device.Upload<BFloat16>(RandomData.GaussianBf16(2048, 300 + residuals.Count));
                (DeviceBuffer<int> ids, DeviceBuffer<float> shares, DeviceBuffer<float> logits, DeviceBuffer<float> residual) = (device.Allocate<int>(TopK), device.Allocate<float>(TopK), device.Allocate<float>(Experts), device.Upload<float>(new float[2048]));
                residuals.Add(residual);
                others.AddRange([state, x, ids, shares, logits]);
                device.Synchronize();
                for (int i = 0; i < Launches; i++)
                    HopperExperts.Apply(stream, router, run.Stack, new RoutedToken(new TokenRouting(ids, shares, TopK), logits, true), x, state, residual);
                if (!together)
                    stream.Synchronize();
            }
            foreach (GpuStream stream in streams)
                stream.Synchronize();
            float[][] all = [.. residuals.Select(r => r.ToArray(device.DefaultStream))];
            others.AddRange(residuals);
            others.ForEach(o => o.Dispose());
            return all;
        }
        float[][] alone = Residuals(false);
        Assert.All(alone, r => Assert.All(r, v => Assert.True(float.IsFinite(v))));
        for (int i = 0; i < 5; i++)
            Assert.Equal(alone, Residuals(true));
    }

    // On a device that has all they need, by their shapes alone; one that is right shows that it has.
    [Theory]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void LayersThatAreNotOneLaunchAreRefused(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        if (which == TestDevice.CpuWarp32)
            device = TestDevices.Open(which, warps: 16);
        const int Hidden = 2048, Width = 256, TopK = 8, Experts = 9;
        var whole = new ScaleBlock(128, 128);
        using QuantizedMatrix router = Empty(WeightFormat.Bf16, Experts, Hidden, 1), gateUp = Empty(WeightFormat.Fp8Block, 2 * Width, Hidden, Experts), down = Empty(WeightFormat.Fp8Block, Hidden, Width, Experts);
        using QuantizedMatrix fewer = Empty(WeightFormat.Fp8Block, Hidden, Width, Experts - 1), other = Empty(WeightFormat.Bf16, Experts - 1, Hidden, 1);
        QuantizedMatrix Empty(WeightFormat format, int n, int k, int count, ScaleBlock? block = null) => new(device, format, n, k, count, format == WeightFormat.Fp8Block ? block ?? whole : null);
        Assert.True(HopperExperts.Exists(device, router, new ExpertStack(gateUp, down), TopK));
        Assert.False(HopperExperts.Exists(device, router, new ExpertStack(gateUp, down), TopK - 1));
        Assert.False(HopperExperts.Exists(device, router, new ExpertStack(gateUp, fewer), TopK));
        Assert.False(HopperExperts.Exists(device, other, new ExpertStack(gateUp, down), TopK));
        foreach ((int hidden, int width, int topK, ScaleBlock block) in new[] { (1024, 256, 8, whole), (Hidden, 64, 8, new ScaleBlock(64, 64)), (Hidden, 256, 8, new ScaleBlock(8, 128)), (Hidden, 256, 8, new ScaleBlock(128, 64)), (Hidden, 1024, 8, whole) })
        {
            using QuantizedMatrix ownRouter = Empty(WeightFormat.Bf16, Experts, hidden, 1), ownGateUp = Empty(WeightFormat.Fp8Block, 2 * width, hidden, Experts, block), ownDown = Empty(WeightFormat.Fp8Block, hidden, width, Experts, block);
            Assert.False(HopperExperts.Exists(device, ownRouter, new ExpertStack(ownGateUp, ownDown), topK));
        }
        using DeviceBuffer<uint> state = device.Upload<uint>(new uint[HopperExperts.StateLength]);
        using DeviceBuffer<BFloat16> x = device.Upload<BFloat16>(new BFloat16[Hidden]);
        using DeviceBuffer<float> numbers = device.Upload<float>(new float[Hidden]);
        using DeviceBuffer<int> ids = device.Upload<int>(new int[TopK]);
        var token = new RoutedToken(new TokenRouting(ids, numbers, TopK), numbers, true);
        Assert.Contains("do not run in one launch", Assert.Throws<NotSupportedException>(() => HopperExperts.Apply(device.DefaultStream, router, new ExpertStack(gateUp, fewer), token, x, state, numbers)).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => HopperExperts.Apply(device.DefaultStream, router, new ExpertStack(gateUp, down), token, x, state.View.SubView(0, HopperExperts.StateLength - 1), numbers));
        Assert.DoesNotContain(state.ToArray(device.DefaultStream), w => w != 0);
    }

    // More of a row than the threads of a block ask for at once, on both sides of the router's and of the copies' turns.
    [Theory]
    [InlineData(TestDevice.CpuWarp32, 1088, 16, 3)]
    [InlineData(TestDevice.Cuda, 1088, 16, 3)]
    [InlineData(TestDevice.Cuda, 2048, 128, 8)]
    [InlineData(TestDevice.Cuda, 2304, 16, 3)]
    [InlineData(TestDevice.Cuda, 4224, 48, 8)]
    public void OneNormedTokenOfALongRowIsRoutedByItsRouter(TestDevice which, int hidden, int experts, int topK)
    {
        using var run = new Case(TestDevices.Get(which), WeightFormat.Bf16, 1, topK, (hidden, 64, experts));
        float[] fed = run.ApplyFed(true, out float[] logits);
        run.Route(logits, true);
        Compare.Close(fed, run.Oracle(normed: false), 3e-3);
        Assert.Equal(fed, run.ApplyFed(true, out _));
    }

    public static TheoryData<TestDevice, WeightFormat, bool> FedCases
    {
        get
        {
            var data = new TheoryData<TestDevice, WeightFormat, bool>();
            foreach (TestDevice device in new[] { TestDevice.CpuWarp32, TestDevice.Cuda })
                foreach (WeightFormat format in new[] { WeightFormat.Bf16, WeightFormat.Fp8Block, WeightFormat.Nvfp4, WeightFormat.Int4, WeightFormat.Int4Zero })
                    data.Add(device, format, format != WeightFormat.Nvfp4);
            return data;
        }
    }

    private static float[] AppliedRouted(Case run)
    {
        float[] routed = run.ApplyRouted(true, out float[] logits);
        run.Route(logits, true);
        Compare.Close(routed, run.Oracle(normed: true), 3e-3);
        return routed;
    }

    // All tokens at one expert, and some at others, in as many rounds of eight as there are.
    [Theory]
    [InlineData(TestDevice.CpuWarp32, 32)]
    [InlineData(TestDevice.CpuWarp32, 64)]
    [InlineData(TestDevice.Cuda, 32)]
    [InlineData(TestDevice.Cuda, 64)]
    public void ACrowdAtOneExpertIsRight(TestDevice which, int tokens)
    {
        using var run = new Case(TestDevices.Get(which), WeightFormat.Bf16, tokens, 2, (64, 96, 5));
        for (int t = 0; t < tokens; t++)
            (run.Ids[2 * t], run.Ids[(2 * t) + 1]) = (3, t % 5 == 3 ? -1 : t % 5);
        float[] y = run.Apply(0, tokens);
        Compare.Close(y, run.Oracle(normed: false), 3e-3);
        Assert.Equal(y, run.Apply(0, tokens));
        foreach ((int first, int count) in new[] { (tokens - 1, 1), (5, 1), (3, 9), (7, 20) })
            Assert.Equal(y[(first * 64)..((first + count) * 64)], run.Apply(first, count));
    }

    // More experts than a word of the list has bits, of more tokens than a word has.
    [Theory]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void ManyTokensAmongManyExpertsAreRight(TestDevice which)
    {
        using var run = new Case(TestDevices.Get(which), WeightFormat.Bf16, 37, 2, (32, 32, 300));
        float[] y = run.Apply(0, 37);
        Compare.Close(y, run.Oracle(normed: false), 3e-3);
        Assert.Equal(y[(33 * 32)..], run.Apply(33, 4));
    }

    [Theory]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void NanStaysWithItsToken(TestDevice which)
    {
        using var run = new Case(TestDevices.Get(which), WeightFormat.Fp8Block, 10, 2);
        Array.Fill(run.Ids, 1);
        for (int t = 0; t < 10; t++)
            run.Ids[2 * t] = t % 3 == 0 ? 0 : 2;
        float[] clean = run.Apply(0, 10);
        run.Poison(4);
        float[] y = run.Apply(0, 10);
        for (int t = 0; t < 10; t++)
            if (t == 4)
                Assert.All(y[(t * Hidden)..((t + 1) * Hidden)], v => Assert.True(float.IsNaN(v)));
            else
                Assert.Equal(clean[(t * Hidden)..((t + 1) * Hidden)], y[(t * Hidden)..((t + 1) * Hidden)]);
    }

    // A row of more words than the threads of a block have in two steps, more experts than outputs are added at once, and a token without any.
    [Theory]
    [InlineData(TestDevice.CpuWarp32, 128, 2)]
    [InlineData(TestDevice.CpuWarp32, 1600, 9)]
    [InlineData(TestDevice.Cuda, 128, 2)]
    [InlineData(TestDevice.Cuda, 6400, 19)]
    public void TheNormBehindIsThatOfTheSums(TestDevice which, int hidden, int topK)
    {
        using var run = new Case(TestDevices.Get(which), WeightFormat.Bf16, 3, topK, (hidden, 32, 20));
        for (int j = 0; j < topK; j++)
            run.Ids[topK + j] = -1;
        float[] y = run.ApplyWithNorm(out BFloat16[] normed);
        Assert.Equal(run.Apply(0, 3), y);
        Assert.Equal(run.Residual[hidden..(2 * hidden)], y[hidden..(2 * hidden)]);
        Compare.Close(normed, [.. y.Chunk(hidden).SelectMany(run.Norm)], 5e-3);
    }

    [Theory]
    [InlineData(TestDevice.CpuWarp32, true)]
    [InlineData(TestDevice.CpuWarp32, false)]
    [InlineData(TestDevice.Cuda, true)]
    [InlineData(TestDevice.Cuda, false)]
    public void NormsAndRoutesOneTokenItself(TestDevice which, bool normalize)
    {
        using var run = new Case(TestDevices.Get(which), WeightFormat.Fp8Block, 1, 3);
        float[] y = run.ApplyRouted(normalize, out float[] logits);
        // The oracle then takes the routing that the logits call for.
        run.Route(logits, normalize);
        Compare.Close(y, run.Oracle(normed: true), 3e-3);
    }

    [Theory]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void AnExpertThatDoesNotExistAddsNothing(TestDevice which)
    {
        using var run = new Case(TestDevices.Get(which), WeightFormat.Fp8Block, 1, 3);
        run.Ids[1] = Experts;
        Compare.Close(run.Apply(0, 1), run.Oracle(normed: false), 3e-3);
        run.Ids[0] = -1;
        run.Ids[2] = int.MinValue;
        Assert.Equal(run.Residual, run.Apply(0, 1));
    }

    [Theory]
    [InlineData(2048, 768, 128, 8, 1)]
    [InlineData(2048, 768, 128, 8, 16)]
    [InlineData(512, 256, 40, 8, 64)]
    [InlineData(256, 704, 7, 3, 5)]
    [InlineData(128, 1024, 6, 6, 12)]
    public void LayersOfModelsMatchTheOracle(int hidden, int width, int experts, int topK, int tokens)
    {
        using var run = new Case(TestDevices.Get(TestDevice.Cuda), WeightFormat.Fp8Block, tokens, topK, (hidden, width, experts), new ScaleBlock(64, 128));
        float[] y = run.Apply(0, tokens);
        Compare.Close(y, run.Oracle(normed: false), 3e-3);
        Assert.Equal(y, run.Apply(0, tokens));
        Assert.Equal(y[^hidden..], run.Apply(tokens - 1, 1));
    }

    [Fact]
    public void WhatDoesNotStreamIsRefused()
    {
        using var warp = new Case(TestDevices.Get(TestDevice.CpuWarp32), WeightFormat.Fp8TwoTerm, 1, 2);
        Assert.False(ExpertMlp.Exists(warp.Device, warp.Stack));
        Assert.Throws<NotSupportedException>(() => warp.Apply(0, 1));
        using var narrow = new Case(TestDevices.Get(TestDevice.Cpu), WeightFormat.Bf16, 1, 2);
        Assert.False(ExpertMlp.Exists(narrow.Device, narrow.Stack));
        using var many = new Case(TestDevices.Get(TestDevice.CpuWarp32), WeightFormat.Bf16, 65, 2);
        Assert.Throws<ArgumentOutOfRangeException>(() => many.Apply(0, 65));
        Assert.Throws<ArgumentOutOfRangeException>(() => many.Apply(0, 65, 64));
        using var shifted = GuardedBuffer<float>.Input(many.Device, new float[Hidden + 1]);
        using var ids = GuardedBuffer<int>.Input(many.Device, [0, 1]);
        using var shares = GuardedBuffer<float>.Input(many.Device, [1, 1]);
        using var rows = GuardedBuffer<BFloat16>.Input(many.Device, new BFloat16[Hidden + 1]);
        using var workspace = new ExpertMlpWorkspace(many.Device, new ExpertMlpSize(1, 2, Experts, Hidden, 64));
        var routing = new TokenRouting(ids.View, shares.View, 2);
        foreach ((int x, int residual) in new[] { (1, 0), (0, 1) })
            Assert.Contains("16-byte", Assert.Throws<ArgumentException>(() => ExpertMlp.Apply(many.Device.DefaultStream, many.Stack, routing, rows.View.SubView(x, Hidden), workspace, shifted.View.SubView(residual, Hidden))).Message, StringComparison.Ordinal);
        Assert.Contains("3 tokens", Assert.Throws<ArgumentException>(() => many.Apply(0, 4, 3)).Message, StringComparison.Ordinal);
    }

    /// <summary>Random experts, tokens and routing.</summary>
    private sealed class Case : IDisposable
    {
        private const float Epsilon = 1e-5f;

        private readonly HostMatrix[] gateUp, down;
        private readonly BFloat16[] x, gain;
        private readonly float[] weights;
        private readonly int hidden, width, tokens, topK;

        public Case(GpuDevice device, WeightFormat format, int tokens, int topK, (int Hidden, int Width, int Experts)? size = null, ScaleBlock? fp8Block = null)
        {
            (hidden, width, int experts) = size ?? (Hidden, format is WeightFormat.Fp8Block or WeightFormat.Bf16 ? 64 : 128, Experts);
            (Device, this.tokens, this.topK) = (device, tokens, topK);
            ScaleBlock? block = format == WeightFormat.Fp8Block ? fp8Block ?? new ScaleBlock(32, 64) : null;
            gateUp = Repeated(experts, e => Quantizer.Quantize(RandomData.Gaussian(2 * width * hidden, e, 1 / MathF.Sqrt(hidden)), 2 * width, hidden, format, block));
            down = Repeated(experts, e => Quantizer.Quantize(RandomData.Gaussian(hidden * width, 1000 + e, 1 / MathF.Sqrt(width)), hidden, width, format, block));
            Stack = new ExpertStack(Upload(gateUp), Upload(down));
            x = RandomData.GaussianBf16(tokens * hidden, 5);
            gain = Array.ConvertAll(RandomData.Gaussian(hidden, 6, 0.2f), g => (BFloat16)(1 + g));
            Residual = RandomData.Gaussian(tokens * hidden, 7);
            var random = new Random(8);
            Ids = [.. Enumerable.Range(0, tokens).SelectMany(_ => Enumerable.Range(0, experts).OrderBy(_ => random.Next()).Take(topK).ToArray())];
            weights = [.. Ids.Select(_ => 0.1f + random.NextSingle())];
        }

        public GpuDevice Device { get; }

        public ExpertStack Stack { get; }

        public int[] Ids { get; }

        public float[] Residual { get; }

        /// <summary>The residual stream of some of the tokens afterwards.</summary>
        public float[] Apply(int first, int count, int? most = null)
        {
            using var input = GuardedBuffer<BFloat16>.Input(Device, x.AsSpan(first * hidden, count * hidden));
            using var residual = GuardedBuffer<float>.Input(Device, Residual.AsSpan(first * hidden, count * hidden));
            using var experts = GuardedBuffer<int>.Input(Device, Ids.AsSpan(first * topK, count * topK));
            using var shares = GuardedBuffer<float>.Input(Device, weights.AsSpan(first * topK, count * topK));
            using var workspace = new ExpertMlpWorkspace(Device, new ExpertMlpSize(most ?? count, topK, gateUp.Length, hidden, width));
            var routing = new TokenRouting(experts.View, shares.View, topK);
            ExpertMlp.Apply(Device.DefaultStream, Stack, routing, input.View, workspace, residual.View);
            return residual.ToArray();
        }

        /// <summary>All tokens' residual stream, and its norm.</summary>
        public float[] ApplyWithNorm(out BFloat16[] normed)
        {
            using var rows = GuardedBuffer<BFloat16>.Input(Device, x);
            using var gains = GuardedBuffer<BFloat16>.Input(Device, gain);
            using var residual = GuardedBuffer<float>.Input(Device, Residual);
            using var experts = GuardedBuffer<int>.Input(Device, Ids);
            using var shares = GuardedBuffer<float>.Input(Device, weights);
            using var workspace = new ExpertMlpWorkspace(Device, new ExpertMlpSize(tokens, topK, gateUp.Length, hidden, width));
            var routing = new TokenRouting(experts.View, shares.View, topK);
            ExpertList.Launch(Device.DefaultStream, experts.View, workspace.List(tokens, topK, gateUp.Length), topK, gateUp.Length);
            ExpertMlp.ApplyListed(Device.DefaultStream, Stack, routing, workspace, residual.View, new FollowingNorm(new InputNorm(gains.View, Epsilon), rows.View));
            normed = rows.ToArray();
            return residual.ToArray();
        }

        /// <summary>The norm of one row.</summary>
        public double[] Norm(float[] row)
        {
            double scale = 1 / Math.Sqrt(row.Average(v => (double)v * v) + Epsilon);
            return [.. row.Zip(gain, (v, g) => v * scale * (float)g)];
        }

        /// <summary>Makes a token's inputs NaN.</summary>
        public void Poison(int token) => x.AsSpan(token * hidden, hidden).Fill((BFloat16)float.NaN);

        /// <summary>The one token's residual stream after routing by sums that stand for known logits.</summary>
        public float[] ApplyRouted(bool normalize, out float[] logits)
        {
            long[] units = [.. Enumerable.Range(0, gateUp.Length).Select(e => (long)((((e * 7) % gateUp.Length) - 2.25) * 4294967296.0))];
            double factor = 1 / Math.Sqrt(Residual.Average(r => (double)r * r) + Epsilon);
            using var gains = GuardedBuffer<BFloat16>.Input(Device, gain);
            using var sums = GuardedBuffer<long>.Input(Device, [.. units, .. new long[DecodeLinear.RouterLength(0)]]);
            float[] y = Routed(normalize, [.. units.Select(u => u / 4294967296.0 * factor)], out logits, (routed, activated, residual) =>
                ExpertMlp.ApplyRouted(Device.DefaultStream, Stack, routed, new RouterFeed(Stack.Down, new InputNorm(gains.View, Epsilon), sums.View), activated, residual));
            RequireAnnounced(MemoryMarshal.Cast<long, uint>(sums.ToArray().AsSpan(gateUp.Length)));
            return y;
        }

        /// <summary>The same behind a router's own product, whatever was announced before.</summary>
        public float[] ApplyFed(bool normalize, out float[] logits)
        {
            HostMatrix host = Quantizer.Quantize(RandomData.Gaussian(gateUp.Length * hidden, 9, 1 / MathF.Sqrt(hidden)), gateUp.Length, hidden, WeightFormat.Bf16, null);
            double[] values = MatrixOracle.Values(host);
            using QuantizedMatrix router = QuantizedMatrix.Upload(Device, host);
            using var input = GuardedBuffer<BFloat16>.Input(Device, x);
            int posted = DecodeLinear.PostsLength(gateUp.Length) - DecodeLinear.PostsLength(0);
            using var posts = GuardedBuffer<uint>.Input(Device, [.. new uint[posted], .. Enumerable.Range(1, DecodeLinear.PostsLength(0)).Select(i => (uint)i)]);
            double[] expected = [.. Enumerable.Range(0, gateUp.Length).Select(e => Enumerable.Range(0, hidden).Sum(i => values[(e * hidden) + i] * (double)(float)x[i]))];
            float[] y = Routed(normalize, expected, out logits, (routed, activated, residual) =>
            {
                DecodeLinear.Feed(Device.DefaultStream, router, input.View, posts.View);
                ExpertMlp.ApplyFed(Device.DefaultStream, Stack, routed, posts.View, input.View, activated, residual);
            });
            uint[] words = posts.ToArray();
            Assert.DoesNotContain(words.Take(posted), w => w != 0);
            RequireAnnounced(words[posted..]);
            return y;
        }

        /// <summary>The same in one launch with the router, two experts of which have equal logits.</summary>
        public float[] ApplyInOneLaunch(bool normalize, DeviceBuffer<uint> state, int? patience, out float[] logits)
        {
            float[] rows = RandomData.Gaussian(gateUp.Length * hidden, 9, 1 / MathF.Sqrt(hidden));
            if (gateUp.Length > 1)
                rows.AsSpan(hidden, hidden).CopyTo(rows);
            HostMatrix host = Quantizer.Quantize(rows, gateUp.Length, hidden, WeightFormat.Bf16, null);
            double[] values = MatrixOracle.Values(host);
            using QuantizedMatrix router = QuantizedMatrix.Upload(Device, host);
            using var input = GuardedBuffer<BFloat16>.Input(Device, x);
            double[] expected = [.. Enumerable.Range(0, gateUp.Length).Select(e => Enumerable.Range(0, hidden).Sum(i => values[(e * hidden) + i] * (double)(float)x[i]))];
            return Routed(normalize, expected, out logits, (routed, _, residual) => HopperExperts.Apply(Device.DefaultStream, router, Stack, routed, input.View, state, residual, patience));
        }

        private float[] Routed(bool normalize, double[] expected, out float[] logits, Action<RoutedToken, ArrayView<BFloat16>, ArrayView<float>> apply)
        {
            using var residual = GuardedBuffer<float>.Input(Device, Residual);
            using var experts = GuardedBuffer<int>.Output(Device, topK);
            using var shares = GuardedBuffer<float>.Output(Device, topK);
            using var scores = GuardedBuffer<float>.Output(Device, gateUp.Length);
            using var activated = GuardedBuffer<BFloat16>.Output(Device, topK * width);
            apply(new RoutedToken(new TokenRouting(experts.View, shares.View, topK), scores.View, normalize), activated.View, residual.View);
            logits = scores.ToArray();
            Compare.Close(logits, expected, 1e-6);
            float[] y = residual.ToArray();
            Route(logits, normalize);
            Assert.Equal(Ids, experts.ToArray());
            Compare.Close(shares.ToArray(), [.. weights.Select(w => (double)w)], 1e-5);
            return y;
        }

        private void RequireAnnounced(ReadOnlySpan<uint> words) => Assert.Equal(Ids, words[..topK].ToArray().Select(e => (int)e - 1));

        /// <summary>Replaces the routing by what logits call for.</summary>
        public void Route(float[] logits, bool normalize)
        {
            double[] mass = [.. logits.Select(l => Math.Exp((double)l - logits.Max()))];
            int[] order = [.. Enumerable.Range(0, logits.Length).OrderByDescending(e => logits[e]).ThenBy(e => e).Take(topK)];
            double total = normalize ? order.Sum(e => mass[e]) : mass.Sum();
            for (int j = 0; j < topK; j++)
                (Ids[j], weights[j]) = (order[j], (float)(mass[order[j]] / total));
        }

        public double[] Oracle(bool normed)
        {
            int[] chosen = [.. Ids.Where(e => e >= 0 && e < gateUp.Length).Distinct()];
            Dictionary<int, double[]> gateUps = chosen.ToDictionary(e => e, e => MatrixOracle.Values(gateUp[e])), downs = chosen.ToDictionary(e => e, e => MatrixOracle.Values(down[e]));
            double[] y = Array.ConvertAll(Residual, r => (double)r);
            for (int pair = 0; pair < Ids.Length; pair++)
            {
                int token = pair / topK, e = Ids[pair];
                if (e < 0 || e >= gateUp.Length)
                    continue;
                double[] input = [.. x.AsSpan(token * hidden, hidden).ToArray().Select(v => (double)(float)v)];
                if (normed)
                {
                    double[] r = [.. Residual.AsSpan(token * hidden, hidden).ToArray().Select(v => (double)v)];
                    double scale = 1 / Math.Sqrt(r.Average(v => v * v) + Epsilon);
                    input = [.. r.Zip(gain, (v, g) => v * scale * (float)g)];
                }
                double[] both = Multiply(gateUps[e], input);
                double[] inner = [.. Enumerable.Range(0, width).Select(i => both[i] / (1 + Math.Exp(-both[i])) * both[width + i])];
                double[] output = Multiply(downs[e], inner);
                for (int i = 0; i < hidden; i++)
                    y[(token * hidden) + i] += weights[pair] * output[i];
            }
            return y;
        }

        public void Dispose()
        {
            Stack.GateUp.Dispose();
            Stack.Down.Dispose();
        }

        // Eleven different experts, again and again: a neighbour is never the same, and many need not be made.
        private static HostMatrix[] Repeated(int experts, Func<int, HostMatrix> make)
        {
            HostMatrix[] different = [.. Enumerable.Range(0, experts > 32 ? 11 : experts).Select(make)];
            return [.. Enumerable.Range(0, experts).Select(e => different[e % different.Length])];
        }

        private QuantizedMatrix Upload(HostMatrix[] hosts)
        {
            var matrix = new QuantizedMatrix(Device, hosts[0].Format, hosts[0].N, hosts[0].K, hosts.Length, hosts[0].Block);
            for (int e = 0; e < hosts.Length; e++)
                matrix.Write(e, 0, hosts[e]);
            return matrix;
        }

        private static double[] Multiply(double[] w, double[] v)
        {
            var y = new double[w.Length / v.Length];
            for (int n = 0; n < y.Length; n++)
                for (int k = 0; k < v.Length; k++)
                    y[n] += w[(n * v.Length) + k] * v[k];
            return y;
        }
    }
}
