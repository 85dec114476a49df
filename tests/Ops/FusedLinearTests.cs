using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Products with a bias, a residual or gates against the double oracle, on every path.</summary>
public sealed class FusedLinearTests
{
    // Half a unit in the last place of BF16, which in a small case may be all of the error.
    private const double Bf16Tolerance = 1.0 / 256;

    [Theory]
    [CombinatorialDevices]
    public void BiasAndResidualAreAddedBeforeRounding(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        foreach (WeightFormat format in WeightFormats.All)
            foreach ((LinearPath path, int m, int n, int k) in Ways(device, format, 41))
                foreach ((bool bias, bool residual) in new[] { (true, true), (true, false), (false, true), (false, false) })
                    CheckAdded(device, format, path, (m, n, k), bias, residual);
    }

    [Theory]
    [CombinatorialDevices]
    public void GatesMultiplyTheirValues(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        foreach (WeightFormat format in WeightFormats.All)
        {
            foreach ((LinearPath path, int m, int n, int k) in Ways(device, format, 76))
            {
                HostMatrix w = Weights(format, n, k);
                BFloat16[] x = RandomData.GaussianBf16(m * k, 2);
                double[] products = MatrixOracle.Multiply(x, MatrixOracle.Values(w), m, n, k);
                int width = n / 2;
                var expected = new double[m * width];
                for (int i = 0; i < expected.Length; i++)
                {
                    double gate = products[(i / width * n) + (i % width)];
                    expected[i] = gate / (1 + Math.Exp(-gate)) * products[(i / width * n) + width + (i % width)];
                }
                Compare.Close(Run(device, w, (x, [], []), m, true, path), expected, Bf16Tolerance);
            }
        }
    }

    [Fact]
    public void WrongCallsAreRefused()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        using var weights = new QuantizedMatrix(device, WeightFormat.Bf16, 7, 16);
        using DeviceBuffer<BFloat16> x = device.Allocate<BFloat16>(16), y = device.Allocate<BFloat16>(8), three = device.Allocate<BFloat16>(3);
        Assert.Contains("7 rows", Assert.Throws<ArgumentException>(() => Linear.MultiplyGated(device.DefaultStream, weights, x, y, 1)).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => Linear.MultiplyAdd(device.DefaultStream, weights, x, y, 1, bias: three));
        Assert.Throws<ArgumentException>(() => Linear.MultiplyAdd(device.DefaultStream, weights, x, y, 1, residual: three));
        Linear.MultiplyAdd(device.DefaultStream, weights, x, y, 0);
    }

    // With 32 lanes, which cost seconds on the CPU, tiles of three formats that differ in what the end of a tile does.
    private static IEnumerable<(LinearPath Path, int M, int N, int K)> Ways(GpuDevice device, WeightFormat format, int n)
    {
        yield return (LinearPath.Scalar, 3, 14, 33);
        if (device.WarpSize == 32)
            yield return (LinearPath.Gemv, 2, 6, 40);
        if (device.IsCuda || (device.WarpSize == 32 && format is (WeightFormat.Bf16 or WeightFormat.Fp8Block or WeightFormat.Nvfp4)))
            yield return (LinearPath.Gemm, 18, n, 96);
        if (device.IsCuda)
            yield return (LinearPath.Gemm, 300, 520, 1056);
    }

    private static HostMatrix Weights(WeightFormat format, int n, int k) =>
        Quantizer.Quantize(RandomData.Gaussian(n * k, n + k, 0.2f), n, k, format, new ScaleBlock(32, 64));

    private static void CheckAdded(GpuDevice device, WeightFormat format, LinearPath path, (int M, int N, int K) shape, bool bias, bool residual)
    {
        (int m, int n, int k) = shape;
        HostMatrix w = Weights(format, n, k);
        BFloat16[] x = RandomData.GaussianBf16(m * k, 2), b = RandomData.GaussianBf16(n, 3), r = RandomData.GaussianBf16(m * n, 4);
        double[] expected = MatrixOracle.Multiply(x, MatrixOracle.Values(w), m, n, k);
        for (int i = 0; i < expected.Length; i++)
            expected[i] += (bias ? (float)b[i % n] : 0) + (residual ? (float)r[i] : 0);
        Compare.Close(Run(device, w, (x, bias ? b : [], residual ? r : []), m, false, path), expected, Bf16Tolerance);
    }

    private static float[] Run(GpuDevice device, HostMatrix w, (BFloat16[] X, BFloat16[] Bias, BFloat16[] Residual) inputs, int m, bool gated, LinearPath path)
    {
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        using var x = GuardedBuffer<BFloat16>.Input(device, inputs.X);
        using var bias = GuardedBuffer<BFloat16>.Input(device, inputs.Bias);
        using var residual = GuardedBuffer<BFloat16>.Input(device, inputs.Residual);
        using var y = GuardedBuffer<BFloat16>.Output(device, m * (gated ? w.N / 2 : w.N));
        Linear.LaunchFused(device.DefaultStream, weights, (x.View, bias.View, residual.View), y.View, gated, (m, 0), path);
        return Array.ConvertAll(y.ToArray(), v => (float)v);
    }
}
