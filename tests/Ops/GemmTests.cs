using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Every tile of the pipelined kernel against the double oracle, with guard bands and NaN around all tensors.</summary>
public sealed class GemmTests
{
    private const double Float32Tolerance = 1e-5;

    public static TheoryData<TestDevice, WeightFormat> Cases()
    {
        var data = new TheoryData<TestDevice, WeightFormat>();
        foreach (TestDevice device in new[] { TestDevice.CpuWarp32, TestDevice.Cuda })
            foreach (WeightFormat format in WeightFormats.All)
                data.Add(device, format);
        return data;
    }

    // On the CPU a block costs milliseconds: one or two a tile, ragged on every side, more turns than stages in the small ones. A tile of 256
    // threads needs a card.
    [Theory]
    [MemberData(nameof(Cases))]
    public void EveryTileMatchesTheOracle(TestDevice which, WeightFormat format)
    {
        GpuDevice device = TestDevices.Get(which);
        foreach (GemmTile tile in Tiles(device, format))
        {
            GemmTileInfo info = GemmKernels.Info(format, tile);
            if (device.IsCuda)
            {
                foreach ((int m, int n, int k) in new[] { (info.M, info.N, 64), (info.M + 1, info.N - 1, 608), (info.M - 1, info.N + 1, 1056), (3, 2 * info.N, 2080) })
                    Check(device, format, tile, (m, n, k));
                // More tiles than multiprocessors, a few of them taken apart.
                if (info.Parts > 1)
                    Check(device, format, tile, ((device.MultiprocessorCount / 7 * info.M) + 3, (8 * info.N) - 5, 96));
            }
            else
            {
                Check(device, format, tile, info.M <= 32 ? (info.M + 1, 9, 928) : (info.M - 31, info.N - 7, 96));
            }
        }
    }

