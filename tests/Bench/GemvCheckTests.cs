using GpuKit.Ilgpu.Bench;
using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Bench;

/// <summary>The benchmark's check reads every format as its definition says, and tells right products from wrong ones.</summary>
public sealed class GemvCheckTests
{
    [Theory]
    [CombinatorialDevices(64, 128)]
    [CombinatorialDevices(37, 170)]
    public void RowsOfWeightsAreThoseOfTheOracle(TestDevice on, int n, int k)
    {
        GpuDevice device = TestDevices.Get(on);
        foreach (WeightFormat format in WeightFormats.All)
        {
            HostMatrix host = Quantizer.Quantize(RandomData.Gaussian(n * k, 3), n, k, format, format == WeightFormat.Nvfp4 ? null : new ScaleBlock(4, 32));
            using QuantizedMatrix w = QuantizedMatrix.Upload(device, host);
            double[] expected = MatrixOracle.Values(host);
            foreach (int row in new[] { 0, 5, n - 1 })
            {
                double[] values = StoredRow.Of(device.DefaultStream, w, row, 0).Decode(k);
                if (format == WeightFormat.Fp8TwoTerm)
                    values = [.. values.Zip(StoredRow.Of(device.DefaultStream, w, row, 1).Decode(k), (a, b) => a + b)];
                Same(expected.AsSpan(row * k, k), values, $"{format}, row {row}");
            }
        }
    }

    [Theory]
    [CombinatorialDevices(256)]
    [CombinatorialDevices(170)]
    public void RowsOfActivationsAreThoseOfTheOracle(TestDevice on, int k)
    {
        const int M = 3;
        GpuDevice device = TestDevices.Get(on);
        BFloat16[] x = RandomData.GaussianBf16(M * k, 4);
        using DeviceBuffer<BFloat16> inputs = device.Upload<BFloat16>(x);
        foreach (ActivationFormat format in ActivationFormats.All)
        {
            using var quantized = new QuantizedActivations(device, format, M + 1, k);
            ActivationQuantizer.Quantize(device.DefaultStream, inputs, quantized, M);
            double[] expected = ActivationOracle.Values(ActivationOracle.Quantize(x, M, k, format));
            IReadOnlyList<double[]> rows = GemvCheck.Inputs(device.DefaultStream, quantized, M);
            Assert.Equal(M, rows.Count);
            for (int row = 0; row < M; row++)
                Same(expected.AsSpan(row * k, k), rows[row], $"{format}, row {row}");
        }
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void EveryProductIsRightAndAWrongOneIsNot(TestDevice on)
    {
        const int M = 2, N = 52, K = 64;
        GpuDevice device = TestDevices.Get(on);
        using GpuStream stream = device.CreateStream();
        float[] values = RandomData.Gaussian(N * K, 6);
        foreach (GemvProduct product in GemvProduct.All)
        {
            using QuantizedMatrix w = QuantizedMatrix.Upload(device, Quantizer.Quantize(values, N, K, product.Format, product.Block(K)));
            using QuantizedMatrix other = QuantizedMatrix.Upload(device, Quantizer.Quantize([.. values.Select(v => v + 0.02f)], N, K, product.Format, product.Block(K)));
            var check = new GemvCheck(stream, w);
            foreach (Accumulator accumulator in product.ComparesAccumulators ? Enum.GetValues<Accumulator>() : [Accumulator.Float32])
            {
                using var operands = new GemvOperands(stream, product, accumulator, M, N, K);
                double error = operands.Error(w, check), error32 = operands.ErrorFloat32(w, check);
                Assert.True(GemvOperands.IsRight(Record(error, error32)), $"{product.Name}, {accumulator}: {error}, {error32}");
                Assert.InRange(error32, 0, error);
                Assert.False(GemvOperands.IsRight(Record(operands.Error(other, check), null)), $"{product.Name}, {accumulator}");
                // Quantised activations stream on a card, and are dot products elsewhere, as other accumulators are everywhere.
                bool accurate = accumulator != Accumulator.Float32 || (product.Activation is not null && !device.IsCuda);
                Assert.Equal(accurate, operands.Kernel(w).Path is nameof(LinearPath.Accurate) or nameof(LinearPath.AccurateScalar));
            }
        }
        Assert.False(GemvOperands.IsRight(Record(double.NaN, null)));
        Assert.False(GemvOperands.IsRight(Record(0, double.NaN)));
    }

    [Fact]
    public void AReplayIsLongEnoughAndNotTooLong()
    {
        Assert.Equal(48, GpuTimer.Launches(1, 1));
        Assert.Equal(66, GpuTimer.Launches(66, 3));
        Assert.Equal(50, GpuTimer.Launches(5, 400));
        Assert.Equal(20, GpuTimer.Launches(2, 1000));
        Assert.Equal(2, GpuTimer.Launches(2, 1e6));
    }

    private static ResultRecord Record(double error, double? error32) => new() { Bench = "gemv", Device = "test", RelError = error, RelErrorFloat32 = error32 };

    private static void Same(ReadOnlySpan<double> expected, double[] actual, string what)
    {
        Assert.Equal(expected.Length, actual.Length);
        for (int i = 0; i < actual.Length; i++)
            Assert.True(Math.Abs(expected[i] - actual[i]) <= 1e-6 * Math.Abs(expected[i]), $"{what}, column {i}: {actual[i]}, not {expected[i]}");
    }
}
