using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>INT4 with zero points: the quantiser's arithmetic, exact products, and where rows and zero points lie.</summary>
public sealed class ZeroPointTests
{
    [Fact]
    public void GroupsHaveTheRangeThatTheirValuesAndZeroNeed()
    {
        float[] values = new float[5 * 32];
        // From −3 to 12; from 0 to 30 though nothing is below 10; from −7.5 to 0; zeros; infinities beside 1.5.
        (values[0], values[1], values[2], values[3]) = (-3, 12, 0.5f, 1.5f);
        Array.Fill(values, 10f, 32, 32);
        (values[32], values[33]) = (30, 11);
        (values[64], values[65]) = (-7.5f, -1);
        (values[128], values[129], values[130]) = (float.PositiveInfinity, float.NegativeInfinity, 1.5f);
        HostMatrix w = Quantizer.Quantize(values, 1, 160, WeightFormat.Int4Zero, new ScaleBlock(1, 32));
        Assert.Equal([1f, 2f, 0.5f, 1f, (float)(BFloat16)0.1f], w.Scales);
        Assert.Equal([0x03, 0x0F, 0x00], w.ZeroPoints);
        // Ties to even before the zero point is added: 0.5 is 0 + 3, 1.5 is 2 + 3; 5.5 is 6.
        Assert.Equal([0xF0, 0x53], w.Codes[..2]);
        Assert.Equal([0x6F, 0x55], w.Codes[16..18]);
        Assert.Equal([0xD0, 0xFF], w.Codes[32..34]);
        Assert.All(w.Codes[48..64], code => Assert.Equal(0, code));
        Assert.Equal([0x0F, 0x0F], w.Codes[64..66]);
        Assert.Equal(new ScaleBlock(1, 128), Quantizer.Quantize([1], 1, 1, WeightFormat.Int4Zero).Block);
    }

    [Fact]
    public void RangesAtTheEndsOfFloat32StayFinite()
    {
        // A range beyond float32, and one whose scale is no BF16 number but 0.
        float[] values = [-2e38f, 2e38f, 0, 1, -1e-45f, 1e-45f, 0, 0];
        HostMatrix wide = Quantizer.Quantize(values.AsSpan(0, 4), 1, 4, WeightFormat.Int4Zero), narrow = Quantizer.Quantize(values.AsSpan(4), 1, 4, WeightFormat.Int4Zero);
        Assert.True(float.IsFinite(wide.Scales[0]));
        Assert.All(Quantizer.Dequantize(wide), v => Assert.True(float.IsFinite(v)));
        Assert.Equal([1f], narrow.Scales);
        Assert.Equal(new float[4], Quantizer.Dequantize(narrow));
    }

    [Theory]
    [InlineData(0f)]
    [InlineData(2.5f)]
    [InlineData(-6f)]
    public void NoValueIsFurtherFromItsOwnThanAStep(float mean)
    {
        float[] values = Array.ConvertAll(RandomData.Gaussian(16 * 96, 3), v => v + mean);
        HostMatrix w = Quantizer.Quantize(values, 16, 96, WeightFormat.Int4Zero, new ScaleBlock(1, 32));
        double[] stored = MatrixOracle.Values(w);
        for (int i = 0; i < values.Length; i++)
            Assert.InRange(Math.Abs(values[i] - stored[i]), 0, 1.05 * w.Scales[i / 32]);
    }

    [Theory]
    [CombinatorialDevices]
    public void EveryCodeAndZeroPointIsExactOnEveryPath(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        foreach ((ScaleBlock block, int n, int k) in new[] { (new ScaleBlock(1, 32), 9, 288), (new ScaleBlock(4, 64), 10, 160), (new ScaleBlock(1, 128), 3, 135), (new ScaleBlock(2, 128), 35, 416) })
        {
            HostMatrix w = RandomMatrix(block, n, k);
            foreach (LinearPath path in Enum.GetValues<LinearPath>().Where(p => LinearTests.CanRun(device, p) && (p != LinearPath.SkinnyGemm || (k % 32 == 0 && SkinnyKernels.Exist(w.Format, null, block)))))
            {
                int m = path == LinearPath.Gemm ? 17 : 2;
                BFloat16[] x = RandomData.SmallIntegersBf16(m * k, 8);
                float[] expected = Array.ConvertAll(MatrixOracle.Multiply(x, MatrixOracle.Values(w), m, n, k), v => (float)v);
                Assert.Equal(expected, LinearTests.Run(device, w, x, m, path, null));
                Assert.Equal(expected, LinearTests.Run(device, w, x, m, path, null));
            }
        }
    }

