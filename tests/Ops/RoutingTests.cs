using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

public sealed class RoutingTests
{
    [Theory]
    [CombinatorialDevices(1, 1, 1)]
    [CombinatorialDevices(5, 4, 1)]
    [CombinatorialDevices(3, 16, 2)]
    [CombinatorialDevices(3, 33, 3)]
    [CombinatorialDevices(3, 128, 8)]
    [CombinatorialDevices(2, 512, 16)]
    [CombinatorialDevices(2, 513, 2)]
    [CombinatorialDevices(1, 4096, 4)]
    [CombinatorialDevices(1, 32, 32)]
    public void ChoosesTheMostProbableExperts(TestDevice which, int tokens, int experts, int topK)
    {
        // Multiples of 1/4: many ties.
        float[] logits = Array.ConvertAll(RandomData.Gaussian(tokens * experts, seed: experts, factor: 2), x => MathF.Round(x * 4) / 4);
        foreach (bool normalize in (bool[])[false, true])
        {
            (int[] ids, float[] weights) = Select(TestDevices.Get(which), logits, tokens, new(experts, topK, normalize));
            (int[] expectedIds, double[] expectedWeights) = Oracle(logits, tokens, experts, topK, normalize);
            Assert.Equal(expectedIds, ids);
            Compare.Close(weights, expectedWeights, 1e-5);
        }
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void SpecialLogitsHangNothing(TestDevice which)
    {
        const float NaN = float.NaN, Inf = float.PositiveInfinity;
        GpuDevice device = TestDevices.Get(which);
        float[] logits =
        [
            NaN, 1, NaN, -Inf, 1,
            NaN, NaN, NaN, NaN, NaN,
            -Inf, -Inf, NaN, -Inf, NaN,
            Inf, 0, Inf, -Inf, 0,
            0f, -0f, -1, 0f, -2,
        ];
        (int[] ids, float[] weights) = Select(device, logits, 5, new(5, 4, NormalizeTopK: true));
        Assert.Equal([1, 4, 3, 0, 0, 1, 2, 3, 0, 1, 3, 2, 0, 2, 1, 4, 0, 1, 3, 2], ids);
        Assert.Equal([0.5f, 0.5f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.5f, 0.5f, 0, 0], weights[..16]);
        Assert.Equal(weights[16], weights[17]);
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void TokensThatAreNotThereChooseNothing(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        GpuStream stream = device.DefaultStream;
        float[] logits = [1, 3, 2, float.NaN, float.NaN, float.NaN, 0, 1, 5];
        using var input = GuardedBuffer<float>.Input(device, logits);
        using var positions = GuardedBuffer<int>.Input(device, [0, -1, 7]);
        using var ids = GuardedBuffer<int>.Output(device, 6);
        using var weights = GuardedBuffer<float>.Output(device, 6);
        Router.SelectExperts(stream, input.View, (ids.View, weights.View), 3, new(3, 2, true), positions.View);
        Assert.Equal([1, 2, -1, -1, 2, 1], ids.ToArray());
        Assert.Equal([0f, 0f], weights.ToArray()[2..4]);
        Assert.True(weights.ToArray()[4] > 0.9f);
    }

    [Theory]
    [CombinatorialDevices(0, 4)]
    [CombinatorialDevices(1, 4)]
    [CombinatorialDevices(33, 1)]
    [CombinatorialDevices(480, 8)]
    [CombinatorialDevices(1001, 16)]
    public void SortsPairsByExpertStably(TestDevice which, int pairs, int experts)
    {
        GpuDevice device = TestDevices.Get(which);
        var random = new Random(pairs);
        foreach (int spread in (int[])[experts, 1])
            CheckSort(device, [.. Enumerable.Range(0, pairs).Select(_ => random.Next(spread) + experts - spread)], experts);
    }

    [Theory]
    [InlineData(1_000_003, 128)]
    [InlineData(65_536, 512)]
    [InlineData(8, 128)]
    public void SortsManyPairs(int pairs, int experts)
    {
        var random = new Random(pairs);
        CheckSort(TestDevices.Get(TestDevice.Cuda), [.. Enumerable.Range(0, pairs).Select(_ => random.Next(experts))], experts);
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void PairsOfNoExpertAreLeftOut(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        using var ids = GuardedBuffer<int>.Input(device, [2, -1, 0, 3, int.MaxValue, 2, int.MinValue]);
        using var order = GuardedBuffer<int>.Output(device, 7);
        using var offsets = GuardedBuffer<int>.Output(device, 4);
        ExpertSort.Apply(device.DefaultStream, ids.View, order.View, offsets.View, 7, 3);
        Assert.Equal([2, 0, 5, -1, -1, -1, -1], order.ToArray());
        Assert.Equal([0, 1, 1, 3], offsets.ToArray());
    }

    [Theory]
    [CombinatorialDevices(1, 1, 1)]
    [CombinatorialDevices(3, 8, 33)]
    [CombinatorialDevices(5, 2, 130)]
    public void CombinesInSlotOrder(TestDevice which, int tokens, int topK, int width)
    {
        GpuDevice device = TestDevices.Get(which);
        float[] y = RandomData.Gaussian(tokens * topK * width, seed: 1), w = RandomData.Gaussian(tokens * topK, seed: 2), x = RandomData.Gaussian(tokens * width, seed: 3);
        using var outputs = GuardedBuffer<float>.Input(device, y);
        using var weights = GuardedBuffer<float>.Input(device, w);
        using var residual = GuardedBuffer<float>.Input(device, x);
        MoeCombine.Apply(device.DefaultStream, outputs.View, weights.View, residual.View, new(tokens, topK, width));
        for (int i = 0; i < x.Length; i++)
        {
            for (int j = 0; j < topK; j++)
                x[i] = MathF.FusedMultiplyAdd(w[(i / width * topK) + j], y[(((i / width * topK) + j) * width) + (i % width)], x[i]);
        }
        Assert.Equal(x, residual.ToArray());
    }

    [Theory]
    [CombinatorialDevices(4, 1)]
    [CombinatorialDevices(5, 33)]
    public void LooksUpEmbeddings(TestDevice which, int vocabulary, int width)
    {
        GpuDevice device = TestDevices.Get(which);
        BFloat16[] rows = RandomData.GaussianBf16(vocabulary * width, seed: 1);
        int[] ids = [3, 0, -1, vocabulary, 3, int.MinValue, int.MaxValue];
        using var table = GuardedBuffer<BFloat16>.Input(device, rows);
        using var tokens = GuardedBuffer<int>.Input(device, ids);
        using var output = GuardedBuffer<float>.Output(device, ids.Length * width);
        Embedding.Lookup(device.DefaultStream, table.View, tokens.View, output.View, ids.Length, width);
        Assert.Equal(ids.SelectMany(id => Enumerable.Range(0, width).Select(i => id >= 0 && id < vocabulary ? (float)rows[(id * width) + i] : float.NaN)), output.ToArray());
    }

    [Fact]
    public void ZeroSizesAreNothingAndBadOnesAreRefused()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        using DeviceBuffer<float> floats = device.Allocate<float>(8);
        using DeviceBuffer<int> ints = device.Allocate<int>(8);
        using DeviceBuffer<BFloat16> table = device.Allocate<BFloat16>(8);
        Router.SelectExperts(device.DefaultStream, default, default, default, 0, new(4, 2, true));
        MoeCombine.Apply(device.DefaultStream, default, default, default, new(0, 2, 3));
        Embedding.Lookup(device.DefaultStream, default, default, default, 0, 3);
        Assert.Throws<ArgumentOutOfRangeException>(() => Router.SelectExperts(device.DefaultStream, floats, ints, floats, 1, new(4, 5, true)));
        Assert.Throws<ArgumentOutOfRangeException>(() => Router.SelectExperts(device.DefaultStream, floats, ints, floats, 1, new(4097, 5, true)));
        Assert.Throws<ArgumentException>(() => Router.SelectExperts(device.DefaultStream, floats, ints, floats, 3, new(4, 1, true)));
        Assert.Throws<ArgumentException>(() => ExpertSort.Apply(device.DefaultStream, ints, ints, ints, 8, 8));
        Assert.Throws<ArgumentException>(() => Embedding.Lookup(device.DefaultStream, table, ints, floats, 1, 3));
    }

    private static (int[] Ids, float[] Weights) Select(GpuDevice device, float[] logits, int tokens, RouterOptions options)
    {
        using var input = GuardedBuffer<float>.Input(device, logits);
        using var ids = GuardedBuffer<int>.Output(device, tokens * options.TopK);
        using var weights = GuardedBuffer<float>.Output(device, tokens * options.TopK);
        Router.SelectExperts(device.DefaultStream, input.View, ids.View, weights.View, tokens, options);
        return (ids.ToArray(), weights.ToArray());
    }

    private static void CheckSort(GpuDevice device, int[] expertIds, int experts)
    {
        using var ids = GuardedBuffer<int>.Input(device, expertIds);
        using var order = GuardedBuffer<int>.Output(device, expertIds.Length);
        using var offsets = GuardedBuffer<int>.Output(device, experts + 1);
        ExpertSort.Apply(device.DefaultStream, ids.View, order.View, offsets.View, expertIds.Length, experts);
        Assert.Equal(Enumerable.Range(0, expertIds.Length).OrderBy(p => expertIds[p]), order.ToArray());
        Assert.Equal(Enumerable.Range(0, experts + 1).Select(e => expertIds.Count(id => id < e)), offsets.ToArray());
    }

    private static (int[] Ids, double[] Weights) Oracle(float[] logits, int tokens, int experts, int topK, bool normalize)
    {
        var ids = new List<int>();
        var weights = new List<double>();
        for (int t = 0; t < tokens; t++)
        {
            double[] e = [.. logits[(t * experts)..((t + 1) * experts)].Select(l => Math.Exp(l))];
            int[] best = [.. Enumerable.Range(0, experts).OrderByDescending(i => e[i]).Take(topK)];
            ids.AddRange(best);
            weights.AddRange(best.Select(i => e[i] / (normalize ? best.Sum(b => e[b]) : e.Sum())));
        }
        return ([.. ids], [.. weights]);
    }
}
