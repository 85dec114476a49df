using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>What is particular to two codes a byte and to NVFP4's two levels of scales.</summary>
public sealed class FourBitWeightsTests
{
    private static readonly WeightFormat[] Formats = [WeightFormat.Nvfp4, WeightFormat.Int4, WeightFormat.Int4Zero];

    [Theory]
    [InlineData(WeightFormat.Bf16, 0.0014, 0.0026)]
    [InlineData(WeightFormat.Fp8Block, 0.023, 0.029)]
    [InlineData(WeightFormat.Nvfp4, 0.088, 0.105)]
    [InlineData(WeightFormat.Int4, 0.110, 0.124)]
    [InlineData(WeightFormat.Int4, 0.103, 0.112, 64)]
    [InlineData(WeightFormat.Int4, 0.092, 0.102, 32)]
    [InlineData(WeightFormat.Int4Zero, 0.095, 0.105)]
    [InlineData(WeightFormat.Int4Zero, 0.086, 0.095, 64)]
    [InlineData(WeightFormat.Int4Zero, 0.076, 0.085, 32)]
    [InlineData(WeightFormat.Fp8TwoTerm, 0.0005, 0.0009)]
    public void GaussianWeightsLoseWhatTheFormatCosts(WeightFormat format, double least, double most, int group = 0)
    {
        float[] values = RandomData.Gaussian(128 * 512, 21);
        float[] stored = Quantizer.Dequantize(Quantizer.Quantize(values, 128, 512, format, group == 0 ? null : new ScaleBlock(1, group)));
        double difference = values.Zip(stored, (a, b) => ((double)a - b) * (a - b)).Sum(), norm = values.Sum(v => (double)v * v);
        Assert.InRange(Math.Sqrt(difference / norm), least, most);
    }

    [Fact]
    public void Nvfp4HasAGroupScaleEvery16ColumnsAndOneForTheMatrix()
    {
        float[] values = new float[2 * 33];
        values[0] = 2688;
        values[16] = -3;
        values[17] = 0.5f;
        values[32] = 6;
        HostMatrix w = Quantizer.Quantize(values, 2, 33, WeightFormat.Nvfp4);
        Assert.Equal([1f], w.Scales);
        // 448, ½ and 1 in E4M3; the second row is zero.
        Assert.Equal([0x7E, 0x30, 0x38, 0, 0, 0], w.GroupScales);
        Assert.Equal(2 * 17, w.Codes.Length);
        Assert.Equal([0x07, 0x2F, 0x07], new[] { w.Codes[0], w.Codes[8], w.Codes[16] });
        Assert.Equal(values, Quantizer.Dequantize(w));
    }

    [Fact]
    public void Int4ScalesAreBf16NumbersAndCodesComeFromThem()
    {
        float[] values = [1f, -1f, 0.5f, 0.2142f];
        HostMatrix w = Quantizer.Quantize(values, 1, 4, WeightFormat.Int4);
        float scale = (float)(BFloat16)(1f / 7f);
        Assert.Equal([scale], w.Scales);
        Assert.NotEqual(1f / 7f, scale);
        Assert.Equal([0x97, (byte)((int)Math.Round(0.2142f / scale, MidpointRounding.ToEven) << 4 | (int)Math.Round(0.5f / scale, MidpointRounding.ToEven))], w.Codes);
        Assert.Equal(new ScaleBlock(1, 128), w.Block);
    }

    [Theory]
    [CombinatorialDevices]
    public void ValuesThatAreNotFiniteAreRefusedOrSaturate(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        float[] values = [float.NaN, 7, float.PositiveInfinity, float.NegativeInfinity];
        foreach (WeightFormat format in Formats)
        {
            Assert.Contains("row 0, column 0 is NaN", Assert.Throws<ArgumentException>(() => Quantizer.Quantize(values, 1, 4, format)).Message, StringComparison.Ordinal);
            // The device cannot throw: NaN becomes 0.
            using var matrix = new QuantizedMatrix(device, format, 1, 4);
            using var input = GuardedBuffer<float>.Input(device, values);
            Quantizer.Quantize(device.DefaultStream, input.View, matrix);
            Assert.Equal(format switch { WeightFormat.Nvfp4 => [0x70, 0xF7], WeightFormat.Int4 => [0x70, 0x87], _ => new byte[] { 0xF0, 0x0F } }, matrix.Codes.ToArray(device.DefaultStream));
        }
        HostMatrix infinite = Quantizer.Quantize([float.PositiveInfinity], 1, 1, WeightFormat.Nvfp4);
        Assert.Equal((1f, (byte)0, (byte)0), (infinite.Scales[0], infinite.GroupScales[0], infinite.Codes[0]));
    }

