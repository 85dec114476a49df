using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Attention in tiles against the double oracle: guard bands and NaN around all tensors, positions that are not used yet included.</summary>
public sealed class FlashAttentionTests
{
    // Weights are rounded to BF16: 2⁻⁹ each at most, of which most averages out; the rest is the output's rounding.
    private const double Tolerance = 4e-3;

    // ILGPU may take heads of three parts for those of two that it has compiled in the same context before (docs/adding-a-kernel.md), and nothing compiles there afterwards: a device of their own.
    private static readonly Lazy<GpuDevice> OfThreeParts = new(() => TestDevices.Open(TestDevice.CpuWarp32));

    // Sixteen rows a warp, four warps a block on the CPU, tiles of 64 positions (32 with 256 columns).
    public static TheoryData<TestDevice, int, int, int, int, int> Cases
    {
        get
        {
            var data = new TheoryData<TestDevice, int, int, int, int, int>();
            foreach (TestDevice device in new[] { TestDevice.CpuWarp32, TestDevice.Cuda })
            {
                foreach ((int tokens, int queryHeads, int kvHeads, int headDim, int first) in new[]
                {
                    (1, 1, 1, 64, 0), (2, 1, 1, 64, 62), (16, 1, 1, 64, 0), (17, 2, 2, 64, 47), (64, 1, 1, 64, 0), (65, 1, 1, 64, 1),
                    (13, 5, 1, 64, 51), (33, 3, 3, 64, 95), (4, 16, 1, 64, 124), (40, 4, 2, 64, 30), (1, 8, 1, 128, 64), (9, 8, 1, 128, 119),
                    (16, 2, 1, 128, 48), (63, 1, 1, 128, 2), (17, 6, 2, 96, 60), (20, 2, 1, 96, 108), (5, 4, 1, 256, 29), (33, 2, 1, 256, 31),
                })
                    data.Add(device, tokens, queryHeads, kvHeads, headDim, first);
            }
            foreach (int headDim in new[] { 64, 96, 128, 256 })
            {
                data.Add(TestDevice.Cuda, 130, 32, 4, headDim, 0);
                data.Add(TestDevice.Cuda, 257, 8, 2, headDim, 300);
            }
            data.Add(TestDevice.Cuda, 700, 32, 4, 128, 17);
            data.Add(TestDevice.Cuda, 16, 32, 4, 128, 4090);
            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void MatchesTheOracle(TestDevice which, int tokens, int queryHeads, int kvHeads, int headDim, int first)
    {
        GpuDevice shared = TestDevices.Get(which), device = headDim == 96 && !shared.IsCuda ? OfThreeParts.Value : shared;
        using var run = new AttentionCase(device, tokens, queryHeads, kvHeads, headDim, first, first + tokens + 3);
        BFloat16[] y = run.ApplyInTiles();
        Compare.Close(y, run.Oracle(), Tolerance);
        if (device.IsCuda)
            Assert.Equal(y, run.ApplyInTiles());
    }

    [Theory]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void EveryLengthIsRight(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        int[] lengths = device.IsCuda ? [.. Enumerable.Range(1, 130)] : [1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 130];
        foreach (int headDim in device.IsCuda ? [64, 96, 128, 256] : new[] { 64 })
        {
            foreach (int length in lengths)
            {
                int tokens = Math.Min(length, 1 + (length % 5));
                using var run = new AttentionCase(device, tokens, 3, 1, headDim, length - tokens, length);
                Compare.Close(run.ApplyInTiles(), run.Oracle(), Tolerance);
            }
        }
    }

    [Theory]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void AKeyThatIsMatchedSelectsItsValue(TestDevice which)
    {
        // Keys are 4 or −4 at random: a query that is one of them scores 128 with it and far less with all others.
        const int Tokens = 66, First = 70, HeadDim = 64, Heads = 2;
        using var run = new AttentionCase(TestDevices.Get(which), Tokens, Heads, 1, HeadDim, First, First + Tokens);
        var random = new Random(5);
        for (int i = 0; i < run.Keys[0].Length; i++)
        {
            run.Keys[0][i] = (BFloat16)(random.Next(2) == 0 ? 4f : -4f);
            // Names its place.
            run.Values[0][i] = (BFloat16)(float)(1 + ((i / HeadDim * 31) + (i % HeadDim * 7)) % 256);
        }
        run.Write();
        var expected = new BFloat16[run.Query.Length];
        for (int row = 0; row < Tokens * Heads; row++)
        {
            int chosen = row % 3 == 0 ? First + (row / Heads) : random.Next(First + (row / Heads) + 1);
            Array.Copy(run.Keys[0], chosen * HeadDim, run.Query, row * HeadDim, HeadDim);
            Array.Copy(run.Values[0], chosen * HeadDim, expected, row * HeadDim, HeadDim);
        }
        Assert.Equal(expected, run.ApplyInTiles());
    }

    [Theory]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void ARowHasTheSameBitsInEveryBatchCacheAndBlock(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        const int Tokens = 40, Heads = 3, HeadDim = 64, First = 30, Row = Heads * HeadDim;
        using var batch = new AttentionCase(device, Tokens, Heads, 1, HeadDim, First, First + Tokens);
        BFloat16[] together = batch.ApplyInTiles();
        foreach ((int from, int count) in new[] { (0, 16), (33, 1), (35, 5) })
        {
            using var part = new AttentionCase(device, count, Heads, 1, HeadDim, First + from, capacity: 200, batch, from);
            Assert.Equal(together[(from * Row)..((from + count) * Row)], part.ApplyInTiles());
        }
        foreach (int warps in device.IsCuda ? [1, 2, 4, 8] : new[] { 1, 2 })
            Assert.Equal(together, batch.ApplyInTiles(warps));
    }

    [Theory]
    [InlineData(TestDevice.CpuWarp32, 64)]
    [InlineData(TestDevice.Cuda, 64)]
    [InlineData(TestDevice.Cuda, 96)]
    [InlineData(TestDevice.Cuda, 128)]
    [InlineData(TestDevice.Cuda, 256)]
    public void InfinitiesAndNaNReachTheRowsThatSeeThemAndNoOthers(TestDevice which, int headDim)
    {
        const int Tokens = 34, First = 20;
        using var run = new AttentionCase(TestDevices.Get(which), Tokens, 2, 1, headDim, First, First + Tokens);
        run.AssertInfinitiesReachWhoSeesThem(() => run.ApplyInTiles());
    }

    [Theory]
    [InlineData(TestDevice.CpuWarp32, -3, 15)]
    [InlineData(TestDevice.CpuWarp32, 5, 17)]
    [InlineData(TestDevice.CpuWarp32, -60, 20)]
    [InlineData(TestDevice.CpuWarp32, 20, 20)]
    [InlineData(TestDevice.CpuWarp32, int.MaxValue, 20)]
    [InlineData(TestDevice.Cuda, -3, 15)]
    [InlineData(TestDevice.Cuda, 5, 17)]
    [InlineData(TestDevice.Cuda, -60, 20)]
    [InlineData(TestDevice.Cuda, 20, 20)]
    [InlineData(TestDevice.Cuda, int.MaxValue, 20)]
    [InlineData(TestDevice.Cuda, int.MinValue, 20)]
    public void TokensOutsideTheCacheAreNaNAndOthersAreNot(TestDevice which, int first, int capacity)
    {
        GpuDevice device = TestDevices.Get(which);
        const int Tokens = 20, HeadDim = 64;
        using var run = new AttentionCase(device, Tokens, 1, 1, HeadDim, 0, capacity) { Position = first };
        BFloat16[] y = run.ApplyInTiles();
        for (int i = 0; i < y.Length; i++)
        {
            long position = (long)first + (i / HeadDim);
            Assert.Equal(position < 0 || position >= capacity, BFloat16.IsNaN(y[i]));
        }
    }

    [Theory]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void ManyTokensOfWholeWordsRunInTilesAndOthersDoNot(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        const int Tokens = FlashAttention.FromTokens, Heads = 2, HeadDim = 64, First = 50, Row = Heads * HeadDim;
        using var many = new AttentionCase(device, Tokens, Heads, 1, HeadDim, First, First + Tokens);
        BFloat16[] tiles = many.ApplyInTiles();
        Assert.Equal(tiles, many.Apply());
        Assert.Equal(tiles, many.ApplyInPlace());
        // A token alone, the last of few and the last of many whose queries are off their words: all three of the other kernel.
        using var few = new AttentionCase(device, Tokens - 1, Heads, 1, HeadDim, First + 1, First + Tokens, many, 1);
        using var one = new AttentionCase(device, 1, Heads, 1, HeadDim, First + Tokens - 1, First + Tokens, many, Tokens - 1);
        BFloat16[] alone = one.Apply();
        Assert.Equal(alone, few.Apply()[^Row..]);
        Assert.Equal(alone, many.Apply(misalignment: 4)[^Row..]);
        Assert.NotEqual(alone, tiles[^Row..]);
        Assert.False(FlashAttention.Exists(device, 80, new(64, 2)));
    }

    [Fact]
    public void ItNeedsWholeWarps() => Assert.False(FlashAttention.Exists(TestDevices.Get(TestDevice.Cpu), 64, new(64, 2)));
}
