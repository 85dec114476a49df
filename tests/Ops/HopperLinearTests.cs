using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>The kernels for sm_90a against the double oracle: on a Hopper card, and with few threads' worth of work on the CPU.</summary>
public sealed class HopperLinearTests
{
    // FP8 on these tensor cores adds with about 14 bits within 128 columns of K.
    private static double Tolerance(bool fp8) => fp8 ? 5e-4 : 1e-5;

    // The kernels need twelve warps a block; the device wants a power of two.
    private static readonly Lazy<GpuDevice> Cpu = new(() => TestDevices.Open(TestDevice.CpuWarp32, warps: 16));

    // Around the tiles of 64 and 128 rows, 64 to 256 columns and 64 or 128 columns of K; less than a tile, several tiles a block.
    private static readonly (int M, int N, int K)[] CardShapes =
    [
        (1, 8, 16), (63, 64, 64), (64, 72, 80), (65, 120, 128), (127, 128, 144), (128, 136, 256), (129, 184, 272), (256, 192, 512),
        (257, 200, 528), (300, 264, 1040), (17, 520, 4112), (1000, 1032, 656), (4096, 256, 128), (70, 40_000, 64),
    ];

    private static readonly (int M, int N, int K)[] CpuShapes = [(3, 8, 16), (66, 264, 144), (2, 528, 272)];

