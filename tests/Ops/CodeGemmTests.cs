using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Tiles with codes on both sides, multiplied as they are and, in FP8, decoded, against the double oracle, with guard bands and NaN around all tensors.</summary>
public sealed class CodeGemmTests
{
    // A tile of 128 rows takes eight warps.
    private static readonly Lazy<GpuDevice> EightWarps = new(() => TestDevices.Open(TestDevice.CpuWarp32, warps: 8));

    public static TheoryData<TestDevice, ActivationFormat, string> Cases()
    {
        var data = new TheoryData<TestDevice, ActivationFormat, string>();
        foreach (TestDevice device in TestDevices.Chosen.Where(d => d != TestDevice.Cpu))
            foreach (ActivationFormat format in new[] { ActivationFormat.Fp8Group128, ActivationFormat.Nvfp4 })
                foreach (Fp8Decoding decoding in CodeKernels.Decodings(OperatorCases.WeightsOf(format)))
                    data.Add(device, format, decoding.ToString());
        return data;
    }

    // Tensor cores keep about 14 bits of the sum of 128 columns of codes; F16 products and the emulation lose no more than float32 does.
    private static double Tolerance(GpuDevice device, Fp8Decoding decoding) => device.IsCuda && decoding != Fp8Decoding.BitMove ? 5e-4 : 1e-5;

