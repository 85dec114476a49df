using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Every path × format × decoder against the double oracle, with guard bands and NaN around all tensors.</summary>
public sealed class LinearTests
{
    // Float32 outputs of the same operands differ from the exact sum by rounding alone.
    private const double Float32Tolerance = 1e-5;

    private static readonly (int M, int N, int K)[] SmallShapes =
    [
        (1, 1, 1), (1, 7, 5), (1, 31, 64), (2, 32, 128), (1, 33, 130), (3, 5, 257), (8, 3, 48), (5, 127, 16),
    ];

    private static readonly (int M, int N, int K)[] UnalignedShapes =
    [
        (16, 64, 32), (17, 9, 33), (1, 65, 48), (65, 63, 31), (64, 66, 160), (63, 1, 8),
    ];

    // K in whole 16-byte words. GemmTests has the tiles.
    private static readonly (int M, int N, int K)[] PipelineShapes = [(17, 9, 32), (33, 66, 160)];

    // K in whole 16-byte words: full chunks for some warps, partial ones, fewer chunks than warps; multipliers of four bits in whole 32-bit words, more than a warp copies at once.
    private static readonly (int M, int N, int K)[] SkinnyShapes =
    [
        (9, 70, 1056),
        (1, 1, 16), (1, 17, 48), (2, 16, 128), (7, 33, 144), (8, 15, 400), (9, 31, 1040), (16, 48, 656), (16, 1, 2064),
    ];

    private static (int M, int N, int K)[] SkinnyShapesOf(WeightFormat format) =>
        format.Info().BitsPerCode == 4 ? Array.ConvertAll(SkinnyShapes, s => (s.M, s.N, 2 * s.K)) : SkinnyShapes;

