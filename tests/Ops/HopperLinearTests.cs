using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>The kernels for sm_90a against the double oracle: on a Hopper card, and with few threads' worth of work on the CPU.</summary>
public sealed class HopperLinearTests
{
    private const double Float32Tolerance = 1e-5, Bf16Tolerance = 2e-3;

    // The kernels need twelve warps a block; the device wants a power of two.
    private static readonly Lazy<GpuDevice> Cpu = new(() => GpuDevice.OpenCpuForChecking(16));

    // Around the tiles of 64 and 128 rows, 64 to 256 columns and 64 or 128 columns of K; less than a tile, several tiles a block.
    private static readonly (int M, int N, int K)[] CardShapes =
    [
        (1, 8, 16), (63, 64, 64), (64, 72, 80), (65, 120, 128), (127, 128, 144), (128, 136, 256), (129, 184, 272), (256, 192, 512),
        (257, 200, 528), (300, 264, 1040), (17, 520, 4112), (1000, 1032, 656), (4096, 256, 128), (70, 40_000, 64),
    ];

    private static readonly (int M, int N, int K)[] CpuShapes = [(3, 8, 16), (66, 136, 144)];

    public static TheoryData<TestDevice, int, bool> Cases()
    {
        var data = new TheoryData<TestDevice, int, bool>();
        foreach (HopperTileKind kind in Enum.GetValues<HopperTileKind>())
        {
            if (TestDevices.Chosen.Contains(TestDevice.CpuWarp32) && kind is HopperTileKind.Bf16N64 or HopperTileKind.Fp8N128)
                data.Add(TestDevice.CpuWarp32, (int)kind, false);
            if (TestDevices.Chosen.Contains(TestDevice.Cuda))
            {
                data.Add(TestDevice.Cuda, (int)kind, false);
                data.Add(TestDevice.Cuda, (int)kind, true);
            }
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void MatchesTheOracle(TestDevice which, int kind, bool clusters)
    {
        if (Device(which) is not { } device)
            return;
        foreach ((int m, int n, int k) in which == TestDevice.Cuda ? CardShapes : CpuShapes)
        {
            BFloat16[] x = RandomData.GaussianBf16(m * k, 1);
            HostMatrix w = Weights((HopperTileKind)kind, RandomData.Gaussian(n * k, 2), n, k);
            (float[] exact, BFloat16[] rounded) = Run(device, (HopperTileKind)kind, clusters, w, x, m);
            double[] expected = AccurateLinearTests.Multiply(Inputs((HopperTileKind)kind, x, m, k), MatrixOracle.Values(w), m, n, k);
            Compare.Close(exact, expected, Float32Tolerance);
            Compare.Close(rounded, expected, Bf16Tolerance);
            Assert.Equal(exact.Select(v => (BFloat16)v), rounded);
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void SmallIntegersAreExactAndRepeatable(TestDevice which, int kind, bool clusters)
    {
        if (Device(which) is not { } device)
            return;
        (int m, int n, int k) = which == TestDevice.Cuda ? (333, 776, 1328) : (5, 16, 272);
        BFloat16[] x = RandomData.SmallIntegersBf16(m * k, 1);
        HostMatrix w = Weights((HopperTileKind)kind, Array.ConvertAll(RandomData.SmallIntegersBf16(n * k, 2), v => (float)v), n, k);
        Array.Fill(w.Scales, 1f);
        float[] y = Run(device, (HopperTileKind)kind, clusters, w, x, m).Exact;
        double[] expected = AccurateLinearTests.Multiply(Inputs((HopperTileKind)kind, x, m, k), MatrixOracle.Values(w), m, n, k);
        if (kind != (int)HopperTileKind.Fp8N128)
            Assert.Equal(Array.ConvertAll(expected, v => (float)v), y);
        else
            Compare.Close(y, expected, Float32Tolerance);
        for (int repeat = 0; repeat < (which == TestDevice.Cuda ? 20 : 1); repeat++)
            Assert.Equal(y, Run(device, (HopperTileKind)kind, clusters, w, x, m).Exact);
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void OneHotInputsReadEachWeightFromItsPlace(TestDevice which, int kind, bool clusters)
    {
        if (Device(which) is not { } device)
            return;
        (int n, int k) = which == TestDevice.Cuda ? (264, 272) : (72, 80);
        HostMatrix w = Weights((HopperTileKind)kind, RandomData.Gaussian(n * k, 7), n, k);
        double[] values = MatrixOracle.Values(w);
        var hot = new BFloat16[k * k];
        for (int i = 0; i < k; i++)
            hot[(i * k) + i] = (BFloat16)1f;
        Compare.Close(Run(device, (HopperTileKind)kind, clusters, w, hot, k).Exact, AccurateLinearTests.Multiply(Inputs((HopperTileKind)kind, hot, k, k), values, k, n, k), 1e-6);
    }

    // Null where the card is not a Hopper: its kernels cannot run there, as the plan knows.
    private static GpuDevice? Device(TestDevice which)
    {
        if (which != TestDevice.Cuda)
            return Cpu.Value;
        GpuDevice device = TestDevices.Get(which);
        return device.Target?.Name == "90a" ? device : null;
    }

    private static HostMatrix Weights(HopperTileKind kind, float[] values, int n, int k) =>
        Quantizer.Quantize(values, n, k, kind == HopperTileKind.Fp8N128 ? WeightFormat.Fp8Block : WeightFormat.Bf16, new ScaleBlock(128, 128));

    private static double[] Inputs(HopperTileKind kind, BFloat16[] x, int m, int k) =>
        kind == HopperTileKind.Fp8N128 ? StreamedActivationTests.Values(x, m, k, ActivationFormat.Fp8Group128) : Array.ConvertAll(x, v => (double)(float)v);

    private static (float[] Exact, BFloat16[] Rounded) Run(GpuDevice device, HopperTileKind kind, bool clusters, HostMatrix w, BFloat16[] x, int m)
    {
        HopperPlan plan = HopperPlan.Of(kind, clusters, m, w.N, device.MultiprocessorCount);
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        using var input = GuardedBuffer<BFloat16>.Input(device, x);
        using var exact = GuardedBuffer<float>.Output(device, m * w.N);
        using var rounded = GuardedBuffer<BFloat16>.Output(device, m * w.N);
        if (kind == HopperTileKind.Fp8N128)
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
