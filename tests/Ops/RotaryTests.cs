using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

public sealed class RotaryTests
{
    private const double Theta = 1e7;

    [Theory]
    [CombinatorialDevices(1, 1, 2, 0)]
    [CombinatorialDevices(3, 2, 64, 5)]
    [CombinatorialDevices(2, 3, 80, 4090)]
    [CombinatorialDevices(5, 1, 128, 1)]
    public void RotatesByPosition(TestDevice which, int tokens, int heads, int headDim, int first)
    {
        GpuDevice device = TestDevices.Get(which);
        BFloat16[] x = RandomData.GaussianBf16(tokens * heads * headDim, seed: headDim);
        using var table = new RotaryTable(device, headDim, first + tokens, Theta);
        using var position = GuardedBuffer<int>.Input(device, [first]);
        using var buffer = GuardedBuffer<BFloat16>.Input(device, x);

        Rotary.Apply(device.DefaultStream, buffer.View, table, position.View, tokens, heads);

        double[] expected = [.. Enumerable.Range(0, tokens * heads).SelectMany(r => Rotate(Doubles(x.AsSpan(r * headDim, headDim)), first + (r / heads)))];
        Compare.Close(buffer.ToArray(), expected, 2.5e-3);
    }

    [Theory]
    [CombinatorialDevices(-1)]
    [CombinatorialDevices(7)]
    [CombinatorialDevices(int.MaxValue)]
    public void PositionsOutsideTheTableGiveNaN(TestDevice which, int first)
    {
        GpuDevice device = TestDevices.Get(which);
        using var table = new RotaryTable(device, 4, 7, Theta);
        using var position = GuardedBuffer<int>.Input(device, [first]);
        using var buffer = GuardedBuffer<BFloat16>.Input(device, RandomData.GaussianBf16(4, seed: 1));
        Rotary.Apply(device.DefaultStream, buffer.View, table, position.View, 1, 1);
        Assert.All(buffer.ToArray(), v => Assert.True(BFloat16.IsNaN(v)));
    }

