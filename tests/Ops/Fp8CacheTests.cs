using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>What operators store in an FP8 cache and read from it.</summary>
public sealed class Fp8CacheTests(ITestOutputHelper output)
{
    [Theory]
    [MemberData(nameof(DecodeAttentionTests.Cases), MemberType = typeof(DecodeAttentionTests))]
    public void OneLaunchStoresWhatTheOperatorsDoAndMatchesTheOracle(TestDevice which, int queryHeads, int kvHeads, int headDim, int position)
    {
        using var run = new Fp8CacheCase(TestDevices.Get(which), queryHeads, kvHeads, headDim, position);
        Fp8CacheCase.Result together = run.Run(KvCacheFormat.Fp8, together: true), apart = run.Run(KvCacheFormat.Fp8, together: false);
        AssertSame(apart, together);
        Compare.Close(together.Output, run.Oracle(apart.Query, apart), 5e-3);
        Assert.Equal(together.Output, run.Run(KvCacheFormat.Fp8, together: true).Output);
        Report(run, together, "one launch");
    }

    // Few tokens, number by number; 16 and more on tensor cores where the device has them, of what the codes stand for in BF16.
    [Theory]
    [CombinatorialDevices(2, 1, 64, 0, 1)]
    [CombinatorialDevices(4, 2, 80, 30, 1)]
    [CombinatorialDevices(3, 3, 16, 129, 3)]
    [CombinatorialDevices(2, 1, 128, 127, 7)]
    [CombinatorialDevices(2, 2, 256, 60, 2)]
    [CombinatorialDevices(4, 2, 64, 0, 17)]
    [CombinatorialDevices(2, 1, 128, 50, 16)]
    public void OperatorsStoreTheQuantisedHeadsAndMatchTheOracle(TestDevice which, int queryHeads, int kvHeads, int headDim, int first, int tokens)
    {
        using var run = new Fp8CacheCase(TestDevices.Get(which), queryHeads, kvHeads, headDim, first, tokens);
        Fp8CacheCase.Result fp8 = run.Run(KvCacheFormat.Fp8, together: false), bf16 = run.Run(KvCacheFormat.Bf16, together: false);
        Assert.Equal(run.Quantized(bf16.Keys), (fp8.Codes.Keys, fp8.Codes.KeyScales), EqualCodes);
        Assert.Equal(run.Quantized(bf16.Values), (fp8.Codes.Values, fp8.Codes.ValueScales), EqualCodes);
        Assert.Equal(bf16.Query, fp8.Query);
        Compare.Close(fp8.Output, run.Oracle(fp8.Query, fp8), 5e-3);
        Assert.Equal(fp8.Output, run.Run(KvCacheFormat.Fp8, together: false).Output);
        Report(run, fp8, $"{tokens} tokens");
    }

    [Theory]
    [InlineData(TestDevice.CpuWarp32, true)]
    [InlineData(TestDevice.CpuWarp32, false)]
    [InlineData(TestDevice.Cpu, false)]
    [InlineData(TestDevice.Cuda, true)]
    [InlineData(TestDevice.Cuda, false)]
    public void AHeadWithANaNMakesEveryScoreOrSumNaNAndZerosAndInfinitiesAreNumbers(TestDevice which, bool together)
    {
        const int HeadDim = 64;
        foreach ((BFloat16 key, BFloat16 value, bool isNaN) in new[]
        {
            (BFloat16.FromBits(0x7FC0), (BFloat16)1f, true), ((BFloat16)1f, BFloat16.FromBits(0xFFC0), true),
            ((BFloat16)float.PositiveInfinity, (BFloat16)1f, false), ((BFloat16)0f, (BFloat16)float.NegativeInfinity, false),
        })
        {
            using var run = new Fp8CacheCase(TestDevices.Get(which), 2, 1, HeadDim, 20);
            // Heads of zeros but for one number; without gains the norm leaves an infinite key NaN, so that it is among the zeros of a value only.
            Array.Clear(run.Qkv, 2 * HeadDim, 2 * HeadDim);
            run.Qkv[(2 * HeadDim) + 5] = float.IsInfinity((float)key) ? (BFloat16)1f : key;
            run.Qkv[(3 * HeadDim) + 7] = value;
            Fp8CacheCase.Result fp8 = run.Run(KvCacheFormat.Fp8, together);
            Assert.Equal(isNaN, fp8.Output.All(BFloat16.IsNaN));
            Assert.Equal(!isNaN, fp8.Output.All(v => float.IsFinite((float)v)));
        }
    }

    [Theory]
    [InlineData(TestDevice.CpuWarp32, true, -1)]
    [InlineData(TestDevice.CpuWarp32, false, 41)]
    [InlineData(TestDevice.Cpu, false, -1)]
    [InlineData(TestDevice.Cuda, true, 41)]
    [InlineData(TestDevice.Cuda, false, int.MaxValue)]
    public void PositionsOutsideTheCacheGiveNaNAndStoreNothing(TestDevice which, bool together, int position)
    {
        using var run = new Fp8CacheCase(TestDevices.Get(which), 2, 1, 64, 37) { Position = position };
        Fp8CacheCase.Result fp8 = run.Run(KvCacheFormat.Fp8, together);
        Assert.All(fp8.Output, v => Assert.True(BFloat16.IsNaN(v)));
        Assert.All(fp8.Codes.KeyScales[37..], s => Assert.True(float.IsNaN(s)));
        Assert.All(fp8.Codes.Values[(37 * 64)..], c => Assert.Equal(0x7F, c));
    }