    public static TheoryData<TestDevice, WeightFormat, int> Cases()
    {
        var data = new TheoryData<TestDevice, WeightFormat, int>();
        foreach (TestDevice device in TestDevices.Chosen)
            foreach (WeightFormat format in WeightFormats.All)
                foreach (LinearPath path in Enum.GetValues<LinearPath>())
                    data.Add(device, format, (int)path);
        return data;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void EveryPathMatchesTheOracle(TestDevice which, WeightFormat format, int path)
    {
        GpuDevice device = TestDevices.Get(which);
        if (!CanRun(device, (LinearPath)path, format))
            return;
        foreach ((int m, int n, int k) in (LinearPath)path switch { LinearPath.Gemm => PipelineShapes, LinearPath.GemmUnaligned => UnalignedShapes, LinearPath.SkinnyGemm => SkinnyShapesOf(format), _ => SmallShapes })
            foreach (Fp8Decoding decoding in Decodings(format, (LinearPath)path))
                Check(device, format, (LinearPath)path, decoding, (LinearPath)path == LinearPath.SkinnyGemm ? new ScaleBlock(32, 128) : new ScaleBlock(32, 64), (m, n, k));
    }

    [Theory]
    [CombinatorialDevices]
    public void BlocksOfEveryShapeAndEdgeAreScaledRight(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        foreach (ScaleBlock block in new[] { new ScaleBlock(1, 32), new ScaleBlock(1, 128), new ScaleBlock(128, 128), new ScaleBlock(64, 256), new ScaleBlock(2, 32), new ScaleBlock(32, 64) })
            foreach (WeightFormat format in new[] { WeightFormat.Fp8Block, WeightFormat.Int4, WeightFormat.Int4Zero, WeightFormat.Fp8TwoTerm })
                foreach (LinearPath path in Enum.GetValues<LinearPath>().Where(p => CanRun(device, p, format) && (p != LinearPath.SkinnyGemm || SkinnyKernels.Exist(format, null, block))))
                {
                    (int m, int n, int k) = format is WeightFormat.Fp8Block or WeightFormat.Int4 ? (2, 130, 288) : (1, 66, 160);
                    // Emulated warps take their time: a whole block and a part of one on each side.
                    if (!device.IsCuda)
                        (n, k) = (Math.Min(n, Math.Max(34, block.Rows + 2)), Math.Min(k, block.Columns + 32));
                    Check(device, format, path, Fp8Decoding.BitMove, block, (m, n, k));
                }
    }

    [Theory]
    [CombinatorialDevices]
    public void SmallIntegersAreExact(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        const int M = 17, N = 40, K = 96;
        foreach (WeightFormat format in WeightFormats.All)
        {
            BFloat16[] x = RandomData.SmallIntegersBf16(M * K, 1);
            HostMatrix w = IntegerWeights(format, N, K);
            float[] expected = Array.ConvertAll(MatrixOracle.Multiply(x, MatrixOracle.Values(w), M, N, K), v => (float)v);
            foreach (LinearPath path in Enum.GetValues<LinearPath>().Where(p => CanRun(device, p, format)))
            {
                int m = path == LinearPath.SkinnyGemm ? 16 : M;
                foreach (Fp8Decoding decoding in Decodings(format, path))
                    Assert.Equal(expected[..(m * N)], Run(device, w, x[..(m * K)], m, path, decoding));
            }
        }
    }

    [Theory]
    [CombinatorialDevices]
    public void OneHotInputsReadEachWeightFromItsPlace(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        const int N = 72, K = 96;
        // Row k of x selects column k: y[k, n] must be W[n, k], a value that names its place.
        var x = new BFloat16[K * K];
        for (int k = 0; k < K; k++)
            x[(k * K) + k] = (BFloat16)1f;
        foreach (WeightFormat format in WeightFormats.All)
        {
            HostMatrix w = Quantizer.Quantize(RandomData.Gaussian(N * K, 7), N, K, format, new ScaleBlock(32, 128));
            double[] values = MatrixOracle.Values(w);
            foreach (LinearPath path in Enum.GetValues<LinearPath>().Where(p => CanRun(device, p, format)))
            {
                // The skinny kernel takes 16 rows at a time.
                int rows = path == LinearPath.SkinnyGemm ? 16 : K;
                for (int first = 0; first < K; first += rows)
                {
                    float[] y = Run(device, w, x[(first * K)..((first + rows) * K)], rows, path, Fp8Decoding.BitMove);
                    for (int k = 0; k < rows; k++)
                        for (int n = 0; n < N; n++)
                            Assert.Equal((float)values[(n * K) + first + k], y[(k * N) + n]);
                }
            }
        }
    }

    [Theory]
    [CombinatorialDevices]
    public void UnalignedViewsGiveTheSameSums(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        const int M = 2, N = 9, K = 64;
        BFloat16[] x = RandomData.GaussianBf16(M * K, 4);
        using var input = GuardedBuffer<BFloat16>.Input(device, x, misalignment: 2);
        using var output = GuardedBuffer<float>.Output(device, M * N);
        foreach (WeightFormat format in WeightFormats.All)
        {
            HostMatrix w = Quantizer.Quantize(RandomData.Gaussian(N * K, 3), N, K, format);
            using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
            foreach (LinearPath path in Enum.GetValues<LinearPath>().Where(p => CanRun(device, p) && p != LinearPath.SkinnyGemm))
            {
                Linear.Launch(device.DefaultStream, weights, input.View, output.View.Cast<byte>(), true, (M, 0), path);
                Compare.Close(output.ToArray(), MatrixOracle.Multiply(x, MatrixOracle.Values(w), M, N, K), Float32Tolerance);
            }
        }
    }

    [Theory]
    [CombinatorialDevices]
    public void ARowHasTheSameBitsAloneAndAmongOthers(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        const int M = 16, N = 20, K = 1296;
        HostMatrix w = Quantizer.Quantize(RandomData.Gaussian(N * K, 5), N, K, WeightFormat.Fp8Block);
        BFloat16[] x = RandomData.GaussianBf16(M * K, 6);
        float[] together = Run(device, w, x, M, null, null);
        foreach ((int row, int count) in new[] { (0, 1), (7, 1), (15, 1), (3, 8), (2, 9) })
            Assert.Equal(together.AsSpan(row * N, count * N).ToArray(), Run(device, w, x.AsSpan(row * K, count * K).ToArray(), count, null, null));
        Assert.Equal(together, Run(device, w, x, M, null, null));
    }

    [Theory]
    [CombinatorialDevices]
    public void RowsOfTheOutputMayBeApart(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        const int M = 3, N = 5, K = 32, Stride = 9;
        HostMatrix w = Quantizer.Quantize(RandomData.Gaussian(N * K, 8), N, K, WeightFormat.Bf16);
        BFloat16[] x = RandomData.GaussianBf16(M * K, 9);
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        using var input = GuardedBuffer<BFloat16>.Input(device, x);
        using var output = GuardedBuffer<BFloat16>.Output(device, ((M - 1) * Stride) + N);
        Linear.Multiply(device.DefaultStream, weights, input.View, output.View, M, Stride);
        BFloat16[] y = output.ToArray();
        double[] expected = MatrixOracle.Multiply(x, MatrixOracle.Values(w), M, N, K);
        for (int i = 0; i < y.Length; i++)
        {
            if (i % Stride < N)
                Assert.InRange((float)y[i] - expected[((i / Stride) * N) + (i % Stride)], -0.1, 0.1);
            else
                Assert.Equal(0xFFFF, y[i].Bits);
        }
    }

    [Fact]
    public void WrongCallsAreRefusedBeforeAnythingRuns()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        using var weights = new QuantizedMatrix(device, WeightFormat.Fp8Block, 8, 16);
        using var stack = new QuantizedMatrix(device, WeightFormat.Fp8Block, 8, 16, count: 2);
        using DeviceBuffer<BFloat16> x = device.Allocate<BFloat16>(16), y = device.Allocate<BFloat16>(8), two = device.Allocate<BFloat16>(16);
        GpuStream stream = device.DefaultStream;
        Linear.Multiply(stream, weights, x, y, 0);
        Assert.Contains("[2, 16] needs 32", Assert.Throws<ArgumentException>(() => Linear.Multiply(stream, weights, x, two, 2)).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => Linear.Multiply(stream, weights, x, y, 2));
        Assert.Throws<ArgumentException>(() => Linear.Multiply(stream, weights, x, y, 1, yStride: 4));
        Assert.Contains("stack", Assert.Throws<ArgumentException>(() => Linear.Multiply(stream, stack, x, y, 1)).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentOutOfRangeException>(() => Linear.Multiply(stream, weights, x, y, -1));
        using GpuDevice other = TestDevices.Open(TestDevice.Cpu);
        Assert.Throws<ArgumentException>(() => Linear.Multiply(other.DefaultStream, weights, x, y, 1));
        y.Dispose();
        Assert.Throws<ObjectDisposedException>(() => Linear.Multiply(stream, weights, x, y, 1));
    }

    internal static bool CanRun(GpuDevice device, LinearPath path, WeightFormat format) =>
        CanRun(device, path) && (path != LinearPath.SkinnyGemm || SkinnyKernels.Exist(format, null, default));

    internal static bool CanRun(GpuDevice device, LinearPath path) => path switch
    {
        LinearPath.Gemm or LinearPath.GemmUnaligned or LinearPath.SkinnyGemm => device.WarpSize == 32 && device.MaxThreadsPerBlock >= 128,
        // Reached through an accumulator or quantised activations: AccurateLinearTests.
        LinearPath.Accurate or LinearPath.AccurateScalar => false,
        // Of 17 to 256 rows only: SplitLinearTests.
        LinearPath.SplitGemm => false,
        _ => true,
    };

    // The kernels with tensor cores have one decoder each.
    internal static IEnumerable<Fp8Decoding> Decodings(WeightFormat format, LinearPath path) =>
        format is WeightFormat.Fp8Block or WeightFormat.Fp8TwoTerm && path is LinearPath.Scalar or LinearPath.Gemv ? [Fp8Decoding.Table, Fp8Decoding.BitMove, Fp8Decoding.Hardware] : [Fp8Decoding.Table];

    internal static HostMatrix IntegerWeights(WeightFormat format, int n, int k)
    {
        // The largest code in every block makes its scale 1: the codes are the integers themselves. In NVFP4 one group's scale
        // must be the largest, 448, for the matrix's to be 1. With zero points it is the range of 15 that does, here around 3.
        float[] values = Array.ConvertAll(RandomData.SmallIntegersBf16(n * k, 2), v => (float)v);
        bool groups = format.Info().HasGroupScales;
        for (int row = 0; row < n; row += groups ? 1 : 32)
        {
            for (int column = 0; column < k; column += groups ? 16 : 128)
            {
                int first = (row * k) + column;
                if (format.Info().HasZeroPoints)
                    (values[first], values[first + 1]) = (12, -3);
                else
                    values[first] = format == WeightFormat.Bf16 ? 448 : format.Info().MaxCode;
            }
        }
        if (groups)
            values[k] = 448 * format.Info().MaxCode;
        return Quantizer.Quantize(values, n, k, format, new ScaleBlock(32, 128));
    }

    private static void Check(GpuDevice device, WeightFormat format, LinearPath path, Fp8Decoding decoding, ScaleBlock block, (int M, int N, int K) shape)
    {
        (int m, int n, int k) = shape;
        HostMatrix w = Quantizer.Quantize(RandomData.Gaussian(n * k, n + k, 0.1f), n, k, format, block);
        BFloat16[] x = RandomData.GaussianBf16(m * k, m + k);
        double[] expected = MatrixOracle.Multiply(x, MatrixOracle.Values(w), m, n, k);
        float[] y = Run(device, w, x, m, path, decoding);
        Compare.Close(y, expected, Float32Tolerance);
        // BF16 output is the same sum, rounded once.
        Assert.Equal(Array.ConvertAll(y, v => (BFloat16)v), RunBf16(device, w, x, m, path, decoding));
    }

    internal static float[] Run(GpuDevice device, HostMatrix w, BFloat16[] x, int m, LinearPath? path, Fp8Decoding? decoding)
    {
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        using var input = GuardedBuffer<BFloat16>.Input(device, x);
        using var output = GuardedBuffer<float>.Output(device, m * w.N);
        Linear.Launch(device.DefaultStream, weights, input.View, output.View.Cast<byte>(), true, (m, 0), path, decoding);
        return output.ToArray();
    }

    private static BFloat16[] RunBf16(GpuDevice device, HostMatrix w, BFloat16[] x, int m, LinearPath? path, Fp8Decoding? decoding)
    {
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        using var input = GuardedBuffer<BFloat16>.Input(device, x);
        using var output = GuardedBuffer<BFloat16>.Output(device, m * w.N);
        Linear.Launch(device.DefaultStream, weights, input.View, output.View.Cast<byte>(), false, (m, 0), path, decoding);
        return output.ToArray();
    }
}
