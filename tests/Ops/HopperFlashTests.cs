using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Attention in tiles with the instructions of sm_90a, against the double oracle: on a Hopper card, and with little work on the CPU. Unused positions are NaN.</summary>
public sealed class HopperFlashTests
{
    private const int HeadDim = 128;

    // As in FlashAttentionTests.
    private const double Tolerance = 4e-3;

    // The kernel needs twelve warps a block; the device wants a power of two.
    private static readonly Lazy<GpuDevice> Cpu = new(() => TestDevices.Open(TestDevice.CpuWarp32, warps: 16));

    public static TheoryData<TestDevice> Devices() => [.. TestDevices.Chosen.Where(d => d != TestDevice.Cpu)];

    // 128 rows a block, tiles of 128 positions.
    private static readonly (int Tokens, int QueryHeads, int KvHeads, int First)[] CpuShapes =
        [(1, 1, 1, 0), (3, 5, 1, 126), (17, 16, 2, 240), (16, 8, 1, 112), (5, 1, 1, 383)];

    private static readonly (int Tokens, int QueryHeads, int KvHeads, int First)[] CardShapes =
    [
        .. CpuShapes, (2, 1, 1, 126), (130, 1, 1, 1), (128, 1, 1, 0), (129, 2, 1, 127), (257, 8, 2, 300), (130, 32, 4, 0), (300, 16, 2, 17), (16, 8, 1, 4090), (33, 3, 3, 95), (9, 24, 2, 119), (1, 8, 1, 64),
    ];

    [Theory]
    [MemberData(nameof(Devices))]
    public void MatchesTheOracle(TestDevice which)
    {
        if (Device(which) is not { } device)
            return;
        foreach ((int tokens, int queryHeads, int kvHeads, int first) in device.IsCuda ? CardShapes : CpuShapes)
        {
            using var run = new AttentionCase(device, tokens, queryHeads, kvHeads, HeadDim, first, first + tokens + 3);
            BFloat16[] y = run.ApplyOnHopper();
            Compare.Close(y, run.Oracle(), Tolerance);
            if (device.IsCuda)
                Assert.Equal(y, run.ApplyOnHopper());
        }
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void EveryLengthIsRight(TestDevice which)
    {
        if (Device(which) is not { } device)
            return;
        foreach (int length in device.IsCuda ? Enumerable.Range(1, 400) : [2, 15, 129, 257])
        {
            int tokens = Math.Min(length, 1 + (length % 5));
            using var run = new AttentionCase(device, tokens, 3, 1, HeadDim, length - tokens, length);
            Compare.Close(run.ApplyOnHopper(), run.Oracle(), Tolerance);
        }
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void AKeyThatIsMatchedSelectsItsValue(TestDevice which)
    {
        if (Device(which) is not { } device)
            return;
        // Keys are 4 or −4 at random: a query that is one of them scores 181 with it and far less with all others.
        const int Tokens = 66, First = 200, Heads = 2;
        using var run = new AttentionCase(device, Tokens, Heads, 1, HeadDim, First, First + Tokens);
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
        Assert.Equal(expected, run.ApplyOnHopper());
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void ARowHasTheSameBitsInEveryBatchAndCache(TestDevice which)
    {
        if (Device(which) is not { } device)
            return;
        const int Tokens = 70, Heads = 3, First = 100, Row = Heads * HeadDim;
        using var batch = new AttentionCase(device, Tokens, Heads, 1, HeadDim, First, First + Tokens);
        BFloat16[] together = batch.ApplyOnHopper();
        foreach ((int from, int count) in new[] { (0, 16), (27, 2), (35, 35) })
        {
            using var part = new AttentionCase(device, count, Heads, 1, HeadDim, First + from, capacity: 300, batch, from);
            Assert.Equal(together[(from * Row)..((from + count) * Row)], part.ApplyOnHopper());
        }
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void InfinitiesAndNaNReachTheRowsThatSeeThemAndNoOthers(TestDevice which)
    {
        if (Device(which) is not { } device)
            return;
        const int Tokens = 34, First = 115;
        using var run = new AttentionCase(device, Tokens, 2, 1, HeadDim, First, First + Tokens);
        run.AssertInfinitiesReachWhoSeesThem(run.ApplyOnHopper);
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void TokensOutsideTheCacheAreNaNAndOthersAreNot(TestDevice which)
    {
        if (Device(which) is not { } device)
            return;
        const int Tokens = 20;
        foreach ((int first, int capacity) in new[] { (-3, 15), (5, 17), (-60, 20), (20, 20), (int.MaxValue, 20), (int.MinValue, 20) })
        {
            using var run = new AttentionCase(device, Tokens, 1, 1, HeadDim, 0, capacity) { Position = first };
            BFloat16[] y = run.ApplyOnHopper();
            for (int i = 0; i < y.Length; i++)
            {
                long position = (long)first + (i / HeadDim);
                Assert.Equal(position < 0 || position >= capacity, BFloat16.IsNaN(y[i]));
            }
        }
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void HopperTakesItsHeadsWhateverTheNumberOfTokens(TestDevice which)
    {
        if (Device(which) is not { } device)
            return;
        const int Tokens = FlashAttention.FromTokens, Heads = 2, First = 50;
        using var many = new AttentionCase(device, Tokens, Heads, 1, HeadDim, First, First + Tokens);
        using var cache = new KvCache(device, 1, 1, HeadDim, 8);
        using var other = new KvCache(device, 1, 1, 64, 8);
        Assert.Equal(device.IsCuda, HopperFlash.Exists(device, cache));
        Assert.False(HopperFlash.Exists(device, other));
        BFloat16[] tiles = many.ApplyOnHopper();
        if (!device.IsCuda)
            return;
        Assert.Equal(tiles, many.Apply());
        Assert.Equal(tiles, many.ApplyInPlace());
    }

    // Null where the card is not a Hopper: its kernel cannot run there.
    private static GpuDevice? Device(TestDevice which)
    {
        if (which != TestDevice.Cuda)
            return Cpu.Value;
        GpuDevice device = TestDevices.Get(which);
        return device.Target?.Name == "90a" ? device : null;
    }
}
