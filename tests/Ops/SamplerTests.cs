using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

public sealed class SamplerTests
{
    /// <summary>Options under test; arrays of attributes cannot hold them.</summary>
    private static readonly SamplingOptions[] Cases =
    [
        new() { Temperature = 1, Seed = 1 },
        new() { Temperature = 0.7f, TopK = 20, Seed = ulong.MaxValue },
        new() { Temperature = 1.5f, TopK = 1000, Seed = 3 },
        new() { Temperature = 1, TopP = 0.8f, Seed = 4 },
        new() { Temperature = 1, TopP = 0.05f, Seed = 5 },
        new() { Temperature = 2, MinP = 0.1f, Seed = 6 },
        new() { Temperature = 0.6f, TopK = 20, TopP = 0.95f, MinP = 0.02f, RepetitionPenalty = 1.3f, Seed = 7 },
        new() { Temperature = 1, TopK = 3, TopP = 0.5f, RepetitionPenalty = 0.7f, Seed = 8 },
        new() { Temperature = 1, MinP = 1, Seed = 9 },
        new() { RepetitionPenalty = 2 },
        new(),
    ];

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void RowsOfABatchHaveTheirLargestLogits(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        const int Vocabulary = 700, Rows = 6;
        float[] logits = RandomData.Gaussian(Rows * Vocabulary, 5);
        logits[70] = logits[690] = 9;
        Array.Fill(logits, float.NaN, 2 * Vocabulary, Vocabulary);
        logits[(5 * Vocabulary) + 699] = float.PositiveInfinity;
        using var input = GuardedBuffer<float>.Input(device, logits);
        using var best = GuardedBuffer<ulong>.Input(device, new ulong[Rows]);
        using var positions = GuardedBuffer<int>.Input(device, [0, 3, 1, -1, 1, 2]);
        using var tokens = GuardedBuffer<int>.Input(device, [-7, -7, -7, -7, -7, -7]);
        GreedyRows.Sample(device.DefaultStream, input.View, best.View, positions.View, tokens.View, 0b101101);
        Assert.Equal([70, -7, 0, -7, -7, 699], tokens.ToArray());
        Assert.Equal(new ulong[Rows], best.ToArray());
    }

    [Theory]
    [CombinatorialDevices(1, 1f)]
    [CombinatorialDevices(33, 100f)]
    [CombinatorialDevices(130, 4f)]
    [CombinatorialDevices(300, 100f)]
    public void DrawsWhatTheOracleDraws(TestDevice which, int vocabulary, float steps)
    {
        GpuDevice device = TestDevices.Get(which);
        int draws = which == TestDevice.CpuWarp32 ? 3 : 12;
        // Rounded to steps, so that there are ties at the cuts.
        float[] row = Array.ConvertAll(RandomData.Gaussian(vocabulary, seed: vocabulary, factor: 3), x => MathF.Round(x * steps) / steps);
        using var logits = GuardedBuffer<float>.Input(device, row);
        using var token = GuardedBuffer<int>.Output(device, 1);
        foreach (SamplingOptions options in Cases)
        {
            using var state = new SamplerState(device, vocabulary);
            using var prompt = GuardedBuffer<int>.Input(device, [vocabulary / 2, -1, vocabulary, 0]);
            state.MarkSeen(device.DefaultStream, prompt.View);
            var seen = new HashSet<int> { vocabulary / 2, 0 };
            for (int draw = 0; draw < draws; draw++)
            {
                Sampler.Sample(device.DefaultStream, logits.View, state, options, token.View);
                int expected = Oracle(row, seen, options, (ulong)draw);
                Assert.True(expected == token.ToArray()[0], $"Draw {draw} of {options} is {token.ToArray()[0]}, expected {expected}.");
                seen.Add(expected);
            }
        }
    }

