using System.Runtime.InteropServices;
using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

public sealed class QuantizerTests
{
    public static TheoryData<TestDevice, WeightFormat, int, int> Shapes()
    {
        var data = new TheoryData<TestDevice, WeightFormat, int, int>();
        foreach (TestDevice device in TestDevices.Chosen)
            foreach (WeightFormat format in WeightFormats.All)
                foreach ((int n, int k) in new[] { (1, 1), (3, 40), (33, 129), (64, 64) })
                    data.Add(device, format, n, k);
        return data;
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public void HostAndDeviceAgreeToTheBit(TestDevice which, WeightFormat format, int n, int k)
    {
        GpuDevice device = TestDevices.Get(which);
        AgreeToTheBit(device, format, Awkward(n * k), n, k);
        AgreeToTheBit(device, format, RandomData.Gaussian(n * k, n, 0.02f), n, k);
    }

    private static void AgreeToTheBit(GpuDevice device, WeightFormat format, float[] values, int n, int k)
    {
        var block = new ScaleBlock(16, 32);
        HostMatrix host = Quantizer.Quantize(values, n, k, format, block);
        using var matrix = new QuantizedMatrix(device, format, n, k, 1, block);
        using var input = GuardedBuffer<float>.Input(device, values);

        Quantizer.Quantize(device.DefaultStream, input.View, matrix);

        Assert.Equal(host.Codes, matrix.Codes.ToArray(device.DefaultStream));
        Assert.Equal(host.Scales, matrix.Scales.ToArray(device.DefaultStream));
        Assert.Equal(host.GroupScales, matrix.GroupScales.ToArray(device.DefaultStream));
        Assert.Equal(host.ZeroPoints, matrix.ZeroPoints.ToArray(device.DefaultStream));
        using var output = GuardedBuffer<float>.Output(device, n * k);
        Quantizer.Dequantize(device.DefaultStream, matrix, output.View);
        Assert.Equal(Quantizer.Dequantize(host), output.ToArray());
        Assert.Equal(Array.ConvertAll(MatrixOracle.Values(host), v => (float)v), output.ToArray());
    }

    [Theory]
    [CombinatorialDevices]
    public void Bf16InputsQuantiseAsTheirFloats(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        BFloat16[] values = RandomData.GaussianBf16(20 * 71, 11);
        using var input = GuardedBuffer<BFloat16>.Input(device, values);
        foreach (WeightFormat format in WeightFormats.All)
        {
            HostMatrix host = Quantizer.Quantize(Compare.ToFloat(values), 20, 71, format);
            using var matrix = new QuantizedMatrix(device, format, 20, 71);
            Quantizer.Quantize(device.DefaultStream, input.View, matrix);
            Assert.Equal(host.Codes, matrix.Codes.ToArray(device.DefaultStream));
            Assert.Equal(host.GroupScales, matrix.GroupScales.ToArray(device.DefaultStream));
            Assert.Equal(host.ZeroPoints, matrix.ZeroPoints.ToArray(device.DefaultStream));
            using var output = GuardedBuffer<BFloat16>.Output(device, 20 * 71);
            Quantizer.Dequantize(device.DefaultStream, matrix, output.View);
            Assert.Equal(Array.ConvertAll(Quantizer.Dequantize(host), v => (BFloat16)v), output.ToArray());
        }
    }

    [Fact]
    public void CodesAreTheNearestToTheOracle()
    {
        float[] values = RandomData.Gaussian(64 * 64, 12);
        HostMatrix host = Quantizer.Quantize(values, 64, 64, WeightFormat.Fp8Block, new ScaleBlock(32, 32));
        double[] finite = [.. MatrixOracle.E4M3.Where(double.IsFinite)];
        for (int i = 0; i < values.Length; i++)
        {
            double scaled = values[i] / host.Scales[(i / 64 / 32 * 2) + (i % 64 / 32)];
            double nearest = finite.Min(v => Math.Abs(v - (float)scaled));
            Assert.InRange(Math.Abs(MatrixOracle.E4M3[host.Codes[i]] - scaled), 0, nearest + 1e-4);
        }
    }

    [Fact]
    public void ZeroInfinityAndNaNHaveTheirCodes()
    {
        float[] values = [.. new float[32], .. Enumerable.Repeat(float.PositiveInfinity, 31), float.NegativeInfinity, float.NaN, 2, .. new float[30]];
        HostMatrix host = Quantizer.Quantize(values, 3, 32, WeightFormat.Fp8Block, new ScaleBlock(1, 32));
        Assert.Equal([1f, 1f, 2f / 448f], host.Scales);
        Assert.All(host.Codes[..32], code => Assert.Equal(0, code));
        Assert.All(host.Codes[32..63], code => Assert.Equal(0x7E, code));
        Assert.Equal([0xFE, 0x7F, 0x7E], host.Codes[63..66]);
    }

    [Fact]
    public void UploadRefusesNaNAndNamesTheTensor()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        HostMatrix good = Quantizer.Quantize(RandomData.Gaussian(4 * 40, 13), 4, 40, WeightFormat.Fp8Block);
        foreach (byte nan in new byte[] { 0x7F, 0xFF })
        {
            byte[] codes = [.. good.Codes];
            codes[85] = nan;
            var e = Assert.Throws<ArgumentException>(() => QuantizedMatrix.Upload(device, good with { Codes = codes }, "layers.3.up_proj"));
            Assert.Contains("layers.3.up_proj: the weight at row 2, column 5 is NaN", e.Message, StringComparison.Ordinal);
        }
        Assert.Contains("scale 0 is NaN", Assert.Throws<ArgumentException>(() => QuantizedMatrix.Upload(device, good with { Scales = [float.NaN] })).Message, StringComparison.Ordinal);
        Assert.Contains("[1, 1] = 1", Assert.Throws<ArgumentException>(() => QuantizedMatrix.Upload(device, good with { Scales = [1, 1] })).Message, StringComparison.Ordinal);
        byte[] bf16 = MemoryMarshal.AsBytes<ushort>([0x3F80, 0xFFC0]).ToArray();
        Assert.Contains("column 1 is NaN", Assert.Throws<ArgumentException>(() => QuantizedMatrix.Upload(device, new HostMatrix(WeightFormat.Bf16, 1, 2, bf16, [], ScaleBlock.Square128))).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0, 32)]
    [InlineData(3, 32)]
    [InlineData(128, 16)]
    [InlineData(128, 100)]
    [InlineData(-128, 128)]
    [InlineData(1 << 20, 1 << 20)]
    public void BlocksThatNoKernelReadsAreRefused(int rows, int columns) =>
        Assert.Throws<ArgumentException>(() => new ScaleBlock(rows, columns));

