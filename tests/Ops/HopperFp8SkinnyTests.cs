using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Products of at most 16 rows of FP8 with groups of 32 columns on both sides as a Hopper card runs them, against the double oracle; with little work on the CPU, too.</summary>
public sealed class HopperFp8SkinnyTests
{
    private const double Tolerance = 1e-5;

    // Around tiles of 32 rows and chunks of 128 columns; fewer chunks than warps, one round of a warp's two stages, several.
    private static readonly (int M, int N, int K)[] CardShapes =
    [
        (1, 1, 128), (1, 33, 256), (2, 31, 384), (3, 640, 2048), (5, 70, 640), (7, 1000, 896), (8, 4200, 1152), (9, 65, 2816), (13, 96, 5120), (15, 97, 1664), (16, 2080, 2560), (16, 32, 16384),
    ];

    public static TheoryData<TestDevice> Devices => [.. TestDevices.Chosen.Where(d => d != TestDevice.Cpu)];

    [Theory]
    [MemberData(nameof(Devices))]
    public void EveryNumberOfWarpsMatchesTheOracle(TestDevice which)
    {
        if (Device(which) is not { } device)
            return;
        foreach ((int m, int n, int k) in device.IsCuda ? CardShapes : [(3, 33, 384), (11, 40, 640)])
        {
            BFloat16[] x = RandomData.GaussianBf16(m * k, 1);
            foreach (int blockRows in new[] { 32, 128 })
            {
                HostMatrix w = Weights(n, k, blockRows, 2);
                double[] expected = AccurateLinearTests.Multiply(StreamedActivationTests.Values(x, m, k, ActivationFormat.Fp8Group32), MatrixOracle.Values(w), m, n, k);
                foreach (int warps in device.IsCuda ? new[] { 1, 4, 8, 16 } : [blockRows == 32 ? 1 : 4])
                {
                    float[] exact = Run<float>(device, w, x, m, warps);
                    Compare.Close(exact, expected, Tolerance);
                    Assert.Equal(Array.ConvertAll(exact, v => (BFloat16)v), Run<BFloat16>(device, w, x, m, warps));
                }
            }
        }
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void ARowHasTheSameBitsForEveryNumberOfRows(TestDevice which)
    {
        if (Device(which) is not { } device)
            return;
        (int n, int k) = device.IsCuda ? (1500, 2432) : (33, 384);
        HostMatrix w = Weights(n, k, 32, 5);
        BFloat16[] x = RandomData.GaussianBf16(16 * k, 6);
        float[] all = Run<float>(device, w, x, 16, 4);
        foreach (int m in device.IsCuda ? Enumerable.Range(1, 15) : [1, 8, 9])
        {
            Assert.Equal(all[..(m * n)], Run<float>(device, w, x[..(m * k)], m, 4));
            Assert.Equal(all[^(m * n)..], Run<float>(device, w, x[^(m * k)..], m, 4));
        }
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void OneHotInputsReadEachCodeFromItsPlace(TestDevice which)
    {
        if (Device(which) is not { } device)
            return;
        // The largest code of a group has the multiplier 1.
        (int n, int k, float one) = (device.IsCuda ? 264 : 33, 256, 448f);
        HostMatrix w = Weights(n, k, 32, 7);
        double[] values = MatrixOracle.Values(w);
        for (int first = 0; first < k; first += device.IsCuda ? 16 : 80)
        {
            var hot = new BFloat16[16 * k];
            for (int row = 0; row < 16; row++)
                hot[(row * k) + first + row] = (BFloat16)one;
            float[] y = Run<float>(device, w, hot, 16, 2);
            for (int row = 0; row < 16; row++)
                for (int column = 0; column < n; column++)
                    Assert.Equal((float)(values[(column * k) + first + row] * one), y[(row * n) + column]);
        }
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void NaNAndInfinitiesReachTheirRowsOnly(TestDevice which)
    {
        if (Device(which) is not { } device)
            return;
        (int m, int n, int k) = (11, 35, 256);
        BFloat16[] x = RandomData.GaussianBf16(m * k, 8);
        x[7] = BFloat16.FromBits(0x7F80);
        x[(9 * k) + 200] = BFloat16.FromBits(0x7FC0);
        HostMatrix w = Weights(n, k, 32, 9);
        float[] y = Run<float>(device, w, x, m, 2);
        Assert.All(y[(9 * n)..(10 * n)], v => Assert.True(float.IsNaN(v)));
        Compare.Close(y, AccurateLinearTests.Multiply(StreamedActivationTests.Values(x, m, k, ActivationFormat.Fp8Group32), MatrixOracle.Values(w), m, n, k), Tolerance);
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void RowsOfALongerMatrixAreWrittenInPlace(TestDevice which)
    {
        if (Device(which) is not { } device)
            return;
        (int m, int n, int k, int stride) = (10, 33, 256, 37);
        BFloat16[] x = RandomData.GaussianBf16(m * k, 10);
        HostMatrix w = Weights(n, k, 32, 11);
        float[] y = Run<float>(device, w, x, m, 2), strided = Run<float>(device, w, x, m, 2, stride);
        for (int row = 0; row < m; row++)
            Assert.Equal(y[(row * n)..((row + 1) * n)], strided[(row * stride)..((row * stride) + n)]);
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void RepeatedLaunchesGiveTheSameBits(TestDevice which)
    {
        if (Device(which) is not { IsCuda: true } device)
            return;
        const int M = 16, N = 20000, K = 2048;
        HostMatrix w = Weights(N, K, 32, 5);
        BFloat16[] x = RandomData.GaussianBf16(M * K, 6);
        float[] first = Run<float>(device, w, x, M, 4);
        for (int i = 0; i < 20; i++)
            Assert.Equal(first, Run<float>(device, w, x, M, 4, repeats: 5));
    }

    // What the operator itself chooses: the same bits as its kernel with the planned warps, and about those of dot products.
    [Theory]
    [InlineData(TestDevice.Cuda)]
    public void LargeMatricesRunOnIt(TestDevice which)
    {
        if (Device(which) is not { } device)
            return;
        (int m, int n, int k) = (5, 2048, 4096);
        var shape = new LinearShape(m, n, k, WeightFormat.Fp8Block, true, 0, new ScaleBlock(32, 32), ActivationFormat.Fp8Group32);
        Assert.True(HopperFp8SkinnyPlan.IsChosen(shape, LinearDevice.Of(device)));
        HostMatrix w = Weights(n, k, 32, 12);
        BFloat16[] x = RandomData.GaussianBf16(m * k, 13);
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        using DeviceBuffer<BFloat16> input = device.Upload<BFloat16>(x);
        using var codes = new QuantizedActivations(device, ActivationFormat.Fp8Group32, m, k);
        using DeviceBuffer<float> y = device.Allocate<float>(m * n);
        ActivationQuantizer.Quantize(device.DefaultStream, input, codes, m);
        Linear.Multiply(device.DefaultStream, weights, codes, y, m);
        float[] chosen = y.ToArray(device.DefaultStream);
        Assert.Equal(Run<float>(device, w, x, m, HopperFp8SkinnyPlan.Warps(shape, LinearDevice.Of(device))), chosen);
        Linear.Launch(device.DefaultStream, weights, codes, y.View.Cast<byte>(), true, (m, 0), Accumulator.Float32, LinearPath.Accurate);
        Compare.Close(chosen, Array.ConvertAll(y.ToArray(device.DefaultStream), v => (double)v), Tolerance);
    }

    // Null where the card is not a Hopper: its kernels cannot run there, as the plan knows.
    private static GpuDevice? Device(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        return !device.IsCuda || device.Target?.Name == "90a" ? device : null;
    }

    // Multipliers differ between groups and tiles.
    private static HostMatrix Weights(int n, int k, int blockRows, int seed)
    {
        HostMatrix w = Quantizer.Quantize(RandomData.Gaussian(n * k, seed), n, k, WeightFormat.Fp8Block, new ScaleBlock(blockRows, 32));
        for (int i = 0; i < w.Scales.Length; i++)
            w.Scales[i] *= 1 + (i % 3);
        return w;
    }

    private static T[] Run<T>(GpuDevice device, HostMatrix w, BFloat16[] x, int m, int warps, int stride = 0, int repeats = 1)
        where T : unmanaged
    {
        Assert.True(HopperFp8SkinnyPlan.Exists(new LinearShape(m, w.N, w.K, w.Format, true, 0, w.Block, ActivationFormat.Fp8Group32), LinearDevice.Of(device)));
        GpuStream stream = device.DefaultStream;
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        using var input = GuardedBuffer<BFloat16>.Input(device, x);
        using var codes = new QuantizedActivations(device, ActivationFormat.Fp8Group32, m, w.K);
        ActivationQuantizer.Quantize(stream, input.View, codes, m);
        using var output = GuardedBuffer<T>.Output(device, stride == 0 ? m * w.N : ((m - 1) * stride) + w.N);
        using var other = GuardedBuffer<T>.Output(device, output.Length);
        // No bit depends on how many chunks are asked for early.
        foreach (int early in new[] { 1, 2 })
            for (int i = 0; i < repeats; i++)
                HopperFp8SkinnyLinear.Launch(stream, weights, codes, (early == 1 ? other : output).View.Cast<byte>(), typeof(T) == typeof(float), (m, stride), warps, early);
        Assert.Equal(output.ToArray(), other.ToArray());
        return output.ToArray();
    }
}