    [Theory]
    [CombinatorialDevices]
    public void TheLastHalfOfAnOddRowIsIgnored(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        const int N = 3, K = 37;
        BFloat16[] x = RandomData.GaussianBf16(K, 5);
        foreach (WeightFormat format in Formats)
        {
            HostMatrix clean = Quantizer.Quantize(RandomData.Gaussian(N * K, 6), N, K, format);
            byte[] codes = [.. clean.Codes];
            for (int row = 1; row <= N; row++)
            {
                Assert.Equal(0, codes[(row * 19) - 1] >> 4);
                codes[(row * 19) - 1] |= 0xF0;
            }
            HostMatrix dirty = clean with { Codes = codes };
            Assert.Equal(Quantizer.Dequantize(clean), Quantizer.Dequantize(dirty));
            foreach (LinearPath path in Enum.GetValues<LinearPath>().Where(p => LinearTests.CanRun(device, p) && p != LinearPath.SkinnyGemm))
                Assert.Equal(LinearTests.Run(device, clean, x, 1, path, null), LinearTests.Run(device, dirty, x, 1, path, null));
        }
    }

    [Fact]
    public void UploadRefusesWhatDoesNotFitAndNamesTheTensor()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        HostMatrix good = Quantizer.Quantize(RandomData.Gaussian(4 * 40, 13), 4, 40, WeightFormat.Nvfp4);
        foreach ((byte bad, string what) in new[] { ((byte)0x7F, "NaN"), ((byte)0xFF, "NaN"), ((byte)0x81, "negative"), ((byte)0xFE, "negative") })
        {
            byte[] scales = [.. good.GroupScales];
            scales[7] = bad;
            AssertRefused(good with { GroupScales = scales }, $"up_proj: the scale of row 2, group 1 is {what}");
        }
        AssertRefused(good with { GroupScales = [] }, "0 group scales for [4, 40] in NVFP4, which needs 12");
        AssertRefused(good with { Scales = [] }, "0 matrix scales");
        AssertRefused(good with { Scales = [float.PositiveInfinity] }, "scale 0 is");
        AssertRefused(good with { Codes = [1] }, "needs 80");
        AssertRefused(Quantizer.Quantize(new float[40], 1, 40, WeightFormat.Int4) with { GroupScales = [1] }, "1 group scales");
        Assert.Throws<ArgumentException>(() => Quantizer.Dequantize(good with { GroupScales = [] }));

        using var matrix = new QuantizedMatrix(device, WeightFormat.Nvfp4, 4, 40);
        Assert.Equal(80 + 4 + 12, matrix.Bytes);
        HostMatrix part = Quantizer.Quantize(new float[2 * 40], 2, 40, WeightFormat.Nvfp4);
        Assert.Contains("written at once", Assert.Throws<ArgumentException>(() => matrix.Write(0, 0, part)).Message, StringComparison.Ordinal);
        Assert.Contains("group scales", Assert.Throws<ArgumentException>(() => matrix.Write(0, 0, 4, good.Codes, good.Scales)).Message, StringComparison.Ordinal);
        using var int4 = new QuantizedMatrix(device, WeightFormat.Int4, 4, 40);
        Assert.Contains("do not fit", Assert.Throws<ArgumentException>(() => int4.Write(0, 0, good)).Message, StringComparison.Ordinal);
        Assert.Contains("do not fit", Assert.Throws<ArgumentException>(() => int4.Write(0, 0, Quantizer.Quantize(new float[160], 4, 40, WeightFormat.Int4, new ScaleBlock(1, 32)))).Message, StringComparison.Ordinal);

        void AssertRefused(HostMatrix host, string message) =>
            Assert.Contains(message, Assert.Throws<ArgumentException>(() => QuantizedMatrix.Upload(device, host, "up_proj")).Message, StringComparison.Ordinal);
    }
}