    // Of four tiles three are whole and one is taken apart: rows end in its second part, columns in both. On a card EveryTileMatchesTheOracle has more tiles than multiprocessors.
    [Fact]
    public void OnTheCpuTheLastTilesAreTakenApart()
    {
        using GpuDevice device = TestDevices.Open(TestDevice.CpuWarp32, warps: 8);
        const int M = 400, N = 150, K = 40;
        var shape = new LinearShape(M, N, K, WeightFormat.Bf16, true, 0);
        LinearPlan plan = GemmPlan.Choose(shape, LinearDevice.Of(device) with { Multiprocessors = 3 }, gated: false, GemmTile.M256N128K64);
        Assert.Equal((5, 3, 256), (plan.GridX, plan.WholeTiles, plan.Threads));
        HostMatrix w = Quantizer.Quantize(RandomData.Gaussian(N * K, 8, 0.1f), N, K, WeightFormat.Bf16);
        BFloat16[] x = RandomData.GaussianBf16(M * K, 9);
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        using var input = GuardedBuffer<BFloat16>.Input(device, x);
        using var output = GuardedBuffer<float>.Output(device, M * N);
        LinearArgs args = Linear.CreateArgs(weights, input.View, output.View.Cast<byte>(), M, 0, float32: true);
        args.WholeTiles = plan.WholeTiles;
        device.Launch(GemmKernels.Get(WeightFormat.Bf16, GemmTile.M256N128K64), device.DefaultStream, (plan.GridX, plan.GridY, 1), plan.Threads, plan.SharedBytes, args);
        Compare.Close(output.ToArray(), MatrixOracle.Multiply(x, MatrixOracle.Values(w), M, N, K), Float32Tolerance);
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void SmallIntegersAreExactInEveryTile(TestDevice which, WeightFormat format)
    {
        GpuDevice device = TestDevices.Get(which);
        const int M = 19, N = 40, K = 96;
        BFloat16[] x = RandomData.SmallIntegersBf16(M * K, 1);
        HostMatrix w = LinearTests.IntegerWeights(format, N, K);
        float[] expected = Array.ConvertAll(MatrixOracle.Multiply(x, MatrixOracle.Values(w), M, N, K), v => (float)v);
        foreach (GemmTile tile in Tiles(device, format))
            Assert.Equal(expected, Run(device, w, x, M, tile));
    }

    // Row k of x selects column k: y[k, n] must be W[n, k], a value that names its place.
    [Theory]
    [MemberData(nameof(Cases))]
    public void OneHotInputsReadEachWeightFromItsPlace(TestDevice which, WeightFormat format)
    {
        GpuDevice device = TestDevices.Get(which);
        const int N = 72, K = 64;
        var x = new BFloat16[K * K];
        for (int k = 0; k < K; k++)
            x[(k * K) + k] = (BFloat16)1f;
        HostMatrix w = Quantizer.Quantize(RandomData.Gaussian(N * K, 7), N, K, format, new ScaleBlock(32, 128));
        double[] values = MatrixOracle.Values(w);
        foreach (GemmTile tile in Tiles(device, format).Where(t => device.IsCuda || t == GemmTile.M128N128K64))
        {
            float[] y = Run(device, w, x, K, tile);
            for (int k = 0; k < K; k++)
                for (int n = 0; n < N; n++)
                    Assert.Equal((float)values[(n * K) + k], y[(k * N) + n]);
        }
    }

    [Fact]
    public void OnACardEveryNumberOfRowsIsRight()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cuda);
        int[] rows = [.. Enumerable.Range(1, 80), 127, 128, 129, 255, 256, 257, 1000, 4096];
        foreach (WeightFormat format in WeightFormats.All)
        {
            const int N = 136, K = 288;
            HostMatrix w = Quantizer.Quantize(RandomData.Gaussian(N * K, 1, 0.1f), N, K, format);
            BFloat16[] x = RandomData.GaussianBf16(rows[^1] * K, 2);
            double[] expected = MatrixOracle.Multiply(x, MatrixOracle.Values(w), rows[^1], N, K);
            foreach (GemmTile tile in Tiles(device, format))
                foreach (int m in rows)
                    Compare.Close(Run(device, w, x[..(m * K)], m, tile), expected[..(m * N)], Float32Tolerance);
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void ARowHasTheSameBitsInEveryTileAndBatch(TestDevice which, WeightFormat format)
    {
        GpuDevice device = TestDevices.Get(which);
        const int M = 34, N = 16, K = 320;
        HostMatrix w = Quantizer.Quantize(RandomData.Gaussian(N * K, 5), N, K, format);
        BFloat16[] x = RandomData.GaussianBf16(M * K, 6);
        float[] together = Run(device, w, x, M, GemmTile.M64N64K64);
        foreach (GemmTile tile in device.IsCuda ? Tiles(device, format) : [GemmTile.M16N64K128])
            Assert.Equal(together.AsSpan(30 * N).ToArray(), Run(device, w, x.AsSpan(30 * K).ToArray(), 4, tile));
        if (device.IsCuda)
            Assert.Equal(together, Run(device, w, x, M, GemmTile.M64N64K64));
    }

    private static IEnumerable<GemmTile> Tiles(GpuDevice device, WeightFormat format) => Enum.GetValues<GemmTile>()
        .Where(t => GemmKernels.Exists(format, t) && GemmKernels.Info(format, t).Fits(LinearDevice.Of(device)));

    private static void Check(GpuDevice device, WeightFormat format, GemmTile tile, (int M, int N, int K) shape)
    {
        (int m, int n, int k) = shape;
        HostMatrix w = Quantizer.Quantize(RandomData.Gaussian(n * k, n + k, 0.1f), n, k, format, new ScaleBlock(32, 64));
        BFloat16[] x = RandomData.GaussianBf16(m * k, m + k);
        float[] y = Run(device, w, x, m, tile);
        Compare.Close(y, MatrixOracle.Multiply(x, MatrixOracle.Values(w), m, n, k), Float32Tolerance);
        if (!device.IsCuda && tile != GemmTile.M32N64K128)
            return;
        // BF16 output is the same sum, rounded once.
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        using var input = GuardedBuffer<BFloat16>.Input(device, x);
        using var output = GuardedBuffer<BFloat16>.Output(device, m * n);
        Linear.Launch(device.DefaultStream, weights, input.View, output.View.Cast<byte>(), false, (m, 0), LinearPath.Gemm, tile: tile);
        Assert.Equal(Array.ConvertAll(y, v => (BFloat16)v), output.ToArray());
    }

    private static float[] Run(GpuDevice device, HostMatrix w, BFloat16[] x, int m, GemmTile tile)
    {
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        using var input = GuardedBuffer<BFloat16>.Input(device, x);
        using var output = GuardedBuffer<float>.Output(device, m * w.N);
        Linear.Launch(device.DefaultStream, weights, input.View, output.View.Cast<byte>(), true, (m, 0), LinearPath.Gemm, tile: tile);
        return output.ToArray();
    }
}
