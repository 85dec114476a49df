using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Products of at most 16 rows with large matrices as a Hopper card runs them, against the double oracle; with little work on the CPU, too.</summary>
public sealed class HopperSkinnyLinearTests
{
    // Tensor cores add BF16 products with a few bits less than float32.
    private const double Tolerance = 1e-5;

    // The kernel needs 12 warps a block, and the CPU device a power of two.
    private static readonly Lazy<GpuDevice> Cpu = new(() => TestDevices.Open(TestDevice.CpuWarp32, warps: 16));

    // Around tiles of 32 rows and chunks of 128 bytes; fewer chunks than warps, runs that end within tiles, blocks without tiles beside blocks with several.
    private static readonly (int M, int N, int K)[] CardShapes =
    [
        (1, 1, 128), (1, 33, 256), (2, 31, 384), (3, 640, 2048), (7, 1000, 896), (8, 4200, 1152), (9, 65, 2816), (15, 97, 1664), (16, 2080, 2560), (16, 8192, 256), (5, 70, 288), (16, 33, 2720),
    ];

    public static TheoryData<TestDevice, WeightFormat, ActivationFormat?> Cases()
    {
        var data = new TheoryData<TestDevice, WeightFormat, ActivationFormat?>();
        foreach (TestDevice device in TestDevices.Chosen.Where(d => d != TestDevice.Cpu))
            foreach ((WeightFormat format, ActivationFormat? activations) in HopperSkinnyKernels.Combinations)
                data.Add(device, format, activations);
        return data;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void EveryNumberOfBlocksMatchesTheOracle(TestDevice which, WeightFormat format, ActivationFormat? activations)
    {
        if (Device(which) is not { } device)
            return;
        foreach ((int m, int n, int k) in device.IsCuda ? CardShapes : [(3, 70, 896), (10, 40, 640), (2, 9, 288)])
        {
            // NVFP4 needs whole 8-byte words of multipliers.
            if (format == WeightFormat.Nvfp4 && k % 128 != 0)
                continue;
            BFloat16[] x = RandomData.GaussianBf16(m * k, 1);
            HostMatrix w = Weights(RandomData.Gaussian(n * k, 2), n, k, format);
            double[] expected = AccurateLinearTests.Multiply(Values(x, m, k, activations), MatrixOracle.Values(w), m, n, k);
            foreach (int? blocks in (device.IsCuda ? new int?[] { null, 1, 3 } : [1, 2]).Where(b => b is null || b <= HopperSkinnyPlan.Tiles(n)))
            {
                float[] exact = Run<float>(device, w, x, m, activations, blocks);
                Compare.Close(exact, expected, Tolerance);
                Assert.Equal(Array.ConvertAll(exact, v => (BFloat16)v), Run<BFloat16>(device, w, x, m, activations, blocks));
            }
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void ARowHasTheSameBitsForEveryNumberOfRows(TestDevice which, WeightFormat format, ActivationFormat? activations)
    {
        if (Device(which) is not { } device)
            return;
        (int n, int k) = device.IsCuda ? (1500, 2432) : (33, 384);
        HostMatrix w = Weights(RandomData.Gaussian(n * k, 5), n, k, format);
        BFloat16[] x = RandomData.GaussianBf16(16 * k, 6);
        float[] all = Run<float>(device, w, x, 16, activations);
        foreach (int m in device.IsCuda ? new[] { 1, 2, 7, 8, 9, 15 } : [8])
        {
            Assert.Equal(all[..(m * n)], Run<float>(device, w, x[..(m * k)], m, activations));
            Assert.Equal(all[^(m * n)..], Run<float>(device, w, x[^(m * k)..], m, activations));
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void OneHotInputsReadEachCodeFromItsPlace(TestDevice which, WeightFormat format, ActivationFormat? activations)
    {
        if (Device(which) is not { } device)
            return;
        (int n, int k) = device.IsCuda ? (264, 896) : (9, 384);
        // What NVFP4 holds without a multiplier of the row: the largest code times the largest of a group.
        float one = activations is null ? 1f : 6f * 448f;
        HostMatrix w = Weights(RandomData.Gaussian(n * k, 7), n, k, format);
        double[] values = MatrixOracle.Values(w);
        for (int first = 0; first + 16 <= k; first += device.IsCuda ? 16 : 176)
        {
            var hot = new BFloat16[16 * k];
            for (int row = 0; row < 16; row++)
                hot[(row * k) + first + row] = (BFloat16)one;
            float[] y = Run<float>(device, w, hot, 16, activations, 2);
            for (int row = 0; row < 16; row++)
                for (int column = 0; column < n; column++)
                    Assert.Equal((float)(values[(column * k) + first + row] * one), y[(row * n) + column]);
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void RepeatedLaunchesGiveTheSameBits(TestDevice which, WeightFormat format, ActivationFormat? activations)
    {
        if (Device(which) is not { IsCuda: true } device)
            return;
        const int M = 16, N = 20000, K = 1024;
        HostMatrix w = Weights(RandomData.Gaussian(N * K, 5), N, K, format);
        BFloat16[] x = RandomData.GaussianBf16(M * K, 6);
        float[] first = Run<float>(device, w, x, M, activations);
        for (int i = 0; i < 20; i++)
            Assert.Equal(first, Run<float>(device, w, x, M, activations, repeats: 5));
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void RunsOfSeveralTilesMatchTheOracle(TestDevice which, WeightFormat format, ActivationFormat? activations)
    {
        if (Device(which) is not { } device || (!device.IsCuda && format != WeightFormat.Int4))
            return;
        (int n, int k) = device.IsCuda ? (896 * 4, 2048) : (896, 1024);
        HostMatrix w = Weights(RandomData.Gaussian(n * k, 5), n, k, format);
        foreach (int m in device.IsCuda ? new[] { 1, 8, 16 } : [1])
        {
            BFloat16[] x = RandomData.GaussianBf16(m * k, 6);
            double[] expected = AccurateLinearTests.Multiply(Values(x, m, k, activations), MatrixOracle.Values(w), m, n, k);
            foreach (int blocks in device.IsCuda ? new[] { 1, 2, 4 } : [1])
                for (int i = 0; i < (device.IsCuda ? 10 : 1); i++)
                    Compare.Close(Run<float>(device, w, x, m, activations, blocks), expected, Tolerance);
        }
    }

    // Null where the card is not a Hopper: its kernels cannot run there, as the plan knows.
    private static GpuDevice? Device(TestDevice which)
    {
        if (which != TestDevice.Cuda)
            return Cpu.Value;
        GpuDevice device = TestDevices.Get(which);
        return device.Target?.Name == "90a" ? device : null;
    }

    private static double[] Values(BFloat16[] x, int m, int k, ActivationFormat? activations) =>
        activations is { } format ? StreamedActivationTests.Values(x, m, k, format) : Array.ConvertAll(x, v => (double)(float)v);

    private static HostMatrix Weights(float[] values, int n, int k, WeightFormat format) => Quantizer.Quantize(values, n, k, format, ScaleBlock.Group128);

    private static T[] Run<T>(GpuDevice device, HostMatrix w, BFloat16[] x, int m, ActivationFormat? activations, int? given = null, int repeats = 1)
        where T : unmanaged
    {
        var shape = new LinearShape(m, w.N, w.K, w.Format, true, 0, w.Block, activations);
        Assert.True(HopperSkinnyPlan.Exists(shape, LinearDevice.Of(device)));
        int blocks = Math.Min(given ?? int.MaxValue, HopperSkinnyPlan.Blocks(w.N, LinearDevice.Of(device)));
        bool float32 = typeof(T) == typeof(float);
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        using var input = GuardedBuffer<BFloat16>.Input(device, x);
        using var output = GuardedBuffer<T>.Output(device, m * w.N);
        using QuantizedActivations? codes = activations is { } format ? new QuantizedActivations(device, format, m, w.K) : null;
        GpuStream stream = device.DefaultStream;
        if (codes is not null)
            ActivationQuantizer.Quantize(stream, input.View, codes, m);
        for (int i = 0; i < repeats; i++)
        {
            if (codes is null)
                HopperSkinnyLinear.Launch(stream, weights, input.View, output.View.Cast<byte>(), float32, (m, 0), blocks);
            else
                HopperSkinnyLinear.Launch(stream, weights, codes, output.View.Cast<byte>(), float32, (m, 0), blocks);
        }
        return output.ToArray();
    }
}