    [Theory]
    [InlineData(TestDevice.Cpu)]
    [InlineData(TestDevice.Cuda)]
    public void FrequenciesAreTheProbabilities(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        double[] p = [0.05, 0.3, 0.15, 0.2, 0.25, 0.05];
        int[] counts = new int[p.Length];
        const int Draws = 1500;
        using var state = new SamplerState(device, p.Length);
        using var logits = GuardedBuffer<float>.Input(device, Array.ConvertAll(p, x => (float)Math.Log(x)));
        using var token = GuardedBuffer<int>.Output(device, 1);
        for (int draw = 0; draw < Draws; draw++)
        {
            Sampler.Sample(device.DefaultStream, logits.View, state, new() { Temperature = 1, Seed = 42 }, token.View);
            counts[token.ToArray()[0]]++;
        }
        // 20.5 is exceeded with probability 0.001 at 5 degrees of freedom; the seed is fixed.
        double chiSquare = p.Zip(counts, (x, n) => (n - (Draws * x)) * (n - (Draws * x)) / (Draws * x)).Sum();
        Assert.InRange(chiSquare, 0.1, 20.5);
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void SpecialRows(TestDevice which)
    {
        const float NaN = float.NaN, Inf = float.PositiveInfinity;
        GpuDevice device = TestDevices.Get(which);
        foreach (SamplingOptions options in (SamplingOptions[])[SamplingOptions.Greedy, new() { Temperature = 1, TopK = 3, TopP = 0.9f }, new() { Temperature = 1 }])
        {
            Assert.Equal(0, Once(device, [NaN, NaN, NaN, NaN], options));
            Assert.Equal(0, Once(device, [-Inf, NaN, -Inf, -Inf], options));
            Assert.Equal(2, Once(device, [NaN, -Inf, -3e38f, NaN], options));
            Assert.Equal(3, Once(device, [0, 5, 3e38f, Inf], options with { TopK = options.TopK > 0 ? 1 : 0 }));
        }
        Assert.Equal(1, Once(device, [-1, 0f, -0f, 0f], SamplingOptions.Greedy));
        Assert.Equal(1, Once(device, [-1, -0f, 0f, 0f], new() { Temperature = 3, TopK = 1 }));
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void TopKOneAndATinyTopPAreGreedy(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        for (int seed = 0; seed < 3; seed++)
        {
            float[] row = Array.ConvertAll(RandomData.Gaussian(260, seed), MathF.Round);
            int greedy = Array.IndexOf(row, row.Max());
            Assert.Equal(greedy, Once(device, row, SamplingOptions.Greedy));
            Assert.Equal(greedy, Once(device, row, new() { Temperature = 9, TopK = 1 }));
            Assert.Equal(greedy, Once(device, row, new() { Temperature = 9, TopP = 1e-30f }));
        }
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void TopPNeverBringsBackWhatTopKDropped(TestDevice which)
    {
        // The second token is alone in its histogram bin once top-k has dropped the others, which share the bin.
        GpuDevice device = TestDevices.Get(which);
        float[] row = [5, 4.9f, .. Enumerable.Repeat(4.89f, 60)];
        using var state = new SamplerState(device, row.Length);
        using var logits = GuardedBuffer<float>.Input(device, row);
        using var token = GuardedBuffer<int>.Output(device, 1);
        for (int draw = 0; draw < 8; draw++)
        {
            Sampler.Sample(device.DefaultStream, logits.View, state, new() { Temperature = 1, TopK = 2, TopP = 0.99f }, token.View);
            Assert.InRange(token.ToArray()[0], 0, 1);
        }
    }

    [Theory]
    [InlineData(TestDevice.Cpu)]
    [InlineData(TestDevice.Cuda)]
    public void ALargeVocabularyAndAResetRepeatTheDraws(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        const int Vocabulary = 151_936;
        float[] row = RandomData.Gaussian(Vocabulary, seed: 1, factor: 2);
        var options = new SamplingOptions { Temperature = 1.1f, TopP = 0.9f, MinP = 0.001f, Seed = 77 };
        using var state = new SamplerState(device, Vocabulary);
        using var logits = GuardedBuffer<float>.Input(device, row);
        using var token = GuardedBuffer<int>.Output(device, 1);
        for (int round = 0; round < 2; round++)
        {
            for (int draw = 0; draw < 3; draw++)
            {
                Sampler.Sample(device.DefaultStream, logits.View, state, options, token.View);
                Assert.Equal(Oracle(row, [], options, (ulong)draw), token.ToArray()[0]);
            }
            state.Reset(device.DefaultStream);
        }
        Assert.Equal(row, logits.ToArray());
    }

    [Fact]
    public void EachBadOptionIsNamed()
    {
        (string Name, SamplingOptions Options)[] bad =
        [
            (nameof(SamplingOptions.Temperature), new() { Temperature = -1 }),
            (nameof(SamplingOptions.Temperature), new() { Temperature = float.NaN }),
            (nameof(SamplingOptions.Temperature), new() { Temperature = 1e-9f }),
            (nameof(SamplingOptions.TopK), new() { TopK = -1 }),
            (nameof(SamplingOptions.TopP), new() { TopP = 0 }),
            (nameof(SamplingOptions.TopP), new() { TopP = 1.1f }),
            (nameof(SamplingOptions.TopP), new() { TopP = float.NaN }),
            (nameof(SamplingOptions.MinP), new() { MinP = -0.1f }),
            (nameof(SamplingOptions.MinP), new() { MinP = float.NaN }),
            (nameof(SamplingOptions.RepetitionPenalty), new() { RepetitionPenalty = 0 }),
            (nameof(SamplingOptions.RepetitionPenalty), new() { RepetitionPenalty = float.PositiveInfinity }),
        ];
        foreach ((string name, SamplingOptions options) in bad)
            Assert.Equal(name, Assert.Throws<ArgumentOutOfRangeException>(options.Validate).ParamName);

        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        using var state = new SamplerState(device, 4);
        using DeviceBuffer<float> logits = device.Allocate<float>(3);
        using DeviceBuffer<int> token = device.Allocate<int>(1);
        Assert.Throws<ArgumentException>(() => Sampler.Sample(device.DefaultStream, logits, state, SamplingOptions.Greedy, token));
        Assert.Throws<ArgumentOutOfRangeException>(() => new SamplerState(device, 0));
        state.MarkSeen(device.DefaultStream, default);
    }

    [Fact]
    public void PhiloxGivesThePublishedNumbers() => Assert.Equal(0xE169C58D_6627E8D5ul, Philox.Next(0, 0));

    [Fact]
    public void FixedExpIsCloseEverywhereAndExactAtTheTop()
    {
        Assert.Equal(1ul << 40, FixedExp.Of(3.5f, 3.5f));
        for (float d = 0; d > -31; d -= 0.00137f)
        {
            double exact = Math.Exp(d) * (1ul << 40);
            Assert.InRange(FixedExp.Of(d, 0) - exact, (-exact * 3e-7) - 1, exact * 3e-7);
        }
        Assert.Equal(0ul, FixedExp.Of(float.NegativeInfinity, 0));
        Assert.Equal(0ul, FixedExp.Of(-float.MaxValue, float.MaxValue));
    }

    private static int Once(GpuDevice device, float[] row, SamplingOptions options)
    {
        using var state = new SamplerState(device, row.Length);
        using var logits = GuardedBuffer<float>.Input(device, row);
        using var token = GuardedBuffer<int>.Output(device, 1);
        Sampler.Sample(device.DefaultStream, logits.View, state, options, token.View);
        return token.ToArray()[0];
    }

    private static int Oracle(float[] row, HashSet<int> seen, SamplingOptions o, ulong draw)
    {
        float penalty = o.RepetitionPenalty, t = o.Temperature > 0 ? o.Temperature : 1;
        float[] l = [.. row.Select((x, i) => (seen.Contains(i) ? x > 0 ? x / penalty : x * penalty : x) / t)];
        int[] sorted = [.. Enumerable.Range(0, l.Length).OrderByDescending(i => l[i])];
        if (o.Temperature == 0)
            return sorted[0];
        double Mass(int i) => Math.Exp((double)l[i] - l[sorted[0]]);
        IEnumerable<int> kept = o.TopK > 0 ? sorted.Take(o.TopK) : sorted;
        double share = kept.Sum(Mass) * o.TopP, above = 0;
        if (o.TopP < 1)
            kept = [.. kept.TakeWhile(i => (above += Mass(i)) - Mass(i) < share)];
        int[] last = [.. kept.Where(i => Mass(i) >= o.MinP).Order()];
        double u = Philox.Next(o.Seed, draw) * Math.Pow(2, -64) * last.Sum(Mass), sum = 0;
        return last.First(i => (sum += Mass(i)) > u);
    }
}