    [Theory]
    [CombinatorialDevices]
    public void PartsAreWrittenToTheirPlaces(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        var block = new ScaleBlock(2, 32);
        HostMatrix all = RandomMatrix(block, 7, 70), head = RandomMatrix(block, 4, 70);
        using var stack = new QuantizedMatrix(device, WeightFormat.Int4Zero, 7, 70, 2, block);
        // 7 × 35 bytes of codes, 4 × 3 scales and 4 × 2 bytes of zero points a matrix.
        Assert.Equal(2 * ((7 * 35) + (4 * 4 * 3) + (4 * 2)), stack.Bytes);
        stack.Write(0, 0, all);
        stack.Write(1, 0, all);
        stack.Write(1, 0, head);
        Assert.Equal([.. all.Codes, .. head.Codes, .. all.Codes[(4 * 35)..]], stack.Codes.ToArray(device.DefaultStream));
        Assert.Equal([.. all.Scales, .. head.Scales, .. all.Scales[6..]], stack.Scales.ToArray(device.DefaultStream));
        Assert.Equal([.. all.ZeroPoints, .. head.ZeroPoints, .. all.ZeroPoints[4..]], stack.ZeroPoints.ToArray(device.DefaultStream));
    }

    [Fact]
    public void ZeroPointsThatDoNotFitAreRefusedAndNothingIsWritten()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        HostMatrix good = RandomMatrix(new ScaleBlock(1, 32), 3, 96);
        AssertRefused(good with { ZeroPoints = [] }, "up_proj: 0 bytes of zero points for [3, 96] in INT4 zero with 1×32 blocks, which needs 6");
        AssertRefused(good with { ZeroPoints = new byte[7] }, "7 bytes of zero points");
        AssertRefused(Quantizer.Quantize(new float[40], 1, 40, WeightFormat.Int4) with { ZeroPoints = [1] }, "1 bytes of zero points for [1, 40] in INT4");
        Assert.Contains("needs 6", Assert.Throws<ArgumentException>(() => Quantizer.Dequantize(good with { ZeroPoints = [1] })).Message, StringComparison.Ordinal);
        using QuantizedMatrix matrix = QuantizedMatrix.Upload(device, good);
        Assert.Contains("zero points", Assert.Throws<ArgumentException>(() => matrix.Write(0, 0, 3, new byte[3 * 48], good.Scales)).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => matrix.Write(0, 1, good));
        Assert.Throws<ArgumentException>(() => matrix.Write(0, 0, RandomMatrix(new ScaleBlock(1, 64), 3, 96)));
        Assert.Equal(good.Codes, matrix.Codes.ToArray(device.DefaultStream));
        Assert.Equal(good.ZeroPoints, matrix.ZeroPoints.ToArray(device.DefaultStream));

        void AssertRefused(HostMatrix host, string message) =>
            Assert.Contains(message, Assert.Throws<ArgumentException>(() => QuantizedMatrix.Upload(device, host, "up_proj")).Message, StringComparison.Ordinal);
    }

    // Any codes and zero points, scales that are powers of two: values and sums of small integers are exact.
    private static HostMatrix RandomMatrix(ScaleBlock block, int n, int k)
    {
        var random = new Random(n + k);
        byte[] codes = new byte[n * ((k + 1) / 2)], zeros = new byte[block.ZeroPointBytes(n, k)];
        random.NextBytes(codes);
        random.NextBytes(zeros);
        float[] scales = [.. Enumerable.Range(0, block.RowBlocks(n) * block.ColumnBlocks(k)).Select(_ => MathF.ScaleB(1, random.Next(-2, 3)))];
        return new HostMatrix(WeightFormat.Int4Zero, n, k, codes, scales, block) { ZeroPoints = zeros };
    }
}
