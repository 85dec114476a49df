using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

public sealed class AttentionTests
{
    [Theory]
    [CombinatorialDevices(1, 1, 1, 64, 0)]
    [CombinatorialDevices(1, 2, 1, 64, 1)]
    [CombinatorialDevices(1, 4, 2, 80, 30)]
    [CombinatorialDevices(1, 3, 3, 96, 31)]
    [CombinatorialDevices(1, 4, 1, 128, 32)]
    [CombinatorialDevices(1, 16, 1, 64, 126)]
    [CombinatorialDevices(1, 2, 2, 256, 127)]
    [CombinatorialDevices(1, 2, 1, 128, 128)]
    [CombinatorialDevices(1, 1, 1, 6, 129)]
    [CombinatorialDevices(7, 2, 1, 64, 0)]
    [CombinatorialDevices(4, 4, 2, 128, 125)]
    [CombinatorialDevices(3, 1, 1, 2, 260)]
    public void MatchesTheOracle(TestDevice which, int tokens, int queryHeads, int kvHeads, int headDim, int first) =>
        Check(TestDevices.Get(which), tokens, queryHeads, kvHeads, headDim, first);

    [Theory]
    [InlineData(1, 32, 4, 4094)]
    [InlineData(1, 32, 4, 4095)]
    [InlineData(1, 32, 4, 4096)]
    [InlineData(130, 32, 2, 0)]
    public void LongContextsMatchTheOracle(int tokens, int queryHeads, int kvHeads, int first) =>
        Check(TestDevices.Get(TestDevice.Cuda), tokens, queryHeads, kvHeads, 128, first);

    private static void Check(GpuDevice device, int tokens, int queryHeads, int kvHeads, int headDim, int first)
    {
        int length = first + tokens;
        using var run = new AttentionCase(device, tokens, queryHeads, kvHeads, headDim, first, capacity: length + 3);
        BFloat16[] y = run.Apply();
        Compare.Close(y, run.Oracle(), 3e-3);
        Assert.Equal(y, run.Apply());
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void ARowHasTheSameBitsAloneInABatchAndInALargerCache(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        const int Tokens = 3, Heads = 2, HeadDim = 64, First = 127, Row = Heads * HeadDim;
        using var batch = new AttentionCase(device, Tokens, Heads, 1, HeadDim, First, First + Tokens);
        BFloat16[] together = batch.Apply();
        for (int t = 0; t < Tokens; t++)
        {
            using var alone = new AttentionCase(device, 1, Heads, 1, HeadDim, First + t, capacity: 200, batch, t);
            Assert.Equal(together[(t * Row)..((t + 1) * Row)], alone.Apply());
        }
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void EqualKeysAverageTheValuesExactly(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        const int Length = 64, HeadDim = 8;
        using var cache = new KvCache(device, 1, 1, HeadDim, Length + 1);
        CacheContents.Fill(cache, BFloat16.FromBits(0x7FFF));
        CacheContents.Write(cache.Keys(0), [.. Enumerable.Repeat((BFloat16)1f, Length * HeadDim)]);
        CacheContents.Write(cache.Values(0), [.. from j in Enumerable.Range(0, Length) from d in Enumerable.Range(0, HeadDim) select (BFloat16)(float)(j == d ? 64 : 0)]);
        using var q = GuardedBuffer<BFloat16>.Input(device, RandomData.GaussianBf16(HeadDim, seed: 1));
        using var position = GuardedBuffer<int>.Input(device, [Length - 1]);
        using var y = GuardedBuffer<BFloat16>.Output(device, HeadDim);
        Attention.Apply(device.DefaultStream, q.View, cache.Layer(0), position.View, y.View, new(1, 1));
        Assert.All(y.ToArray(), v => Assert.Equal(1f, (float)v));
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void AMaximumThatRisesFromChunkToChunkRescalesTheSums(TestDevice which)
    {
        // Scores are 0, ln 2, ln 4 in chunks of 128: weights 1 : 2 : 4; values are 7, 14 and 28.
        GpuDevice device = TestDevices.Get(which);
        const int Chunk = 128, Length = 3 * Chunk, HeadDim = 4;
        using var cache = new KvCache(device, 1, 1, HeadDim, Length);
        CacheContents.Write(cache.Keys(0), [.. from j in Enumerable.Range(0, Length) from d in Enumerable.Range(0, HeadDim) select (BFloat16)(float)(j / Chunk)]);
        CacheContents.Write(cache.Values(0), [.. from j in Enumerable.Range(0, Length) from d in Enumerable.Range(0, HeadDim) select (BFloat16)(float)(7 << (j / Chunk))]);
        using var q = GuardedBuffer<BFloat16>.Input(device, [(BFloat16)0.34657359f, (BFloat16)0.34657359f, (BFloat16)0.34657359f, (BFloat16)0.34657359f]);
        using var position = GuardedBuffer<int>.Input(device, [Length - 1]);
        using var y = GuardedBuffer<BFloat16>.Output(device, HeadDim);
        Attention.Apply(device.DefaultStream, q.View, cache.Layer(0), position.View, y.View, new(1, 1));
        Assert.All(y.ToArray(), v => Assert.InRange((float)v, 20.75f, 21.25f)); // (1·7 + 2·14 + 4·28) / 7
    }

    [Theory]
    [CombinatorialDevices(-1)]
    [CombinatorialDevices(4)]
    [CombinatorialDevices(int.MaxValue)]
    public void PositionsOutsideTheCacheGiveNaN(TestDevice which, int first)
    {
        GpuDevice device = TestDevices.Get(which);
        using var run = new AttentionCase(device, 1, 1, 1, 8, 3, capacity: 4) { Position = first };
        Assert.All(run.Apply(), v => Assert.True(BFloat16.IsNaN(v)));
    }

    [Fact]
    public void NoTokensAreNothingAndUnevenGroupsAreRefused()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        using var cache = new KvCache(device, 1, 2, 8, 4);
        Attention.Apply(device.DefaultStream, default, cache.Layer(0), default, default, new(0, 2));
        Assert.Throws<ArgumentException>(() => Attention.Apply(device.DefaultStream, default, cache.Layer(0), default, default, new(0, 3)));
        Assert.Throws<ArgumentException>(() => Attention.Apply(device.DefaultStream, default, cache.Layer(0), default, default, new(1, 2)));
        Assert.Throws<ArgumentOutOfRangeException>(() => new KvCache(device, 1, 1, 258, 4));
        Assert.Throws<ArgumentOutOfRangeException>(() => new KvCache(device, 1, 1, 7, 4));
    }
}