    // Each sequence has its own scales.
    [Theory]
    [InlineData(TestDevice.CpuWarp32, 70)]
    [InlineData(TestDevice.Cuda, 6000)]
    public void ABatchHasTheBitsOfItsSequencesAlone(TestDevice which, int capacity)
    {
        const int QueryHeads = 4, KvHeads = 2, HeadDim = 64, Layers = 2, Row = (QueryHeads + (2 * KvHeads)) * HeadDim;
        GpuDevice device = TestDevices.Get(which);
        int[] positions = [capacity - 1, -1, 0, 65];
        int length = positions.Length;
        using var table = new RotaryTable(device, HeadDim, capacity, 10_000);
        using var workspace = new DecodeAttentionWorkspace(device, KvHeads, HeadDim, length);
        using var caches = new KvCacheBatch(device, length, Layers, KvHeads, HeadDim, capacity, KvCacheFormat.Fp8);
        using var qkv = GuardedBuffer<BFloat16>.Input(device, RandomData.GaussianBf16(length * Row, 1));
        using var position = GuardedBuffer<int>.Input(device, positions);
        using GuardedBuffer<BFloat16> together = GuardedBuffer<BFloat16>.Output(device, length * QueryHeads * HeadDim), alone = GuardedBuffer<BFloat16>.Output(device, QueryHeads * HeadDim);
        for (int s = 0; s < length; s++)
            for (int layer = 0; layer < Layers; layer++)
                RandomFill.Cache(device.DefaultStream, caches[s].Layer(layer), (ulong)(10 * s) + (ulong)layer);
        var options = new QkNormRotaryOptions(length, QueryHeads, table) { Epsilon = 1e-6f };
        DecodeAttention.ApplyBatch(device.DefaultStream, qkv.View, position.View, caches.Layer(1), (together.View, workspace), options);
        device.Synchronize();
        BFloat16[] y = together.ToArray();
        for (int s = 0; s < length; s++)
        {
            KvCodes codes = caches[s].Layer(1).Codes;
            (byte[] before, float[] scales) = (CacheContents.Read(codes.Keys), CacheContents.Read(codes.ValueScales));
            DecodeAttention.Apply(device.DefaultStream, qkv.View.SubView(s * Row, Row), position.View.SubView(s, 1), caches[s].Layer(1), (alone.View, workspace), options with { Tokens = 1 });
            device.Synchronize();
            Assert.Equal(alone.ToArray(), y[(s * QueryHeads * HeadDim)..((s + 1) * QueryHeads * HeadDim)]);
            Assert.Equal(before, CacheContents.Read(codes.Keys));
            Assert.Equal(scales, CacheContents.Read(codes.ValueScales));
            Assert.Equal(positions[s] < 0, scales.Distinct().Count() == 1);
        }
    }

    [Fact]
    public void ACacheSaysWhatItTakesAndRefusesHeadsThatDoNotFit()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        using var bf16 = new KvCache(device, 3, 2, 64, 10);
        using var fp8 = new KvCache(device, 3, 2, 64, 10, KvCacheFormat.Fp8);
        Assert.Equal(2 * 2 * 3 * 2 * 10 * 64, bf16.Bytes);
        // Codes and a float32 a row; where tensor cores run, a layer in BF16 besides.
        Assert.Equal(2 * 3 * 2 * 10 * (64 + 4), fp8.Bytes);
        using var expanded = new KvCache(TestDevices.Get(TestDevice.CpuWarp32), 3, 2, 64, 10, KvCacheFormat.Fp8);
        Assert.Equal(fp8.Bytes + (2 * 2 * 2 * 10 * 64), expanded.Bytes);
        Assert.Equal((KvCacheFormat.Bf16, KvCacheFormat.Fp8), (bf16.Format, fp8.Format));
        Assert.Equal((0, 0), (fp8.Keys(1).Length, fp8.Layer(2).Values.Length));
        Assert.Throws<ArgumentOutOfRangeException>(() => new KvCache(device, 1, 1, 24, 4, KvCacheFormat.Fp8));
        Assert.Throws<ArgumentOutOfRangeException>(() => new KvCache(device, 1, 1, 64, 4, (KvCacheFormat)2));
        Assert.Throws<ArgumentOutOfRangeException>(() => fp8.Layer(3));
    }

    private static void AssertSame(Fp8CacheCase.Result expected, Fp8CacheCase.Result actual)
    {
        Assert.Equal(expected.Codes.Keys, actual.Codes.Keys);
        Assert.Equal(expected.Codes.KeyScales, actual.Codes.KeyScales);
        Assert.Equal(expected.Codes.Values, actual.Codes.Values);
        Assert.Equal(expected.Codes.ValueScales, actual.Codes.ValueScales);
    }

    private static bool EqualCodes((byte[] Codes, float[] Scales) a, (byte[] Codes, float[] Scales) b) => a.Codes.SequenceEqual(b.Codes) && a.Scales.SequenceEqual(b.Scales);

    // The format's own loss, which is not the kernel's: against the BF16 cache that it quantises.
    private void Report(Fp8CacheCase run, Fp8CacheCase.Result fp8, string name)
    {
        BFloat16[] bf16 = run.Run(KvCacheFormat.Bf16, together: false).Output;
        double error = Compare.RelativeError(Compare.ToFloat(fp8.Output), Array.ConvertAll(bf16, v => (double)(float)v));
        output.WriteLine($"{name}: FP8 cache against BF16 cache {error:P2}");
        // Keys and values of four significant bits each, 2.5 % and 2.5 % where scores spread by 1.
        Assert.InRange(error, 0.02, 0.045);
    }
}