    [Fact]
    public void TheTableHoldsFloat32AnglesUpToALongContext()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        const int HeadDim = 128, Positions = 9000;
        using var table = new RotaryTable(device, HeadDim, Positions, Theta);
        var cos = new float[Positions * HeadDim / 2];
        for (int p = 0; p < cos.Length; p++)
            cos[p] = table.Cos[p];
        foreach (int position in (int[])[0, 1, 4095, 4096, 8999])
            for (int i = 0; i < HeadDim / 2; i++)
                Assert.Equal((float)Math.Cos(position * (float)Math.Pow(Theta, -i / 64.0)), cos[(position * 64) + i]);
        Assert.Equal(2L * 4 * cos.Length, table.Bytes);
    }

    [Theory]
    [CombinatorialDevices(1, 1, 1, 2, true)]
    [CombinatorialDevices(3, 4, 2, 64, true)]
    [CombinatorialDevices(2, 8, 1, 80, false)]
    [CombinatorialDevices(2, 4, 4, 128, true)]
    [CombinatorialDevices(1, 2, 1, 256, true)]
    public void NormalisesRotatesAndFillsTheCache(TestDevice which, int tokens, int queryHeads, int kvHeads, int headDim, bool gains)
    {
        const int First = 3, Capacity = 9;
        GpuDevice device = TestDevices.Get(which);
        int slots = queryHeads + (2 * kvHeads);
        BFloat16[] x = RandomData.GaussianBf16(tokens * slots * headDim, seed: slots, factor: 5);
        BFloat16[] qGain = RandomData.GaussianBf16(headDim, seed: 1), kGain = RandomData.GaussianBf16(headDim, seed: 2);
        using var table = new RotaryTable(device, headDim, Capacity, Theta);
        using var cache = new KvCache(device, 2, kvHeads, headDim, Capacity);
        using var position = GuardedBuffer<int>.Input(device, [First]);
        using var qkv = GuardedBuffer<BFloat16>.Input(device, x);
        using var qg = GuardedBuffer<BFloat16>.Input(device, qGain);
        using var kg = GuardedBuffer<BFloat16>.Input(device, kGain);
        using var q = GuardedBuffer<BFloat16>.Output(device, tokens * queryHeads * headDim);
        var options = new QkNormRotaryOptions(tokens, queryHeads, table) { Epsilon = 1e-6f };
        if (gains)
            options = options with { QueryGain = qg.View, KeyGain = kg.View };
        CacheContents.Fill(cache, (BFloat16)7f);

        QkNormRotary.Apply(device.DefaultStream, qkv.View, position.View, q.View, cache.Layer(1), options);

        double[] Head(int token, int slot, BFloat16[] gain) =>
            Rotate(Normalise(Doubles(x.AsSpan(((token * slots) + slot) * headDim, headDim)), gains ? gain : null), First + token);
        Compare.Close(q.ToArray(), [.. from t in Enumerable.Range(0, tokens) from h in Enumerable.Range(0, queryHeads) from v in Head(t, h, qGain) select v], 2.5e-3);
        BFloat16[] keys = CacheContents.Read(cache.Keys(1)), values = CacheContents.Read(cache.Values(1));
        for (int h = 0; h < kvHeads; h++)
        {
            for (int p = 0; p < Capacity; p++)
            {
                int t = p - First;
                Span<BFloat16> key = keys.AsSpan(((h * Capacity) + p) * headDim, headDim), value = values.AsSpan(((h * Capacity) + p) * headDim, headDim);
                bool written = t >= 0 && t < tokens;
                Compare.Close(key, written ? Head(t, queryHeads + h, kGain) : [.. Enumerable.Repeat(7.0, headDim)], 2.5e-3);
                BFloat16[] source = written ? x[(((t * slots) + queryHeads + kvHeads + h) * headDim)..][..headDim] : [.. Enumerable.Repeat((BFloat16)7f, headDim)];
                Assert.Equal(source, value.ToArray());
            }
        }
        Assert.All(CacheContents.Read(cache.Keys(0)), v => Assert.Equal(7f, (float)v));
    }

    [Theory]
    [CombinatorialDevices(64)]
    [CombinatorialDevices(128)]
    [CombinatorialDevices(256)]
    public void WhetherWordsOrElementsAreLoadedChangesNoBit(TestDevice which, int headDim)
    {
        GpuDevice device = TestDevices.Get(which);
        const int Tokens = 3, Slots = 4;
        BFloat16[] x = RandomData.GaussianBf16(Tokens * Slots * headDim, seed: headDim), gains = RandomData.GaussianBf16(headDim, seed: 1);
        using var table = new RotaryTable(device, headDim, Tokens, Theta);
        using var position = GuardedBuffer<int>.Input(device, [0]);
        (BFloat16[] Queries, BFloat16[] Keys, BFloat16[] Values) Apply(int shift)
        {
            using var cache = new KvCache(device, 1, 1, headDim, Tokens);
            using var qkv = GuardedBuffer<BFloat16>.Input(device, [.. new BFloat16[shift], .. x]);
            using var gain = GuardedBuffer<BFloat16>.Input(device, gains);
            using var q = GuardedBuffer<BFloat16>.Output(device, Tokens * 2 * headDim);
            var options = new QkNormRotaryOptions(Tokens, 2, table) { Epsilon = 1e-6f, QueryGain = gain.View, KeyGain = gain.View };
            QkNormRotary.Apply(device.DefaultStream, qkv.View.SubView(shift, x.Length), position.View, q.View, cache.Layer(0), options);
            return (q.ToArray(), CacheContents.Read(cache.Keys(0)), CacheContents.Read(cache.Values(0)));
        }
        var words = Apply(0);
        var elements = Apply(1);
        Assert.Equal(words.Queries, elements.Queries);
        Assert.Equal(words.Keys, elements.Keys);
        Assert.Equal(words.Values, elements.Values);
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void TokensPastTheCacheAreNotStored(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        using var table = new RotaryTable(device, 4, 4, Theta);
        using var cache = new KvCache(device, 1, 1, 4, 2);
        using var position = GuardedBuffer<int>.Input(device, [1]);
        using var qkv = GuardedBuffer<BFloat16>.Input(device, RandomData.GaussianBf16(2 * 12, seed: 3));
        using var q = GuardedBuffer<BFloat16>.Output(device, 2 * 4);
        CacheContents.Fill(cache, (BFloat16)7f);
        QkNormRotary.Apply(device.DefaultStream, qkv.View, position.View, q.View, cache.Layer(0), new(2, 1, table));
        Assert.Equal([false, false, false, false, true, true, true, true], q.ToArray().Select(BFloat16.IsNaN));
        Assert.All(CacheContents.Read(cache.Keys(0))[..4], v => Assert.Equal(7f, (float)v));
        Assert.DoesNotContain(CacheContents.Read(cache.Keys(0)), BFloat16.IsNaN);
    }

    [Fact]
    public void BadArgumentsAreRefused()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        using var table = new RotaryTable(device, 4, 4, Theta);
        using var cache = new KvCache(device, 1, 2, 4, 5);
        Assert.Contains("ends at position 4", Assert.Throws<ArgumentException>(() => QkNormRotary.Apply(device.DefaultStream, default, default, default, cache.Layer(0), new(1, 2, table))).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => QkNormRotary.Apply(device.DefaultStream, default, default, default, cache.Layer(0), new(1, 3, table)));
        Assert.Throws<ArgumentException>(() => QkNormRotary.Apply(device.DefaultStream, default, default, default, default, new(1, 3, table)));
        Assert.Throws<ArgumentOutOfRangeException>(() => cache.Layer(1));
        Assert.Throws<ArgumentOutOfRangeException>(() => new RotaryTable(device, 5, 4, Theta));
        Assert.Throws<ArgumentOutOfRangeException>(() => new RotaryTable(device, 4, 4, double.NaN));
        Assert.Equal(2L * 2 * 2 * 4 * 5, cache.Bytes);
        Rotary.Apply(device.DefaultStream, default, table, default, 0, 3);
    }

    private static double[] Doubles(ReadOnlySpan<BFloat16> values) => Array.ConvertAll(Compare.ToFloat(values), v => (double)v);

    private static double[] Normalise(double[] x, BFloat16[]? gain) =>
        gain is null ? x : [.. x.Zip(gain, (v, g) => v / Math.Sqrt((x.Sum(u => u * u) / x.Length) + 1e-6) * (float)g)];

    private static double[] Rotate(double[] x, int position)
    {
        int half = x.Length / 2;
        var y = new double[x.Length];
        for (int i = 0; i < half; i++)
        {
            double angle = position * (float)Math.Pow(Theta, -2.0 * i / x.Length);
            y[i] = (x[i] * Math.Cos(angle)) - (x[i + half] * Math.Sin(angle));
            y[i + half] = (x[i + half] * Math.Cos(angle)) + (x[i] * Math.Sin(angle));
        }
        return y;
    }
}
