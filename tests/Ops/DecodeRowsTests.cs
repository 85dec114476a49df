using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

public sealed class DecodeRowsTests
{
    private const int Experts = 37, TopK = 3;
    private const float Epsilon = 1e-5f;

    public static TheoryData<TestDevice, WeightFormat, int, int, int> Cases
    {
        get
        {
            var data = new TheoryData<TestDevice, WeightFormat, int, int, int>
            {
                { TestDevice.CpuWarp32, WeightFormat.Fp8Block, 32, 64 * 19, 3 },
                { TestDevice.CpuWarp32, WeightFormat.Fp8Block, 32, 256, 11 },
                { TestDevice.CpuWarp32, WeightFormat.Bf16, 32, 64, 16 },
                // A row of more numbers than a warp asks for at once.
                { TestDevice.CpuWarp32, WeightFormat.Bf16, 2592, 64, 2 },
            };
            foreach (WeightFormat format in new[] { WeightFormat.Bf16, WeightFormat.Fp8Block, WeightFormat.Nvfp4, WeightFormat.Int4, WeightFormat.Int4Zero })
                foreach (int tokens in new[] { 1, 8, 16 })
                    data.Add(TestDevice.Cuda, format, 2048, 4096, tokens);
            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void TokensAreAddedRoutedAndNormedAsByTheOracleAndAsAlone(TestDevice which, WeightFormat format, int n, int k, int tokens)
    {
        using var run = new Case(TestDevices.Get(which), format, n, k);
        // One token in four is not there.
        int[] positions = [.. Enumerable.Range(0, tokens).Select(t => t % 4 == 1 ? -1 : t)];
        BFloat16[] x = RandomData.GaussianBf16(tokens * k, 2);
        float[] before = RandomData.Gaussian(tokens * n, 4);
        Result all = run.Apply(x, before, positions);
        for (int t = 0; t < tokens; t++)
        {
            int[] ids = all.Ids[(t * TopK)..((t + 1) * TopK)];
            Assert.Equal(positions[t] < 0, ids.All(id => id == -1));
            BFloat16[] row = x[(t * k)..((t + 1) * k)];
            float[] own = before[(t * n)..((t + 1) * n)];
            Result alone = run.Apply(row, own, [positions[t]]);
            Assert.Equal(alone.Residual, all.Residual[(t * n)..((t + 1) * n)]);
            Assert.Equal(alone.Normed, all.Normed[(t * n)..((t + 1) * n)]);
            Assert.Equal(alone.Ids, ids);
            Assert.Equal(alone.Weights, all.Weights[(t * TopK)..((t + 1) * TopK)]);
            Assert.Equal(alone.Logits, all.Logits[(t * Experts)..((t + 1) * Experts)]);
            if (positions[t] >= 0 && t < 3)
                run.CheckOracle(row, own, alone);
        }
    }

    // Few values, so that ties stand in a lane, between lanes and across the k-th place.
    [Theory]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void ChoicesAreThoseOfAStableSort(TestDevice which)
    {
        const int Tokens = 16, Hidden = 64;
        GpuDevice device = TestDevices.Get(which);
        var random = new Random(1);
        foreach ((int experts, int k) in new[] { (1, 1), (3, 2), (4, 4), (5, 5), (31, 8), (32, 32), (33, 8), (100, 10), (127, 32), (128, 8), (128, 32) })
        {
            long[] units = [.. Enumerable.Range(0, Tokens * experts).Select(_ => random.Next(-3, 4) * (1L << random.Next(20, 34)))];
            using QuantizedMatrix router = QuantizedMatrix.Upload(device, Quantizer.Quantize(new float[experts * Hidden], experts, Hidden, WeightFormat.Bf16));
            using var residual = GuardedBuffer<float>.Input(device, RandomData.Gaussian(Tokens * Hidden, 1));
            using var gains = GuardedBuffer<BFloat16>.Input(device, RandomData.GaussianBf16(Hidden, 2));
            using var sums = GuardedBuffer<long>.Input(device, units);
            using var position = GuardedBuffer<int>.Input(device, new int[Tokens]);
            using var normed = GuardedBuffer<BFloat16>.Output(device, Tokens * Hidden);
            using var ids = GuardedBuffer<int>.Output(device, Tokens * k);
            using GuardedBuffer<float> weights = GuardedBuffer<float>.Output(device, Tokens * k), logits = GuardedBuffer<float>.Output(device, Tokens * experts);
            using var workspace = new ExpertMlpWorkspace(device, new ExpertMlpSize(Tokens, k, experts, Hidden, 1));
            var routed = new RoutedRows(new TokenRouting(ids.View, weights.View, k), logits.View, position.View, Normalize: true);
            DecodeRows.Route(device.DefaultStream, residual.View, new RouterFeed(router, new InputNorm(gains.View, Epsilon), sums.View), normed.View, routed, workspace);
            ExpertListTests.Check(workspace, ids.ToArray(), Tokens, experts, k);
            int[][] expected = [.. units.Chunk(experts).Select(row => Enumerable.Range(0, experts).OrderByDescending(e => row[e]).Take(k).ToArray())];
            Assert.Equal(expected.SelectMany(e => e), ids.ToArray());
            Assert.All(sums.ToArray(), s => Assert.Equal(0, s));
        }
    }

    private sealed record Result(float[] Residual, BFloat16[] Normed, int[] Ids, float[] Weights, float[] Logits);

    private sealed class Case : IDisposable
    {
        private readonly GpuDevice device;
        private readonly HostMatrix host, gate;
        private readonly QuantizedMatrix matrix, router;
        private readonly BFloat16[] gain;

        public Case(GpuDevice device, WeightFormat format, int n, int k)
        {
            this.device = device;
            host = Quantizer.Quantize(RandomData.Gaussian(n * k, 1, 1 / MathF.Sqrt(k)), n, k, format, format == WeightFormat.Fp8Block ? new ScaleBlock(32, 64) : null);
            gate = Quantizer.Quantize(RandomData.Gaussian(Experts * n, 3, 1 / MathF.Sqrt(n)), Experts, n, WeightFormat.Bf16);
            (matrix, router) = (QuantizedMatrix.Upload(device, host), QuantizedMatrix.Upload(device, gate));
            gain = Array.ConvertAll(RandomData.Gaussian(n, 5, 0.2f), g => (BFloat16)(1 + g));
        }

        public Result Apply(BFloat16[] x, float[] before, int[] positions)
        {
            int tokens = positions.Length;
            using var input = GuardedBuffer<BFloat16>.Input(device, x);
            using var residual = GuardedBuffer<float>.Input(device, before);
            using var gains = GuardedBuffer<BFloat16>.Input(device, gain);
            using var sums = GuardedBuffer<long>.Input(device, new long[tokens * Experts]);
            using var position = GuardedBuffer<int>.Input(device, positions);
            using var normed = GuardedBuffer<BFloat16>.Output(device, before.Length);
            using var ids = GuardedBuffer<int>.Output(device, tokens * TopK);
            using GuardedBuffer<float> weights = GuardedBuffer<float>.Output(device, tokens * TopK), logits = GuardedBuffer<float>.Output(device, tokens * Experts);
            var feed = new RouterFeed(router, new InputNorm(gains.View, Epsilon), sums.View);
            DecodeRows.Add(device.DefaultStream, matrix, input.View, residual.View, feed, position.View);
            using var workspace = new ExpertMlpWorkspace(device, new ExpertMlpSize(tokens, TopK, Experts, before.Length / tokens, 1));
            var routed = new RoutedRows(new TokenRouting(ids.View, weights.View, TopK), logits.View, position.View, Normalize: false);
            DecodeRows.Route(device.DefaultStream, residual.View, feed, normed.View, routed, workspace);
            Assert.All(sums.ToArray(), s => Assert.Equal(0, s));
            return new Result(residual.ToArray(), normed.ToArray(), ids.ToArray(), weights.ToArray(), logits.ToArray());
        }

        public void CheckOracle(BFloat16[] x, float[] before, Result result)
        {
            double[] residual = [.. Multiply(MatrixOracle.Values(host), [.. x.Select(v => (double)(float)v)]).Zip(before, (v, b) => v + b)];
            Compare.Close(result.Residual, residual, 1e-3);
            double scale = 1 / Math.Sqrt(residual.Average(v => v * v) + Epsilon);
            double[] normed = [.. residual.Zip(gain, (v, g) => v * scale * (float)g)];
            Compare.Close(result.Normed, normed, 5e-3);
            double[] logits = Multiply(MatrixOracle.Values(gate), normed);
            Compare.Close(result.Logits, logits, 1e-3);
            // The choice is that of the logits that it was made from.
            int[] order = [.. Enumerable.Range(0, Experts).OrderByDescending(e => result.Logits[e]).Take(TopK)];
            Assert.Equal(order, result.Ids);
            double mass = result.Logits.Sum(l => Math.Exp(l));
            Compare.Close(result.Weights, [.. order.Select(e => Math.Exp(result.Logits[e]) / mass)], 1e-4);
        }

        public void Dispose()
        {
            matrix.Dispose();
            router.Dispose();
        }

        private static double[] Multiply(double[] matrix, double[] x) => [.. matrix.Chunk(x.Length).Select(row => row.Zip(x, (a, b) => a * b).Sum())];
    }
}
