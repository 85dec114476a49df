using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Layers of experts whose launches overlap in a graph: logits and choices that the launch before posts are its own, never those of the layer or the token before.</summary>
public sealed class FedGraphTests
{
    private const int TopK = 8, Layers = 20, Kinds = 3, Replays = 20;

    [Theory]
    [InlineData(true, true)]
    [InlineData(true, false)]
    [InlineData(false, true)]
    [InlineData(false, false)]
    public void ReplayedLayersAreTheSameLaunches(bool norms, bool overlap)
    {
        using var chain = new Chain(TestDevices.Get(TestDevice.Cuda), (256, 128, 32), Layers, norms);
        Compare(chain, overlap);
    }

    /// <summary>A layer a launch: an odd number of them, so that a replay begins with the words that the last one ended with.</summary>
    [Theory]
    [InlineData(20, false, true, null)]
    [InlineData(21, false, true, null)]
    [InlineData(21, true, true, null)]
    [InlineData(21, false, false, null)]
    [InlineData(5, false, true, 1)]
    public void ReplayedLayersOfOneLaunchAreTheSame(int layers, bool norms, bool overlap, int? patience)
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cuda);
        using var chain = new Chain(device, (2048, 256, 12), layers, norms, patience);
        Assert.SkipUnless(chain.IsOneLaunch, "The card has no copy engine or too few multiprocessors.");
        Compare(chain, overlap);
    }

    private static void Compare(Chain chain, bool overlap)
    {
        GpuDevice device = chain.Device;
        using GpuStream stream = device.CreateStream();
        chain.Begin(stream, 0);
        chain.Run(stream);
        using GpuGraph graph = GpuGraph.Capture(stream, () => chain.Run(stream), overlap);
        for (int replay = 0; replay < Replays; replay++)
        {
            chain.Begin(stream, replay);
            chain.Run(stream);
            (float[] residual, int[] chosen, float[] logits) = chain.End(stream);
            chain.Begin(stream, replay);
            graph.Replay(stream);
            (float[] replayed, int[] replayedChosen, float[] replayedLogits) = chain.End(stream);
            Assert.Equal(chosen, replayedChosen);
            Assert.Equal(logits, replayedLogits);
            Assert.Equal(residual, replayed);
            // Layers choose for themselves, and tokens, too.
            Assert.True(Enumerable.Range(0, chain.Layers - 1).Count(i => !chosen.AsSpan(i * TopK, TopK).SequenceEqual(chosen.AsSpan((i + 1) * TopK, TopK))) > chain.Layers / 2);
        }
    }

    /// <summary>One token through many layers of a few kinds, by the launches that a session makes.</summary>
    private sealed class Chain : IDisposable
    {
        private readonly bool norms;
        private readonly int? patience;
        private readonly int hidden, experts;
        private readonly QuantizedMatrix[] routers, gateUps, downs;
        private readonly DeviceBuffer<BFloat16> gain, x, activated;
        private readonly DeviceBuffer<float> residual, shares, logits;
        private readonly DeviceBuffer<int> chosen;
        private readonly DeviceBuffer<uint> posts, state;

        public Chain(GpuDevice device, (int Hidden, int Width, int Experts) size, int layers, bool norms, int? patience = null)
        {
            (Device, Layers, this.norms, this.patience) = (device, layers, norms, patience);
            (hidden, int width, experts) = size;
            QuantizedMatrix Matrix(int n, int k, int count, WeightFormat format, int seed)
            {
                ScaleBlock? block = format == WeightFormat.Fp8Block ? new ScaleBlock(32, hidden < 2048 ? 64 : 128) : null;
                var matrix = new QuantizedMatrix(device, format, n, k, count, block);
                for (int e = 0; e < count; e++)
                    matrix.Write(e, 0, Quantizer.Quantize(RandomData.Gaussian(n * k, seed + e, 1 / MathF.Sqrt(k)), n, k, format, block));
                return matrix;
            }
            routers = [.. Enumerable.Range(0, Kinds).Select(i => Matrix(experts, hidden, 1, WeightFormat.Bf16, 10_000 * i))];
            gateUps = [.. Enumerable.Range(0, Kinds).Select(i => Matrix(2 * width, hidden, experts, WeightFormat.Fp8Block, (10_000 * i) + 1000))];
            downs = [.. Enumerable.Range(0, Kinds).Select(i => Matrix(hidden, width, experts, WeightFormat.Fp8Block, (10_000 * i) + 2000))];
            gain = device.Upload<BFloat16>(RandomData.GaussianBf16(hidden, 1));
            x = device.Upload<BFloat16>(new BFloat16[hidden]);
            activated = device.Allocate<BFloat16>(TopK * width);
            residual = device.Allocate<float>(hidden);
            shares = device.Allocate<float>(Layers * TopK);
            logits = device.Allocate<float>(Layers * experts);
            chosen = device.Allocate<int>(Layers * TopK);
            state = device.Upload<uint>(new uint[HopperExperts.StateLength]);
            posts = device.Upload<uint>(new uint[DecodeLinear.PostsLength(experts)]);
        }

        public GpuDevice Device { get; }

        public int Layers { get; }

        public bool IsOneLaunch => HopperExperts.Exists(Device, routers[0], new ExpertStack(gateUps[0], downs[0]), TopK);

        public void Begin(GpuStream stream, int token)
        {
            residual.CopyFrom(stream, RandomData.Gaussian(hidden, 100 + token));
            x.CopyFrom(stream, RandomData.GaussianBf16(hidden, 200 + token));
            logits.Fill(stream, 0xFF);
            chosen.Fill(stream, 0xFF);
        }

        public void Run(GpuStream stream)
        {
            for (int i = 0; i < Layers; i++)
            {
                if (norms)
                    RmsNorm.Apply(stream, residual, gain, x, new(1, hidden, 1e-6f));
                var routing = new TokenRouting(chosen.View.SubView(i * TopK, TopK), shares.View.SubView(i * TopK, TopK), TopK);
                var token = new RoutedToken(routing, logits.View.SubView(i * experts, experts), true);
                var stack = new ExpertStack(gateUps[i % Kinds], downs[i % Kinds]);
                if (IsOneLaunch)
                {
                    HopperExperts.Apply(stream, routers[i % Kinds], stack, token, x, state, residual, patience);
                    continue;
                }
                DecodeLinear.Feed(stream, routers[i % Kinds], x, posts);
                ExpertMlp.ApplyFed(stream, stack, token, posts, x, activated, residual);
            }
        }

        public (float[] Residual, int[] Chosen, float[] Logits) End(GpuStream stream)
        {
            Assert.DoesNotContain(posts.ToArray(stream).Take(DecodeLinear.PostsLength(experts) - DecodeLinear.PostsLength(0)), word => word != 0);
            return (residual.ToArray(stream), chosen.ToArray(stream), logits.ToArray(stream));
        }

        public void Dispose()
        {
            foreach (IDisposable own in (IDisposable[])[.. routers, .. gateUps, .. downs, gain, x, activated, residual, shares, logits, chosen, posts, state])
                own.Dispose();
        }
    }
}
