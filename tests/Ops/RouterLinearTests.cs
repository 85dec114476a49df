using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

public sealed class RouterLinearTests
{
    [Theory]
    [InlineData(TestDevice.CpuWarp32, 1, 5, 64, 2)]
    [InlineData(TestDevice.CpuWarp32, 3, 33, 96, 4)]
    [InlineData(TestDevice.CpuWarp32, 11, 17, 160, 3)]
    [InlineData(TestDevice.Cuda, 1, 128, 2048, 8)]
    [InlineData(TestDevice.Cuda, 9, 512, 2048, 16)]
    [InlineData(TestDevice.Cuda, 64, 128, 2048, 8)]
    [InlineData(TestDevice.Cuda, 17, 33, 4128, 4)]
    public void ChoosesByItsOwnLogits(TestDevice which, int tokens, int experts, int hidden, int topK)
    {
        using var run = new Case(TestDevices.Get(which), tokens, experts, hidden, topK);
        (float[] logits, int[] ids, float[] weights) = run.Route(0, tokens, [], true);
        Compare.Close(logits, run.Oracle(), 1e-4);
        // The choice is the router's of the same logits, bit for bit.
        (int[] expectedIds, float[] expectedWeights) = run.Select(logits, tokens, true);
        Assert.Equal(expectedIds, ids);
        Assert.Equal(expectedWeights, weights);
        // A token by itself.
        (float[] alone, int[] aloneIds, float[] aloneWeights) = run.Route(tokens - 1, 1, [], true);
        Assert.Equal(logits[^experts..], alone);
        Assert.Equal(ids[^topK..], aloneIds);
        Assert.Equal(weights[^topK..], aloneWeights);
    }

    [Theory]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void TokensThatAreNotThereChooseNothing(TestDevice which)
    {
        using var run = new Case(TestDevices.Get(which), 3, 20, 64, 2);
        (float[] logits, int[] ids, float[] weights) = run.Route(0, 3, [4, -1, 0], false);
        (int[] expectedIds, float[] expectedWeights) = run.Select(logits, 3, false);
        Assert.Equal([.. expectedIds[..2], -1, -1, .. expectedIds[4..]], ids);
        Assert.Equal([.. expectedWeights[..2], 0, 0, .. expectedWeights[4..]], weights);
    }

    [Theory]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void TiesGoToTheLowestIndexAndNaNIsLast(TestDevice which)
    {
        using var run = new Case(TestDevices.Get(which), 2, 40, 64, 3);
        // Every expert has the same row; the second token is NaN.
        run.Repeat();
        run.X[64 + 3] = (BFloat16)float.NaN;
        (_, int[] ids, float[] weights) = run.Route(0, 2, [], true);
        Assert.Equal([0, 1, 2, 0, 1, 2], ids);
        Assert.Equal([weights[0], weights[0], weights[0], 0, 0, 0], weights);
    }

    [Fact]
    public void WhatDoesNotFitIsRefused()
    {
        using var run = new Case(TestDevices.Get(TestDevice.CpuWarp32), 1, 5, 64, 2);
        Assert.Throws<ArgumentOutOfRangeException>(() => run.Route(0, 0, [], true));
        using var ragged = new Case(TestDevices.Get(TestDevice.CpuWarp32), 1, 5, 72, 2);
        Assert.Throws<NotSupportedException>(() => ragged.Route(0, 1, [], true));
        using var many = new Case(TestDevices.Get(TestDevice.CpuWarp32), 1, 513, 64, 2);
        Assert.Throws<NotSupportedException>(() => many.Route(0, 1, [], true));
    }

    /// <summary>A random router and tokens; the counters live on from call to call.</summary>
    private sealed class Case : IDisposable
    {
        private readonly int experts, hidden, topK;
        private readonly GuardedBuffer<int> counters;
        private HostMatrix host;
        private QuantizedMatrix router;

        public Case(GpuDevice device, int tokens, int experts, int hidden, int topK)
        {
            (Device, this.experts, this.hidden, this.topK) = (device, experts, hidden, topK);
            host = Quantizer.Quantize(RandomData.Gaussian(experts * hidden, 3, 1 / MathF.Sqrt(hidden)), experts, hidden, WeightFormat.Bf16);
            router = QuantizedMatrix.Upload(device, host);
            X = RandomData.GaussianBf16(tokens * hidden, 4);
            counters = GuardedBuffer<int>.Input(device, new int[RouterLinear.Counters]);
        }

        public GpuDevice Device { get; }

        public BFloat16[] X { get; }

        public void Repeat()
        {
            float[] values = Quantizer.Dequantize(host);
            router.Dispose();
            host = Quantizer.Quantize([.. Enumerable.Range(0, experts).SelectMany(_ => values[..hidden])], experts, hidden, WeightFormat.Bf16);
            router = QuantizedMatrix.Upload(Device, host);
        }

        public (float[] Logits, int[] Ids, float[] Weights) Route(int first, int count, int[] positions, bool normalize)
        {
            using var x = GuardedBuffer<BFloat16>.Input(Device, X.AsSpan(first * hidden, count * hidden));
            using var there = GuardedBuffer<int>.Input(Device, positions);
            using var logits = GuardedBuffer<float>.Output(Device, count * experts);
            using var ids = GuardedBuffer<int>.Output(Device, count * topK);
            using var weights = GuardedBuffer<float>.Output(Device, count * topK);
            RouterLinear.Route(Device.DefaultStream, router, x.View, new RoutedRows(new TokenRouting(ids.View, weights.View, topK), logits.View, there.View, normalize), counters.View, count);
            Assert.All(counters.ToArray(), c => Assert.Equal(0, c));
            return (logits.ToArray(), ids.ToArray(), weights.ToArray());
        }

        public (int[] Ids, float[] Weights) Select(float[] logits, int tokens, bool normalize)
        {
            using var input = GuardedBuffer<float>.Input(Device, logits);
            using var ids = GuardedBuffer<int>.Output(Device, tokens * topK);
            using var weights = GuardedBuffer<float>.Output(Device, tokens * topK);
            Router.SelectExperts(Device.DefaultStream, input.View, ids.View, weights.View, tokens, new RouterOptions(experts, topK, normalize));
            return (ids.ToArray(), weights.ToArray());
        }

        public double[] Oracle()
        {
            float[] w = Quantizer.Dequantize(host);
            var logits = new double[X.Length / hidden * experts];
            for (int i = 0; i < logits.Length; i++)
                for (int k = 0; k < hidden; k++)
                    logits[i] += (double)(float)X[(i / experts * hidden) + k] * w[(i % experts * hidden) + k];
            return logits;
        }

        public void Dispose()
        {
            router.Dispose();
            counters.Dispose();
        }
    }
}
