using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Two-term FP8: accuracy against unquantised weights, the residual's arithmetic, exact products, and the layout of both terms.</summary>
public sealed class TwoTermTests(ITestOutputHelper output)
{
    [Theory]
    [InlineData("Gaussian", 128)]
    [InlineData("Gaussian", 32)]
    [InlineData("heavy-tailed", 128)]
    [InlineData("heavy-tailed", 32)]
    public void ProductsDifferFromUnquantisedOnesByLessThanHalfAPercent(string distribution, int block)
    {
        const int M = 3, N = 160, K = 640;
        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        float[] weights = RandomData.Gaussian(N * K, 31, 0.05f), inputs = RandomData.Gaussian(M * K, 32);
        // A normal over the root of a chi-square: Student's t with three degrees of freedom, whose fourth moment is infinite.
        float[] chi = RandomData.Gaussian(3 * N * K, 33);
        if (distribution == "heavy-tailed")
            for (int i = 0; i < weights.Length; i++)
                weights[i] /= MathF.Sqrt(((chi[3 * i] * chi[3 * i]) + (chi[(3 * i) + 1] * chi[(3 * i) + 1]) + (chi[(3 * i) + 2] * chi[(3 * i) + 2])) / 3);
        BFloat16[] x = Array.ConvertAll(inputs, v => (BFloat16)v);
        double[] unquantised = Array.ConvertAll(weights, v => (double)v), float32 = new double[M * N];
        for (int m = 0; m < M; m++)
            for (int n = 0; n < N; n++)
                for (int k = 0; k < K; k++)
                    float32[(m * N) + n] += (double)inputs[(m * K) + k] * weights[(n * K) + k];
        HostMatrix w = Quantizer.Quantize(weights, N, K, WeightFormat.Fp8TwoTerm, new ScaleBlock(block, block));
        float[] y = LinearTests.Run(device, w, x, M, null, null);
        double whole = Compare.RelativeError(y, float32), ofWeights = Compare.RelativeError(y, MatrixOracle.Multiply(x, unquantised, M, N, K));
        output.WriteLine($"{distribution}, {block}×{block}: {whole:P3} with the rounding of x to BF16, {ofWeights:P3} of the weights alone");
        Assert.InRange(whole, 0, 0.005);
        Assert.InRange(ofWeights, 0, 0.002);
    }

    [Fact]
    public void TheResidualIsQuantisedAsTheWeightsAre()
    {
        const int N = 20, K = 70;
        var block = new ScaleBlock(16, 32);
        float[] values = RandomData.Gaussian(N * K, 41);
        HostMatrix fp8 = Quantizer.Quantize(values, N, K, WeightFormat.Fp8Block, block);
        float[] residuals = [.. values.Zip(MatrixOracle.Values(fp8), (x, stored) => x - (float)stored)];
        HostMatrix rest = Quantizer.Quantize(residuals, N, K, WeightFormat.Fp8Block, block);
        HostMatrix both = Quantizer.Quantize(values, N, K, WeightFormat.Fp8TwoTerm, block);
        Assert.Equal([.. fp8.Codes, .. rest.Codes], both.Codes);
        Assert.Equal([.. fp8.Scales, .. rest.Scales], both.Scales);
    }

    [Fact]
    public void ZeroInfinityAndNaNHaveTheirCodesInBothTerms()
    {
        float[] values = [.. new float[32], float.PositiveInfinity, float.NegativeInfinity, 448, .. new float[29], float.NaN, 2, .. new float[30]];
        HostMatrix w = Quantizer.Quantize(values, 3, 32, WeightFormat.Fp8TwoTerm, new ScaleBlock(1, 32));
        Assert.Equal([1f, 1f, 2f / 448f, 1f, 1f], w.Scales[..5]);
        Assert.All(w.Codes[..32], code => Assert.Equal(0, code));
        Assert.All(w.Codes[96..128], code => Assert.Equal(0, code));
        Assert.Equal([0x7E, 0xFE, 0x7E], w.Codes[32..35]);
        Assert.Equal([0x7E, 0xFE, 0x00], w.Codes[128..131]);
        Assert.Equal([0x7F, 0x7E], w.Codes[64..66]);
        Assert.Equal(0x7F, w.Codes[160]);
    }

