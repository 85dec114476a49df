using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Layers of experts whose launches overlap in a graph: logits and choices that the launch before posts are its own, never those of the layer or the token before.</summary>
public sealed class FedGraphTests
{
    private const int TopK = 8, Layers = 20, Kinds = 3, Replays = 20;

    // Experts of one size in two launches, of the other in one.
    [Theory]
    [InlineData(256, 128, 32, true, true)]
    [InlineData(256, 128, 32, true, false)]
    [InlineData(256, 128, 32, false, true)]
    [InlineData(256, 128, 32, false, false)]
    [InlineData(2048, 768, 16, true, true)]
    [InlineData(2048, 768, 16, true, false)]
    [InlineData(2048, 768, 16, false, true)]
    public void ReplayedLayersAreTheSameLaunches(int hidden, int width, int experts, bool norms, bool overlap)
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cuda);
        using var chain = new Chain(device, (hidden, width, experts), norms);
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
            Assert.True(Enumerable.Range(0, Layers - 1).Count(i => !chosen.AsSpan(i * TopK, TopK).SequenceEqual(chosen.AsSpan((i + 1) * TopK, TopK))) > Layers / 2);
        }
    }

    /// <summary>One token through many layers of a few kinds, by the launches that a session makes.</summary>
    private sealed class Chain : IDisposable
    {
        private readonly bool norms;
        private readonly int hidden, experts;
        private readonly QuantizedMatrix[] routers, gateUps, downs;
        private readonly DeviceBuffer<BFloat16> gain, x, activated;
        private readonly DeviceBuffer<float> residual, shares, logits;
        private readonly DeviceBuffer<int> chosen;
        private readonly DeviceBuffer<uint> posts;

        public Chain(GpuDevice device, (int Hidden, int Width, int Experts) size, bool norms)
        {
            (hidden, int width, experts) = size;
            this.norms = norms;
            QuantizedMatrix Matrix(int n, int k, int count, WeightFormat format, int seed)
            {
                ScaleBlock? block = format == WeightFormat.Fp8Block ? new ScaleBlock(32, 64) : null;
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
            posts = device.Upload<uint>(new uint[DecodeLinear.PostsLength(experts, hidden)]);
        }

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
                DecodeLinear.Feed(stream, routers[i % Kinds], x, posts);
                var routing = new TokenRouting(chosen.View.SubView(i * TopK, TopK), shares.View.SubView(i * TopK, TopK), TopK);
                var token = new RoutedToken(routing, logits.View.SubView(i * experts, experts), true);
                ExpertMlp.ApplyFed(stream, new ExpertStack(gateUps[i % Kinds], downs[i % Kinds]), token, posts, x, activated, residual);
            }
        }

        public (float[] Residual, int[] Chosen, float[] Logits) End(GpuStream stream)
        {
            Assert.DoesNotContain(posts.ToArray(stream).Take(DecodeLinear.PostsLength(experts) - DecodeLinear.PostsLength(0)), word => word != 0);
            return (residual.ToArray(stream), chosen.ToArray(stream), logits.ToArray(stream));
        }

        public void Dispose()
        {
            foreach (IDisposable own in (IDisposable[])[.. routers, .. gateUps, .. downs, gain, x, activated, residual, shares, logits, chosen, posts])
                own.Dispose();
        }
    }
}