    public static TheoryData<TestDevice, bool> Cases()
    {
        var data = new TheoryData<TestDevice, bool>();
        foreach (TestDevice device in TestDevices.Chosen.Where(d => d != TestDevice.Cpu))
            foreach (bool fp8 in new[] { false, true })
                data.Add(device, fp8);
        return data;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void EveryTileMatchesTheOracle(TestDevice which, bool fp8)
    {
        if (Device(which) is not { } device)
            return;
        foreach ((int m, int n, int k) in which == TestDevice.Cuda ? CardShapes : CpuShapes)
        {
            BFloat16[] x = RandomData.GaussianBf16(m * k, 1);
            HostMatrix w = Weights(fp8, RandomData.Gaussian(n * k, 2), n, k);
            double[] expected = AccurateLinearTests.Multiply(Inputs(fp8, x, m, k), MatrixOracle.Values(w), m, n, k);
            foreach ((HopperTileKind kind, bool clusters) in Tiles(which, fp8))
            {
                (float[] exact, BFloat16[] rounded) = Run(device, kind, clusters, w, x, m);
                Compare.Close(exact, expected, Tolerance(fp8));
                for (int i = 0; i < exact.Length; i++)
                    if (((BFloat16)exact[i]).Bits != rounded[i].Bits)
                        Assert.Fail($"{kind}, clusters {clusters}, [{m}, {n}, {k}]: element {i} is {exact[i]} in float32 and {rounded[i]} in BF16.");
            }
        }
    }

    // A card's alone: emulated stores are there at once.
    [Theory]
    [InlineData(TestDevice.Cuda, false)]
    [InlineData(TestDevice.Cuda, true)]
    public void TilesOfShortSumsLeaveTheStoresOfTheOneBeforeAlone(TestDevice which, bool fp8)
    {
        if (Device(which) is not { } device)
            return;
        // One step of K a tile, several tiles a block: the next tile's numbers are there before the last one's have left shared memory.
        const int M = 70, N = 40_000, K = 64;
        BFloat16[] x = RandomData.GaussianBf16(M * K, 8);
        HostMatrix w = Weights(fp8, RandomData.Gaussian(N * K, 9), N, K);
        foreach ((HopperTileKind kind, bool clusters) in Tiles(which, fp8))
            for (int repeat = 0; repeat < 10; repeat++)
            {
                (float[] exact, BFloat16[] rounded) = Run(device, kind, clusters, w, x, M);
                Assert.True(exact.AsSpan().SequenceEqual(Run(device, kind, clusters, w, x, M).Exact), $"{kind}, clusters {clusters}, repeat {repeat}: float32");
                Assert.True(Array.ConvertAll(exact, v => ((BFloat16)v).Bits).AsSpan().SequenceEqual(Array.ConvertAll(rounded, v => v.Bits)), $"{kind}, clusters {clusters}, repeat {repeat}: BF16");
            }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void EveryNumberOfRowsIsRight(TestDevice which, bool fp8)
    {
        if (Device(which) is not { } device || which != TestDevice.Cuda)
            return;
        const int Most = 257, N = 136, K = 144;
        BFloat16[] x = RandomData.GaussianBf16(Most * K, 3);
        HostMatrix w = Weights(fp8, RandomData.Gaussian(N * K, 4), N, K);
        double[] expected = AccurateLinearTests.Multiply(Inputs(fp8, x, Most, K), MatrixOracle.Values(w), Most, N, K);
        foreach (int m in Enumerable.Range(1, 80).Concat([127, 128, 129, 255, 256, 257]))
            foreach ((HopperTileKind kind, bool clusters) in Tiles(which, fp8))
                Compare.Close(Run(device, kind, clusters, w, x[..(m * K)], m).Exact, expected.AsSpan(0, m * N), Tolerance(fp8));
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void SmallIntegersAreExactAndRepeatable(TestDevice which, bool fp8)
    {
        if (Device(which) is not { } device)
            return;
        (int m, int n, int k) = which == TestDevice.Cuda ? (333, 776, 1328) : (5, 16, 272);
        BFloat16[] x = RandomData.SmallIntegersBf16(m * k, 1);
        float[] values = Array.ConvertAll(RandomData.SmallIntegersBf16(n * k, 2), v => (float)v);
        // In FP8 −1, 0 and 1: the largest code or none, so that every product has the same magnitude and no bit of a sum is lost.
        if (fp8)
        {
            x = Array.ConvertAll(x, v => (BFloat16)(448f * MathF.Sign((float)v)));
            values = Array.ConvertAll(values, v => 448f * MathF.Sign(v));
        }
        HostMatrix w = Weights(fp8, values, n, k);
        float[] expected = Array.ConvertAll(AccurateLinearTests.Multiply(Inputs(fp8, x, m, k), MatrixOracle.Values(w), m, n, k), v => (float)v);
        foreach ((HopperTileKind kind, bool clusters) in Tiles(which, fp8))
            for (int repeat = 0; repeat < (which == TestDevice.Cuda ? 20 : 1); repeat++)
                Assert.True(expected.AsSpan().SequenceEqual(Run(device, kind, clusters, w, x, m).Exact), $"{kind}, clusters {clusters}, repeat {repeat}");
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void OneHotInputsReadEachWeightFromItsPlace(TestDevice which, bool fp8)
    {
        if (Device(which) is not { } device)
            return;
        (int n, int k) = which == TestDevice.Cuda ? (264, 272) : (72, 80);
        HostMatrix w = Weights(fp8, RandomData.Gaussian(n * k, 7), n, k);
        double[] values = MatrixOracle.Values(w);
        var hot = new BFloat16[k * k];
        for (int i = 0; i < k; i++)
            hot[(i * k) + i] = (BFloat16)1f;
        double[] expected = AccurateLinearTests.Multiply(Inputs(fp8, hot, k, k), values, k, n, k);
        foreach ((HopperTileKind kind, bool clusters) in Tiles(which, fp8))
            Compare.Close(Run(device, kind, clusters, w, hot, k).Exact, expected, 1e-6);
    }

    // The CPU has no clusters, and threads enough for the smaller tiles only.
    private static IEnumerable<(HopperTileKind Kind, bool Clusters)> Tiles(TestDevice which, bool fp8) =>
        from kind in Enum.GetValues<HopperTileKind>()
        where HopperPlan.IsFp8(kind) == fp8 && (which == TestDevice.Cuda || kind is HopperTileKind.Bf16N64 or HopperTileKind.Bf16N80 || HopperPlan.IsFp8(kind))
        from clusters in which == TestDevice.Cuda ? new[] { false, true } : [false]
        select (kind, clusters);

    // Null where the card is not a Hopper: its kernels cannot run there, as the plan knows.
    private static GpuDevice? Device(TestDevice which)
    {
        if (which != TestDevice.Cuda)
            return Cpu.Value;
        GpuDevice device = TestDevices.Get(which);
        return device.Target?.Name == "90a" ? device : null;
    }

    private static HostMatrix Weights(bool fp8, float[] values, int n, int k) =>
        Quantizer.Quantize(values, n, k, fp8 ? WeightFormat.Fp8Block : WeightFormat.Bf16, new ScaleBlock(128, 128));

    private static double[] Inputs(bool fp8, BFloat16[] x, int m, int k) =>
        fp8 ? StreamedActivationTests.Values(x, m, k, ActivationFormat.Fp8Group128) : Array.ConvertAll(x, v => (double)(float)v);

    private static (float[] Exact, BFloat16[] Rounded) Run(GpuDevice device, HopperTileKind kind, bool clusters, HostMatrix w, BFloat16[] x, int m)
    {
        HopperPlan plan = HopperPlan.Of(kind, clusters, m, w.N, device.MultiprocessorCount);
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        using var input = GuardedBuffer<BFloat16>.Input(device, x);
        using var exact = GuardedBuffer<float>.Output(device, m * w.N);
        using var rounded = GuardedBuffer<BFloat16>.Output(device, m * w.N);
        if (HopperPlan.IsFp8(kind))
        {
            using var quantized = new QuantizedActivations(device, ActivationFormat.Fp8Group128, m, w.K);
            ActivationQuantizer.Quantize(device.DefaultStream, input.View, quantized, m);
            HopperLinear.Launch(device.DefaultStream, weights, quantized, exact.View.Cast<byte>(), true, (m, 0), plan);
            HopperLinear.Launch(device.DefaultStream, weights, quantized, rounded.View.Cast<byte>(), false, (m, 0), plan);
        }
        else
        {
            HopperLinear.Launch(device.DefaultStream, weights, input.View, exact.View.Cast<byte>(), true, (m, 0), plan);
            HopperLinear.Launch(device.DefaultStream, weights, input.View, rounded.View.Cast<byte>(), false, (m, 0), plan);
        }
        return (exact.ToArray(), rounded.ToArray());
    }
}