    [Theory]
    [CombinatorialDevices]
    public void TermsOfIntegersAreExactOnEveryPath(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        // The last two stream: fewer chunks than warps and a ragged end, several chunks a warp.
        foreach ((ScaleBlock block, int n, int k) in new[] { (new ScaleBlock(2, 32), 7, 144), (new ScaleBlock(4, 64), 9, 77), (new ScaleBlock(32, 64), 70, 208), (new ScaleBlock(128, 128), 33, 2112) })
        {
            HostMatrix w = RandomMatrix(block, n, k);
            foreach (LinearPath path in Enum.GetValues<LinearPath>().Where(p => LinearTests.CanRun(device, p, w.Format)))
            {
                if (path == LinearPath.SkinnyGemm && !SkinnyKernels.Exist(w.Format, null, block))
                    continue;
                int m = path == LinearPath.Gemm ? 17 : path == LinearPath.SkinnyGemm ? 11 : 2;
                BFloat16[] x = RandomData.SmallIntegersBf16(m * k, 8);
                float[] expected = Array.ConvertAll(MatrixOracle.Multiply(x, MatrixOracle.Values(w), m, n, k), v => (float)v);
                foreach (Fp8Decoding decoding in LinearTests.Decodings(w.Format, path))
                    Assert.Equal(expected, LinearTests.Run(device, w, x, m, path, decoding));
            }
        }
    }

    [Theory]
    [CombinatorialDevices]
    public void PartsAreWrittenToTheirPlaces(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        var block = new ScaleBlock(2, 32);
        const int Half = 7 * 40;
        HostMatrix all = RandomMatrix(block, 7, 40), head = RandomMatrix(block, 4, 40);
        using var stack = new QuantizedMatrix(device, WeightFormat.Fp8TwoTerm, 7, 40, 2, block);
        Assert.Equal(2 * 2 * (Half + (4 * 4 * 2)), stack.Bytes);
        stack.Write(0, 0, all);
        stack.Write(1, 0, all);
        stack.Write(1, 0, 4, head.Codes, head.Scales);
        byte[] first = [.. head.Codes[..160], .. all.Codes[160..Half]], second = [.. head.Codes[160..], .. all.Codes[(Half + 160)..]];
        Assert.Equal([.. all.Codes, .. first, .. second], stack.Codes.ToArray(device.DefaultStream));
        Assert.Equal([.. all.Scales, .. head.Scales[..4], .. all.Scales[4..8], .. head.Scales[4..], .. all.Scales[12..]], stack.Scales.ToArray(device.DefaultStream));
    }

    [Fact]
    public void ContentsThatDoNotFitAreRefused()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        HostMatrix good = RandomMatrix(new ScaleBlock(2, 32), 4, 40);
        byte[] codes = [.. good.Codes];
        codes[160 + 85] = 0xFF;
        AssertRefused(good with { Codes = codes }, "up_proj: the weight at row 2, column 5 is NaN");
        AssertRefused(good with { Codes = codes[..160] }, "160 bytes of codes for [4, 40] in FP8 two-term, which needs 320");
        AssertRefused(good with { Scales = good.Scales[..4] }, "need 2 × [2, 2] = 8");
        AssertRefused(good with { Scales = [.. good.Scales[..7], float.NaN] }, "scale 7 is NaN");
        Assert.Throws<ArgumentException>(() => Quantizer.Dequantize(good with { Codes = codes[..160] }));
        Assert.Throws<ArgumentException>(() => Quantizer.Dequantize(good with { Scales = good.Scales[..4] }));

        void AssertRefused(HostMatrix host, string message) =>
            Assert.Contains(message, Assert.Throws<ArgumentException>(() => QuantizedMatrix.Upload(device, host, "up_proj")).Message, StringComparison.Ordinal);
    }

    // Integers up to 15 in both terms, other scales in each block and term, all powers of two: sums are exact.
    private static HostMatrix RandomMatrix(ScaleBlock block, int n, int k)
    {
        var random = new Random(n + k);
        byte[] integers = [.. Enumerable.Range(0, 256).Where(c => Math.Abs(MatrixOracle.E4M3[c]) <= 15 && double.IsInteger(MatrixOracle.E4M3[c])).Select(c => (byte)c)];
        byte[] codes = [.. Enumerable.Range(0, 2 * n * k).Select(_ => integers[random.Next(integers.Length)])];
        float[] scales = [.. Enumerable.Range(0, 2 * block.RowBlocks(n) * block.ColumnBlocks(k)).Select(_ => MathF.ScaleB(1, random.Next(-2, 3)))];
        return new HostMatrix(WeightFormat.Fp8TwoTerm, n, k, codes, scales, block);
    }
}
