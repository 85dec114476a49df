using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

public sealed class DecodeAttentionTests
{
    private const float Epsilon = 1e-6f;

    // Four warps on the CPU: chunks of 64 positions, two of them in one block before there is a second.
    public static TheoryData<TestDevice, int, int, int, int> Cases
    {
        get
        {
            var data = new TheoryData<TestDevice, int, int, int, int>();
            foreach (TestDevice device in new[] { TestDevice.CpuWarp32, TestDevice.Cuda })
            {
                data.Add(device, 1, 1, 64, 0);
                data.Add(device, 8, 1, 128, 15);
                data.Add(device, 6, 2, 64, 16);
                data.Add(device, 4, 1, 128, 63);
                data.Add(device, 3, 1, 64, 64);
                data.Add(device, 8, 2, 64, 200);
                data.Add(device, 5, 1, 128, 127);
                data.Add(device, 8, 1, 128, 128);
                data.Add(device, 7, 1, 64, 530);
            }
            foreach (int position in new[] { 0, 127, 128, 129, 255, 256, 257, 511, 512, 1000, 4095, 4096, 4097, 8191, 8192, 9001 })
                data.Add(TestDevice.Cuda, 32, 4, 128, position);
            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void MatchesTheOracleAndTheTwoOperatorsItStandsFor(TestDevice which, int queryHeads, int kvHeads, int headDim, int position)
    {
        using var run = new Case(TestDevices.Get(which), queryHeads, kvHeads, headDim, position);
        BFloat16[] y = run.Apply(out BFloat16[] keys, out BFloat16[] values);
        BFloat16[] expected = run.ApplyApart(out BFloat16[] keysApart, out BFloat16[] valuesApart);
        Compare.Close(y, Array.ConvertAll(expected, v => (double)(float)v), 6e-3);
        Compare.Close(y, run.Oracle(keysApart, valuesApart), 5e-3);
        Assert.Equal(keysApart, keys);
        Assert.Equal(valuesApart, values);
        Assert.Equal(y, run.Apply(out _, out _));
    }

    [Theory]
    [InlineData(TestDevice.CpuWarp32, -1)]
    [InlineData(TestDevice.CpuWarp32, 40)]
    [InlineData(TestDevice.Cuda, -1)]
    [InlineData(TestDevice.Cuda, 40)]
    [InlineData(TestDevice.Cuda, int.MaxValue)]
    public void PositionsOutsideTheCacheGiveNaNAndStoreNothing(TestDevice which, int position)
    {
        using var run = new Case(TestDevices.Get(which), 2, 1, 64, 37) { Position = position };
        Assert.All(run.Apply(out BFloat16[] keys, out _), v => Assert.True(BFloat16.IsNaN(v)));
        Assert.Equal(run.Before, keys);
    }

    // Blocks of eight warps, as on cards; there every slice of a head has a warp.
    [Theory]
    [InlineData(128, 8, 0)]
    [InlineData(128, 3, 127)]
    [InlineData(128, 8, 128)]
    [InlineData(128, 6, 255)]
    [InlineData(128, 8, 256)]
    [InlineData(64, 8, 519)]
    public void EightWarpsMatchTheOracle(int headDim, int queryHeads, int position)
    {
        TestDevices.Get(TestDevice.CpuWarp32);
        using GpuDevice device = TestDevices.Open(TestDevice.CpuWarp32, warps: 8);
        using var run = new Case(device, queryHeads, 1, headDim, position);
        Compare.Close(run.Apply(out BFloat16[] keys, out BFloat16[] values), run.Oracle(keys, values), 5e-3);
        foreach (KvCacheFormat format in Enum.GetValues<KvCacheFormat>())
        {
            using var cache = new Fp8CacheCase(device, queryHeads, 1, headDim, position);
            Fp8CacheCase.Result together = cache.Run(format, together: true), apart = cache.Run(format, together: false);
            Compare.Close(together.Output, Array.ConvertAll(apart.Output, v => (double)(float)v), 6e-3);
        }
    }

    // How many tiles are on their way at once depends on the memory of a device and on how many blocks share it. With the longest a block walks more chunks than the ring has stages.
    [Theory]
    [InlineData(TestDevice.CpuWarp32, 64, 130)]
    [InlineData(TestDevice.CpuWarp32, 64, 6200)]
    [InlineData(TestDevice.Cuda, 128, 255)]
    [InlineData(TestDevice.Cuda, 128, 300)]
    [InlineData(TestDevice.Cuda, 64, 9000)]
    [InlineData(TestDevice.Cuda, 128, 32_768)]
    public void BitsDoNotDependOnTheStagesOfTheRing(TestDevice which, int headDim, int position)
    {
        GpuDevice device = TestDevices.Get(which);
        BFloat16[][] rows = [.. Enumerable.Range(1, AttentionRing.MostStages).Select(stages =>
        {
            using var run = new Case(device, 2, 1, headDim, position, stages);
            BFloat16[] y = run.Apply(out BFloat16[] keys, out BFloat16[] values);
            Compare.Close(y, run.Oracle(keys, values), 5e-3);
            return y;
        })];
        Assert.All(rows, row => Assert.Equal(rows[0], row));
    }

    // A row is what a call over its sequence alone gives, whatever the neighbours; one without a token stores nothing.
    [Theory]
    [InlineData(TestDevice.CpuWarp32, 70)]
    [InlineData(TestDevice.Cuda, 70)]
    [InlineData(TestDevice.Cuda, 6000)]
    public void ABatchHasTheBitsOfItsSequencesAlone(TestDevice which, int capacity)
    {
        const int QueryHeads = 4, KvHeads = 2, HeadDim = 64, Layers = 2, Row = (QueryHeads + (2 * KvHeads)) * HeadDim;
        GpuDevice device = TestDevices.Get(which);
        int[] positions = [capacity - 1, -1, 0, 65];
        int length = positions.Length;
        using var table = new RotaryTable(device, HeadDim, capacity, 10_000);
        using var workspace = new DecodeAttentionWorkspace(device, KvHeads, HeadDim, length);
        using var caches = new KvCacheBatch(device, length, Layers, KvHeads, HeadDim, capacity);
        using var qkv = GuardedBuffer<BFloat16>.Input(device, RandomData.GaussianBf16(length * Row, 1));
        using var position = GuardedBuffer<int>.Input(device, positions);
        using GuardedBuffer<BFloat16> together = GuardedBuffer<BFloat16>.Output(device, length * QueryHeads * HeadDim), alone = GuardedBuffer<BFloat16>.Output(device, QueryHeads * HeadDim);
        BFloat16[] contents = RandomData.GaussianBf16(KvHeads * capacity * HeadDim, 9);
        for (int s = 0; s < length; s++)
            for (int layer = 0; layer < Layers; layer++)
            {
                CacheContents.Write(caches[s].Keys(layer), [.. contents.Skip(s).Concat(contents.Take(s))]);
                CacheContents.Write(caches[s].Values(layer), [.. Enumerable.Reverse(contents).Skip(s).Concat(contents.Take(s))]);
            }
        var options = new QkNormRotaryOptions(length, QueryHeads, table) { Epsilon = Epsilon };
        DecodeAttention.ApplyBatch(device.DefaultStream, qkv.View, position.View, caches.Layer(1), (together.View, workspace), options);
        device.Synchronize();
        BFloat16[] y = together.ToArray();
        BFloat16[][] keys = [.. Enumerable.Range(0, length).Select(s => CacheContents.Read(caches[s].Keys(1)))];
        for (int s = 0; s < length; s++)
        {
            BFloat16[] row = y[(s * QueryHeads * HeadDim)..((s + 1) * QueryHeads * HeadDim)];
            DecodeAttention.Apply(device.DefaultStream, qkv.View.SubView(s * Row, Row), position.View.SubView(s, 1), caches[s].Layer(1), (alone.View, workspace), options with { Tokens = 1 });
            device.Synchronize();
            Assert.Equal(alone.ToArray(), row);
            Assert.Equal(keys[s], CacheContents.Read(caches[s].Keys(1)));
            Assert.Equal(positions[s] < 0, row.All(BFloat16.IsNaN));
            Assert.Equal(positions[s] < 0, keys[s].SequenceEqual([.. contents.Skip(s).Concat(contents.Take(s))]));
            // Another layer is nobody's.
            Assert.Equal(contents.Skip(s).Concat(contents.Take(s)), CacheContents.Read(caches[s].Keys(0)));
        }
    }

    [Fact]
    public void HeadsThatDoNotFitAreRefused()
    {
        GpuDevice warp = TestDevices.Get(TestDevice.CpuWarp32);
        Assert.False(DecodeAttention.Exists(warp, 9, 1, 64));
        Assert.False(DecodeAttention.Exists(warp, 8, 1, 96));
        Assert.False(DecodeAttention.Exists(TestDevices.Get(TestDevice.Cpu), 8, 1, 64));
        using var run = new Case(warp, 9, 1, 64, 3);
        Assert.Throws<NotSupportedException>(() => run.Apply(out _, out _));
    }

    /// <summary>One token after random others, in a cache that is NaN behind it.</summary>
    private sealed class Case : IDisposable
    {
        private readonly GpuDevice device;
        private readonly int queryHeads, kvHeads, headDim, capacity;
        private readonly BFloat16[] qkv, queryGain, keyGain, oldKeys, oldValues;
        private readonly RotaryTable table;
        private readonly DecodeAttentionWorkspace workspace;

        public Case(GpuDevice device, int queryHeads, int kvHeads, int headDim, int position, int stages = 0)
        {
            (this.device, this.queryHeads, this.kvHeads, this.headDim, Position, capacity) = (device, queryHeads, kvHeads, headDim, position, position + 3);
            qkv = RandomData.GaussianBf16((queryHeads + (2 * kvHeads)) * headDim, 1, 2);
            queryGain = Array.ConvertAll(RandomData.Gaussian(headDim, 2, 0.2f), g => (BFloat16)(2 + g));
            keyGain = Array.ConvertAll(RandomData.Gaussian(headDim, 3, 0.2f), g => (BFloat16)(1 + g));
            oldKeys = Old(4);
            oldValues = Old(5);
            table = new RotaryTable(device, headDim, capacity, 10_000);
            workspace = new DecodeAttentionWorkspace(device, kvHeads, headDim) { Stages = stages };
        }

        public int Position { get; init; }

        public BFloat16[] Before => oldKeys;

        public BFloat16[] Apply(out BFloat16[] keys, out BFloat16[] values) => Run(out keys, out values, (cache, input, position, y, options) =>
            DecodeAttention.Apply(device.DefaultStream, input.View, position.View, cache.Layer(0), (y.View, workspace), options));

        public BFloat16[] ApplyApart(out BFloat16[] keys, out BFloat16[] values) => Run(out keys, out values, (cache, input, position, y, options) =>
        {
            using GuardedBuffer<BFloat16> q = GuardedBuffer<BFloat16>.Output(device, queryHeads * headDim);
            QkNormRotary.Apply(device.DefaultStream, input.View, position.View, q.View, cache.Layer(0), options);
            Attention.Apply(device.DefaultStream, q.View, cache.Layer(0), position.View, y.View, new AttentionShape(1, queryHeads));
        });

        public double[] Oracle(BFloat16[] keys, BFloat16[] values)
        {
            var y = new double[queryHeads * headDim];
            for (int h = 0; h < queryHeads; h++)
            {
                double[] q = Query(h);
                int first = h / (queryHeads / kvHeads) * capacity * headDim, length = Position + 1;
                var scores = new double[length];
                for (int j = 0; j < length; j++)
                    for (int d = 0; d < headDim; d++)
                        scores[j] += q[d] * (float)keys[first + (j * headDim) + d] / Math.Sqrt(headDim);
                double max = scores.Max(), mass = scores.Sum(s => Math.Exp(s - max));
                for (int j = 0; j < length; j++)
                    for (int d = 0; d < headDim; d++)
                        y[(h * headDim) + d] += Math.Exp(scores[j] - max) / mass * (float)values[first + (j * headDim) + d];
            }
            return y;
        }

        public void Dispose()
        {
            table.Dispose();
            workspace.Dispose();
        }

        private double[] Query(int head)
        {
            double[] x = [.. qkv.AsSpan(head * headDim, headDim).ToArray().Select(v => (double)(float)v)];
            double scale = 1 / Math.Sqrt(x.Average(v => v * v) + Epsilon);
            x = [.. x.Zip(queryGain, (v, g) => v * scale * (float)g)];
            int half = headDim / 2;
            var y = new double[headDim];
            for (int i = 0; i < half; i++)
            {
                double angle = Position * Math.Pow(10_000, -2.0 * i / headDim), cos = Math.Cos(angle), sin = Math.Sin(angle);
                y[i] = (float)(BFloat16)(float)((x[i] * cos) - (x[i + half] * sin));
                y[i + half] = (float)(BFloat16)(float)((x[i + half] * cos) + (x[i] * sin));
            }
            return y;
        }

        private BFloat16[] Run(out BFloat16[] keys, out BFloat16[] values, Action<KvCache, GuardedBuffer<BFloat16>, GuardedBuffer<int>, GuardedBuffer<BFloat16>, QkNormRotaryOptions> apply)
        {
            using var cache = new KvCache(device, 1, kvHeads, headDim, capacity);
            CacheContents.Write(cache.Keys(0), oldKeys);
            CacheContents.Write(cache.Values(0), oldValues);
            using var input = GuardedBuffer<BFloat16>.Input(device, qkv);
            using var position = GuardedBuffer<int>.Input(device, [Position]);
            using var y = GuardedBuffer<BFloat16>.Output(device, queryHeads * headDim);
            using var gains = GuardedBuffer<BFloat16>.Input(device, queryGain);
            using var otherGains = GuardedBuffer<BFloat16>.Input(device, keyGain);
            apply(cache, input, position, y, new QkNormRotaryOptions(1, queryHeads, table) { QueryGain = gains.View, KeyGain = otherGains.View, Epsilon = Epsilon });
            device.Synchronize();
            keys = CacheContents.Read(cache.Keys(0));
            values = CacheContents.Read(cache.Values(0));
            return y.ToArray();
        }

        // Positions from the new one on are NaN.
        private BFloat16[] Old(int seed)
        {
            BFloat16[] old = RandomData.GaussianBf16(kvHeads * capacity * headDim, seed);
            for (int h = 0; h < kvHeads; h++)
                Array.Fill(old, BFloat16.FromBits(0x7FFF), ((h * capacity) + Position) * headDim, (capacity - Position) * headDim);
            return old;
        }
    }
}