    [Fact]
    public void DequantisingRefusesCodesAndScalesThatDoNotFit()
    {
        HostMatrix fp8 = Quantizer.Quantize([1, 2], 1, 2, WeightFormat.Fp8Block);
        Assert.Equal([1f, 2f], Quantizer.Dequantize(fp8));
        Assert.Throws<ArgumentException>(() => Quantizer.Dequantize(fp8 with { Scales = [] }));
        Assert.Throws<ArgumentException>(() => Quantizer.Dequantize(fp8 with { Codes = [0] }));
    }

    [Fact]
    public void TheDefaultBlockIs128And128AndLargeMatricesHaveBlocks()
    {
        Assert.Equal(ScaleBlock.Square128, default);
        Assert.Equal((128, 128), (default(ScaleBlock).Rows, default(ScaleBlock).Columns));
        Assert.Equal((1 << 24, 1 << 24), (default(ScaleBlock).RowBlocks(int.MaxValue), default(ScaleBlock).ColumnBlocks(int.MaxValue)));
        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        using QuantizedMatrix matrix = QuantizedMatrix.Upload(device, new HostMatrix(WeightFormat.Bf16, 1, 1, [0x00, 0x40], [], default));
        using DeviceBuffer<BFloat16> x = device.Upload<BFloat16>([(BFloat16)3f]);
        using DeviceBuffer<float> y = device.Allocate<float>(1);
        Linear.Multiply(device.DefaultStream, matrix, x, y, 1);
        Assert.Equal([6f], y.ToArray(device.DefaultStream));
    }

    // Zeros, denormals, a huge outlier, infinities: what a quantiser meets in the wild.
    private static float[] Awkward(int count)
    {
        float[] values = RandomData.Gaussian(count, count);
        float[] special = [0, -0f, 1e-45f, -3e-41f, 1e30f, float.PositiveInfinity, float.NegativeInfinity, 448, -464.1f];
        for (int i = 0; i < count; i += 5)
            values[i] = special[i / 5 % special.Length];
        return values;
    }
}