    // Ragged on every side, more turns than stages, partial blocks of scales. On the CPU one tile or two.
    [Theory]
    [MemberData(nameof(Cases))]
    public void EveryTileMatchesTheOracle(TestDevice which, ActivationFormat format, string way)
    {
        Fp8Decoding decoding = Enum.Parse<Fp8Decoding>(way);
        if (Device(which, format, decoding) is not { } device)
            return;
        foreach (GemmTile tile in Tiles(device, format, decoding))
        {
            GemmTileInfo info = CodeKernels.Info(tile);
            (int M, int N, int Words)[] shapes = device.IsCuda
                ? [(info.M, info.N, 8), (info.M + 1, info.N - 1, 65), (info.M - 1, info.N + 1, 1), (3, 2 * info.N, 131), (2 * info.M + 7, 3 * info.N + 5, 41)]
                : info.M switch { 32 => [(31, 63, format == ActivationFormat.Nvfp4 ? 25 : 49), (33, 65, 1)], 64 => [(63, 127, 5)], _ => [(65, 97, 3)] };
            foreach ((int m, int n, int words) in shapes)
                Check(device, format, decoding, tile, (m, n, words * LeastColumns(format)));
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void EveryNumberOfRowsIsRight(TestDevice which, ActivationFormat format, string way)
    {
        Fp8Decoding decoding = Enum.Parse<Fp8Decoding>(way);
        if (Device(which, format, decoding) is not { } device)
            return;
        int[] rows = device.IsCuda ? [.. Enumerable.Range(0, 81), 127, 128, 129, 255, 256, 257, 1000] : decoding == Fp8Decoding.Native && format == ActivationFormat.Fp8Group128 ? [0, 1, 7, 15, 16, 17, 31, 33, 64, 80] : [0, 1, 17, 33];
        (int n, int k) = device.IsCuda ? (136, 17 * LeastColumns(format)) : (5, LeastColumns(format));
        HostMatrix w = Weights(format, RandomData.Gaussian(n * k, 1, 0.1f), n, k, ScaleBlock.Square128);
        BFloat16[] x = RandomData.GaussianBf16(rows[^1] * k, 2);
        double[] expected = AccurateLinearTests.Multiply(Values(x, rows[^1], k, format), MatrixOracle.Values(w), rows[^1], n, k);
        foreach (GemmTile tile in Tiles(device, format, decoding).Take(device.IsCuda ? int.MaxValue : 1))
            foreach (int m in rows)
                Compare.Close(Run(device, w, x[..(m * k)], m, format, decoding, tile), expected.AsSpan(0, m * n), Tolerance(device, decoding));
    }

    // In FP8 −1, 0 and 1: the largest code or none, so that scales are the same everywhere and no bit of a sum is lost.
    [Theory]
    [MemberData(nameof(Cases))]
    public void SmallIntegersAreExactInEveryTile(TestDevice which, ActivationFormat format, string way)
    {
        Fp8Decoding decoding = Enum.Parse<Fp8Decoding>(way);
        if (Device(which, format, decoding) is not { } device)
            return;
        const int M = 19, N = 40, K = 320;
        float[] Integers(int rows, int seed) => format == ActivationFormat.Nvfp4
            ? AccurateLinearTests.Integers(WeightFormat.Nvfp4, rows, K, seed)
            : Array.ConvertAll(RandomData.SmallIntegersBf16(rows * K, seed), v => 448f * MathF.Sign((float)v));
        BFloat16[] x = Array.ConvertAll(Integers(M, 1), v => (BFloat16)v);
        HostMatrix w = Weights(format, Integers(N, 2), N, K, ScaleBlock.Square128);
        float[] expected = Array.ConvertAll(AccurateLinearTests.Multiply(Values(x, M, K, format), MatrixOracle.Values(w), M, N, K), v => (float)v);
        foreach (GemmTile tile in Tiles(device, format, decoding))
            Assert.Equal(expected, Run(device, w, x, M, format, decoding, tile));
    }

    // Row k of x selects column k: y[k, n] must be W[n, k], a value that names its place.
    [Theory]
    [MemberData(nameof(Cases))]
    public void OneHotInputsReadEachWeightFromItsPlace(TestDevice which, ActivationFormat format, string way)
    {
        Fp8Decoding decoding = Enum.Parse<Fp8Decoding>(way);
        if (Device(which, format, decoding) is not { } device)
            return;
        // The largest number makes scales of 1 and 448: products of it are rounded once.
        float one = format == ActivationFormat.Nvfp4 ? 6 * 448 : 448;
        (int n, int k) = device.IsCuda ? (264, 320) : format == ActivationFormat.Nvfp4 ? (72, 320) : (72, 144);
        HostMatrix w = Weights(format, RandomData.Gaussian(n * k, 7), n, k, new ScaleBlock(32, 128));
        double[] weights = MatrixOracle.Values(w);
        // On the CPU some rows: the columns of each fragment, the last ones of a group and those of the next.
        int[] columns = device.IsCuda ? [.. Enumerable.Range(0, k)] : [0, 3, 4, 15, 16, 18, 31, 33, 63, 64, 77, 98, 121, 127, 128, k - 1];
        var hot = new BFloat16[columns.Length * k];
        for (int row = 0; row < columns.Length; row++)
            hot[(row * k) + columns[row]] = (BFloat16)one;
        foreach (GemmTile tile in Tiles(device, format, decoding).Take(device.IsCuda ? int.MaxValue : 1))
        {
            float[] y = Run(device, w, hot, columns.Length, format, decoding, tile);
            for (int row = 0; row < columns.Length; row++)
                for (int column = 0; column < n; column++)
                    Assert.Equal((float)(one * weights[(column * k) + columns[row]]), y[(row * n) + column]);
        }
    }

    // Codes of every exponent, subnormals included, and NaN and infinities, which stay in their rows. NVFP4 has neither.
    [Theory]
    [MemberData(nameof(Cases))]
    public void NaNAndSmallCodesReachTheirRowsOnly(TestDevice which, ActivationFormat format, string way)
    {
        Fp8Decoding decoding = Enum.Parse<Fp8Decoding>(way);
        if (Device(which, format, decoding) is not { } device)
            return;
        if (format == ActivationFormat.Nvfp4)
            return;
        const int M = 18, N = 9, K = 144;
        BFloat16[] x = RandomData.GaussianBf16(M * K, 8);
        for (int i = 0; i < x.Length; i++)
            x[i] = (BFloat16)((float)x[i] * MathF.ScaleB(1, -(i % 16)));
        x[7] = BFloat16.FromBits(0x7F80);
        for (int i = 0; i < 4; i++)
            x[((2 + i) * K) + 40 + i] = BFloat16.FromBits((ushort)(i == 1 ? 0xFFC0 : 0x7FC0));
        x[(17 * K) + 143] = BFloat16.FromBits(0x7FC0);
        HostMatrix w = Weights(format, [.. RandomData.Gaussian(N * K, 9).Select((v, i) => v * MathF.ScaleB(1, -(i % 15)))], N, K, ScaleBlock.Square128);
        float[] y = Run(device, w, x, M, format, decoding, GemmTile.M32N64K128);
        Compare.Close(y, AccurateLinearTests.Multiply(Values(x, M, K, format), MatrixOracle.Values(w), M, N, K), Tolerance(device, decoding));
        for (int row = 0; row < M; row++)
            Assert.Equal(row is (>= 2 and <= 5) or 17, float.IsNaN(y[row * N]));
        // A weight that was NaN when the device quantised it: nobody looks at such codes before they are multiplied.
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        byte[] codes = weights.Codes.ToArray(device.DefaultStream);
        codes[(3 * K) + 130] = 0xFF;
        weights.Codes.CopyFrom(device.DefaultStream, codes);
        float[] poisoned = Run(device, weights, x, M, format, decoding, GemmTile.M32N64K128);
        for (int i = 0; i < y.Length; i++)
            Assert.Equal(i % N == 3 ? float.NaN : y[i], poisoned[i]);
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void ARowHasTheSameBitsInEveryTileAndBatch(TestDevice which, ActivationFormat format, string way)
    {
        Fp8Decoding decoding = Enum.Parse<Fp8Decoding>(way);
        if (Device(which, format, decoding) is not { } device)
            return;
        const int M = 34, N = 16, K = 320;
        HostMatrix w = Weights(format, RandomData.Gaussian(N * K, 5), N, K, ScaleBlock.Square128);
        BFloat16[] x = RandomData.GaussianBf16(M * K, 6);
        float[] together = Run(device, w, x, M, format, decoding, Tiles(device, format, decoding).Last());
        foreach (GemmTile tile in Tiles(device, format, decoding).Take(device.IsCuda ? int.MaxValue : 1))
            Assert.Equal(together.AsSpan(30 * N).ToArray(), Run(device, w, x.AsSpan(30 * K).ToArray(), 4, format, decoding, tile));
    }

    // What Linear chooses on a card by itself, beside the paths around it: rows that stream, rows of odd length, narrow blocks.
    [Fact]
    public void OnACardTheChosenPathIsRight()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cuda);
        foreach ((int m, int n, int k, ScaleBlock block) in new[]
        {
            (16, 136, 272, ScaleBlock.Square128), (17, 135, 272, ScaleBlock.Square128), (200, 135, 272, ScaleBlock.Square128), (200, 136, 272, new ScaleBlock(32, 128)),
            (40, 135, 271, ScaleBlock.Square128), (40, 135, 272, new ScaleBlock(32, 64)),
        })
        {
            const ActivationFormat Format = ActivationFormat.Fp8Group128;
            HostMatrix w = Weights(Format, RandomData.Gaussian(n * k, 1, 0.1f), n, k, block);
            BFloat16[] x = RandomData.GaussianBf16(m * k, 2);
            Compare.Close(Run(device, w, x, m, Format, null, null), AccurateLinearTests.Multiply(Values(x, m, k, Format), MatrixOracle.Values(w), m, n, k), Tolerance(device, Fp8Decoding.Native));
        }
    }

    // On the CPU, which takes seconds to compile a large one, the lowest, and of codes as they are the highest, which makes the most of its warps.
    private static IEnumerable<GemmTile> Tiles(GpuDevice device, ActivationFormat format, Fp8Decoding decoding)
    {
        GemmTile[] all = [.. CodeKernels.Tiles(OperatorCases.WeightsOf(format))];
        return device.IsCuda ? all : decoding != Fp8Decoding.BitMove ? [all[0], all[^1]] : [all[0]];
    }

    // FP8 in words of 16 bytes, NVFP4 in words of four group scales.
    private static int LeastColumns(ActivationFormat format) => format == ActivationFormat.Nvfp4 ? 64 : 16;

    private static GpuDevice? Device(TestDevice which, ActivationFormat format, Fp8Decoding decoding)
    {
        if (which != TestDevice.Cuda)
            return EightWarps.Value;
        // Below 8.9 there is no such instruction of FP8. Hopper takes it apart: slow, but the same numbers. Those with multipliers are one architecture's.
        GpuDevice device = TestDevices.Get(which);
        return CodeKernels.Get(decoding, CodeKernels.Tiles(OperatorCases.WeightsOf(format)).First()).Traits.RunsOn(device.Target!.Value) ? device : null;
    }

    private static void Check(GpuDevice device, ActivationFormat format, Fp8Decoding decoding, GemmTile tile, (int M, int N, int K) shape)
    {
        (int m, int n, int k) = shape;
        HostMatrix w = Weights(format, RandomData.Gaussian(n * k, n + k, 0.1f), n, k, new ScaleBlock(32, 128));
        for (int i = 0; i < w.Scales.Length; i++)
            w.Scales[i] *= 1 + (i % 3);
        BFloat16[] x = RandomData.GaussianBf16(m * k, m + k);
        for (int i = 0; i < x.Length; i++)
            x[i] = (BFloat16)((float)x[i] * (1 + (i / k % 5)));
        float[] y = Run(device, w, x, m, format, decoding, tile);
        Compare.Close(y, AccurateLinearTests.Multiply(Values(x, m, k, format), MatrixOracle.Values(w), m, n, k), Tolerance(device, decoding));
        if (!device.IsCuda && k > LeastColumns(format))
            return;
        // BF16 output is the same sum, rounded once.
        using var output = GuardedBuffer<BFloat16>.Output(device, m * n);
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        Launch(device, weights, x, (output.View.Cast<byte>(), false), m, format, decoding, tile);
        Assert.Equal(Array.ConvertAll(y, v => (BFloat16)v), output.ToArray());
    }

    private static HostMatrix Weights(ActivationFormat format, float[] values, int n, int k, ScaleBlock block) =>
        Quantizer.Quantize(values, n, k, OperatorCases.WeightsOf(format), block);

    private static double[] Values(BFloat16[] x, int m, int k, ActivationFormat format) => StreamedActivationTests.Values(x, m, k, format);

    private static float[] Run(GpuDevice device, HostMatrix w, BFloat16[] x, int m, ActivationFormat format, Fp8Decoding? decoding, GemmTile? tile)
    {
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        return Run(device, weights, x, m, format, decoding, tile);
    }

    private static float[] Run(GpuDevice device, QuantizedMatrix w, BFloat16[] x, int m, ActivationFormat format, Fp8Decoding? decoding, GemmTile? tile)
    {
        using var output = GuardedBuffer<float>.Output(device, m * w.N);
        Launch(device, w, x, (output.View.Cast<byte>(), true), m, format, decoding, tile);
        return output.ToArray();
    }

    // Codes come from the host: what is tested here is the product.
    private static void Launch(GpuDevice device, QuantizedMatrix w, BFloat16[] x, (ArrayView<byte> View, bool Float32) y, int m, ActivationFormat format, Fp8Decoding? decoding, GemmTile? tile)
    {
        GpuStream stream = device.DefaultStream;
        using var quantised = new QuantizedActivations(device, format, Math.Max(m, 1), w.K);
        HostActivations codes = ActivationOracle.Quantize(x, m, w.K, format);
        if (m > 0)
        {
            quantised.Codes.CopyFrom(stream, codes.Codes);
            quantised.Scales.CopyFrom(stream, codes.Scales);
            if (format == ActivationFormat.Nvfp4)
                quantised.GroupScales.CopyFrom(stream, codes.GroupScales);
        }
        Linear.Launch(stream, w, quantised, y.View, y.Float32, (m, 0), Accumulator.Float32, decoding is null ? null : LinearPath.Gemm, decoding, tile);
    }
}
