using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Tiles with FP8 on both sides, codes multiplied as they are and decoded, against the double oracle, with guard bands and NaN around all tensors.</summary>
public sealed class CodeGemmTests
{
    // A tile of 128 rows takes eight warps.
    private static readonly Lazy<GpuDevice> EightWarps = new(() => TestDevices.Open(TestDevice.CpuWarp32, warps: 8));

    public static TheoryData<TestDevice, bool> Cases()
    {
        var data = new TheoryData<TestDevice, bool>();
        foreach (TestDevice device in TestDevices.Chosen.Where(d => d != TestDevice.Cpu))
            foreach (bool native in new[] { false, true })
                data.Add(device, native);
        return data;
    }

    // Tensor cores keep about 14 bits of the sum of 128 columns of codes; F16 products and the emulation lose no more than float32 does.
    private static double Tolerance(GpuDevice device, Fp8Decoding decoding) => device.IsCuda && decoding == Fp8Decoding.Native ? 5e-4 : 1e-5;

    // Ragged on every side, more turns than stages, partial blocks of scales; on the CPU one tile or two.
    [Theory]
    [MemberData(nameof(Cases))]
    public void EveryTileMatchesTheOracle(TestDevice which, bool native)
    {
        if (Device(which, native) is not { } device)
            return;
        Fp8Decoding decoding = Decoding(native);
        foreach (GemmTile tile in CodeKernels.Tiles)
        {
            GemmTileInfo info = CodeKernels.Info(tile);
            (int M, int N, int K)[] shapes = device.IsCuda
                ? [(info.M, info.N, 128), (info.M + 1, info.N - 1, 1040), (info.M - 1, info.N + 1, 16), (3, 2 * info.N, 2096), (2 * info.M + 7, 3 * info.N + 5, 656)]
                : tile switch { GemmTile.M32N64K128 => [(33, 63, 784), (31, 65, 16)], GemmTile.M64N128K128 => [(63, 129, 144)], _ => [(65, 97, 144)] };
            foreach ((int m, int n, int k) in shapes)
                Check(device, decoding, tile, (m, n, k), new ScaleBlock(32, 128));
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void EveryNumberOfRowsIsRight(TestDevice which, bool native)
    {
        if (Device(which, native) is not { } device)
            return;
        Fp8Decoding decoding = Decoding(native);
        int[] rows = device.IsCuda ? [.. Enumerable.Range(0, 81), 127, 128, 129, 255, 256, 257, 1000] : [0, 1, 7, 15, 16, 17, 31, 33, 64, 80];
        (int n, int k) = device.IsCuda ? (136, 272) : (5, 16);
        HostMatrix w = Weights(RandomData.Gaussian(n * k, 1, 0.1f), n, k, ScaleBlock.Square128);
        BFloat16[] x = RandomData.GaussianBf16(rows[^1] * k, 2);
        double[] expected = AccurateLinearTests.Multiply(Values(x, rows[^1], k), MatrixOracle.Values(w), rows[^1], n, k);
        foreach (GemmTile tile in device.IsCuda ? CodeKernels.Tiles : [GemmTile.M32N64K128])
            foreach (int m in rows)
                Compare.Close(Run(device, w, x[..(m * k)], m, decoding, tile), expected.AsSpan(0, m * n), Tolerance(device, decoding));
    }

    // −1, 0 and 1: the largest code or none, so that scales are the same everywhere and no bit of a sum is lost.
    [Theory]
    [MemberData(nameof(Cases))]
    public void SmallIntegersAreExactInEveryTile(TestDevice which, bool native)
    {
        if (Device(which, native) is not { } device)
            return;
        Fp8Decoding decoding = Decoding(native);
        const int M = 19, N = 40, K = 272;
        BFloat16[] x = Array.ConvertAll(RandomData.SmallIntegersBf16(M * K, 1), v => (BFloat16)(448f * MathF.Sign((float)v)));
        HostMatrix w = Weights(Array.ConvertAll(RandomData.SmallIntegersBf16(N * K, 2), v => 448f * MathF.Sign((float)v)), N, K, ScaleBlock.Square128);
        float[] expected = Array.ConvertAll(AccurateLinearTests.Multiply(Values(x, M, K), MatrixOracle.Values(w), M, N, K), v => (float)v);
        foreach (GemmTile tile in device.IsCuda ? CodeKernels.Tiles : [GemmTile.M32N64K128, GemmTile.M64N128K128])
            Assert.Equal(expected, Run(device, w, x, M, decoding, tile));
    }

    // Row k of x selects column k: y[k, n] must be W[n, k], a value that names its place.
    [Theory]
    [MemberData(nameof(Cases))]
    public void OneHotInputsReadEachWeightFromItsPlace(TestDevice which, bool native)
    {
        if (Device(which, native) is not { } device)
            return;
        Fp8Decoding decoding = Decoding(native);
        (int n, int k) = device.IsCuda ? (264, 272) : (72, 144);
        HostMatrix w = Weights(RandomData.Gaussian(n * k, 7), n, k, new ScaleBlock(32, 128));
        double[] weights = MatrixOracle.Values(w);
        // On the CPU some rows: the columns of each fragment, the last ones of a group and those of the next.
        int[] columns = device.IsCuda ? [.. Enumerable.Range(0, k)] : [0, 3, 4, 15, 16, 18, 31, 33, 63, 64, 77, 98, 121, 127, 128, 143];
        var hot = new BFloat16[columns.Length * k];
        for (int row = 0; row < columns.Length; row++)
            hot[(row * k) + columns[row]] = (BFloat16)448f;
        foreach (GemmTile tile in device.IsCuda ? CodeKernels.Tiles : [GemmTile.M32N64K128])
        {
            float[] y = Run(device, w, hot, columns.Length, decoding, tile);
            for (int row = 0; row < columns.Length; row++)
                for (int column = 0; column < n; column++)
                    Assert.Equal((float)(448 * weights[(column * k) + columns[row]]), y[(row * n) + column]);
        }
    }

    // Codes of every exponent, subnormals included, and NaN and infinities, which stay in their rows.
    [Theory]
    [MemberData(nameof(Cases))]
    public void NaNAndSmallCodesReachTheirRowsOnly(TestDevice which, bool native)
    {
        if (Device(which, native) is not { } device)
            return;
        Fp8Decoding decoding = Decoding(native);
        const int M = 18, N = 9, K = 144;
        BFloat16[] x = RandomData.GaussianBf16(M * K, 8);
        for (int i = 0; i < x.Length; i++)
            x[i] = (BFloat16)((float)x[i] * MathF.ScaleB(1, -(i % 16)));
        x[7] = BFloat16.FromBits(0x7F80);
        for (int i = 0; i < 4; i++)
            x[((2 + i) * K) + 40 + i] = BFloat16.FromBits((ushort)(i == 1 ? 0xFFC0 : 0x7FC0));
        x[(17 * K) + 143] = BFloat16.FromBits(0x7FC0);
        HostMatrix w = Weights([.. RandomData.Gaussian(N * K, 9).Select((v, i) => v * MathF.ScaleB(1, -(i % 15)))], N, K, ScaleBlock.Square128);
        float[] y = Run(device, w, x, M, decoding, GemmTile.M32N64K128);
        Compare.Close(y, AccurateLinearTests.Multiply(Values(x, M, K), MatrixOracle.Values(w), M, N, K), Tolerance(device, decoding));
        for (int row = 0; row < M; row++)
            Assert.Equal(row is (>= 2 and <= 5) or 17, float.IsNaN(y[row * N]));
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void ARowHasTheSameBitsInEveryTileAndBatch(TestDevice which, bool native)
    {
        if (Device(which, native) is not { } device)
            return;
        Fp8Decoding decoding = Decoding(native);
        const int M = 34, N = 16, K = 272;
        HostMatrix w = Weights(RandomData.Gaussian(N * K, 5), N, K, ScaleBlock.Square128);
        BFloat16[] x = RandomData.GaussianBf16(M * K, 6);
        float[] together = Run(device, w, x, M, decoding, GemmTile.M64N128K128);
        foreach (GemmTile tile in device.IsCuda ? CodeKernels.Tiles : [GemmTile.M32N64K128])
            Assert.Equal(together.AsSpan(30 * N).ToArray(), Run(device, w, x.AsSpan(30 * K).ToArray(), 4, decoding, tile));
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
            HostMatrix w = Weights(RandomData.Gaussian(n * k, 1, 0.1f), n, k, block);
            BFloat16[] x = RandomData.GaussianBf16(m * k, 2);
            Compare.Close(Run(device, w, x, m, null, null), AccurateLinearTests.Multiply(Values(x, m, k), MatrixOracle.Values(w), m, n, k), Tolerance(device, Fp8Decoding.Native));
        }
    }

    private static Fp8Decoding Decoding(bool native) => native ? Fp8Decoding.Native : Fp8Decoding.BitMove;

    private static GpuDevice? Device(TestDevice which, bool native)
    {
        if (which != TestDevice.Cuda)
            return EightWarps.Value;
        // Below 8.9 there is no such instruction. Hopper takes it apart: slow, but the same numbers.
        GpuDevice device = TestDevices.Get(which);
        return native && device.Target!.Value.Number < 89 ? null : device;
    }

    private static void Check(GpuDevice device, Fp8Decoding decoding, GemmTile tile, (int M, int N, int K) shape, ScaleBlock block)
    {
        (int m, int n, int k) = shape;
        HostMatrix w = Weights(RandomData.Gaussian(n * k, n + k, 0.1f), n, k, block);
        for (int i = 0; i < w.Scales.Length; i++)
            w.Scales[i] *= 1 + (i % 3);
        BFloat16[] x = RandomData.GaussianBf16(m * k, m + k);
        for (int i = 0; i < x.Length; i++)
            x[i] = (BFloat16)((float)x[i] * (1 + (i / k % 5)));
        float[] y = Run(device, w, x, m, decoding, tile);
        Compare.Close(y, AccurateLinearTests.Multiply(Values(x, m, k), MatrixOracle.Values(w), m, n, k), Tolerance(device, decoding));
        if (!device.IsCuda && k > 16)
            return;
        // BF16 output is the same sum, rounded once.
        using var output = GuardedBuffer<BFloat16>.Output(device, m * n);
        Launch(device, w, x, output.View.Cast<byte>(), false, m, decoding, tile);
        Assert.Equal(Array.ConvertAll(y, v => (BFloat16)v), output.ToArray());
    }

    private static HostMatrix Weights(float[] values, int n, int k, ScaleBlock block) => Quantizer.Quantize(values, n, k, WeightFormat.Fp8Block, block);

    private static double[] Values(BFloat16[] x, int m, int k) => StreamedActivationTests.Values(x, m, k, ActivationFormat.Fp8Group128);

    private static float[] Run(GpuDevice device, HostMatrix w, BFloat16[] x, int m, Fp8Decoding? decoding, GemmTile? tile)
    {
        using var output = GuardedBuffer<float>.Output(device, m * w.N);
        Launch(device, w, x, output.View.Cast<byte>(), true, m, decoding, tile);
        return output.ToArray();
    }

    // Codes come from the host: what is tested here is the product.
    private static void Launch(GpuDevice device, HostMatrix w, BFloat16[] x, ArrayView<byte> y, bool float32, int m, Fp8Decoding? decoding, GemmTile? tile)
    {
        GpuStream stream = device.DefaultStream;
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        using var quantised = new QuantizedActivations(device, ActivationFormat.Fp8Group128, Math.Max(m, 1), w.K);
        HostActivations codes = ActivationOracle.Quantize(x, m, w.K, ActivationFormat.Fp8Group128);
        if (m > 0)
        {
            quantised.Codes.CopyFrom(stream, codes.Codes);
            quantised.Scales.CopyFrom(stream, codes.Scales);
        }
        Linear.Launch(stream, weights, quantised, y, float32, (m, 0), Accumulator.Float32, decoding is null ? null : LinearPath.Gemm, decoding, tile);
    }
}
