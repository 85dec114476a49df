using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Products with a choice of accumulator and of quantised activations, on both of their paths.</summary>
public sealed class AccurateLinearTests
{
    // What compensated and float64 sums leave is the last rounding, 2⁻²⁴.
    private const double Float32Tolerance = 1e-5, AccurateTolerance = 1e-7;

    private static readonly (int M, int N, int K)[] Shapes = [(1, 1, 1), (3, 5, 37), (2, 3, 160), (1, 4, 529)];

    private static readonly LinearPath[] Paths = [LinearPath.AccurateScalar, LinearPath.Accurate];

    /// <summary>Every combination that there is; no activation format means BF16.</summary>
    private static IEnumerable<(WeightFormat Weights, ActivationFormat? Activations, Accumulator Accumulator)> Combinations =>
    [
        .. from weights in WeightFormats.All from accumulator in new[] { Accumulator.Kahan, Accumulator.Float64 } select (weights, (ActivationFormat?)null, accumulator),
        .. from activations in ActivationFormats.All from accumulator in Enum.GetValues<Accumulator>() select (WeightsOf(activations), (ActivationFormat?)activations, accumulator),
    ];

    public static TheoryData<TestDevice, WeightFormat, ActivationFormat?, Accumulator> Cases()
    {
        var data = new TheoryData<TestDevice, WeightFormat, ActivationFormat?, Accumulator>();
        foreach (TestDevice device in TestDevices.Chosen)
            foreach ((WeightFormat weights, ActivationFormat? activations, Accumulator accumulator) in Combinations)
                data.Add(device, weights, activations, accumulator);
        return data;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void MatchesTheOracle(TestDevice which, WeightFormat format, ActivationFormat? activations, Accumulator accumulator)
    {
        GpuDevice device = TestDevices.Get(which);
        foreach ((int m, int n, int k) in Shapes)
        {
            HostMatrix w = Quantizer.Quantize(RandomData.Gaussian(n * k, n + k, 0.1f), n, k, format, BlockOf(activations));
            BFloat16[] x = RandomData.GaussianBf16(m * k, m + k);
            double[] expected = Multiply(Values(x, m, k, activations), MatrixOracle.Values(w), m, n, k);
            foreach (LinearPath path in Paths)
            {
                float[] y = Run(device, w, x, m, activations, accumulator, path);
                Compare.Close(y, expected, accumulator == Accumulator.Float32 || format == WeightFormat.Int4 ? Float32Tolerance : AccurateTolerance);
                Assert.Equal(Array.ConvertAll(y, v => (BFloat16)v), RunBf16(device, w, x, m, activations, accumulator, path));
                // BF16 in elements or in words: the same bits.
                if (activations is null)
                    Assert.Equal(y, Run(device, w, x, m, activations, accumulator, path, misalignment: 2));
            }
        }
    }

    [Theory]
    [CombinatorialDevices]
    public void BlocksOfEveryShapeAreScaledRight(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        const int M = 2, N = 35, K = 304;
        BFloat16[] x = RandomData.GaussianBf16(M * K, 2);
        foreach (ScaleBlock block in new[] { new ScaleBlock(128, 128), new ScaleBlock(32, 32), new ScaleBlock(1, 64) })
        {
            HostMatrix w = Quantizer.Quantize(RandomData.Gaussian(N * K, 3), N, K, WeightFormat.Fp8Block, block);
            for (int i = 0; i < w.Scales.Length; i++)
                w.Scales[i] *= 1 + i;
            foreach (ActivationFormat activations in new[] { ActivationFormat.Fp8Group128, ActivationFormat.Fp8Group32 })
                Compare.Close(Run(device, w, x, M, activations, Accumulator.Float64), Multiply(Values(x, M, K, activations), MatrixOracle.Values(w), M, N, K), AccurateTolerance);
        }
    }

    [Theory]
    [CombinatorialDevices]
    public void SmallIntegersAndOneHotInputsAreExact(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        const int N = 5, K = 48;
        foreach ((WeightFormat format, ActivationFormat? activations, Accumulator accumulator) in Combinations)
        {
            // 7 and 448 times powers of two make the scales powers of two: values and one-hot products are exact then.
            HostMatrix w = Quantizer.Quantize(Integers(format, N, K, 1), N, K, format, BlockOf(activations));
            double[] weights = MatrixOracle.Values(w);
            BFloat16[] x = Array.ConvertAll(Integers(activations is null ? WeightFormat.Bf16 : format, 2, K, 2), v => (BFloat16)v);
            double[] expected = Multiply(Values(x, 2, K, activations), weights, 2, N, K);
            foreach (LinearPath path in Paths)
                Assert.Equal(Array.ConvertAll(expected, v => (float)v), Run(device, w, x, 2, activations, accumulator, path));
            var hot = new BFloat16[K * K];
            for (int k = 0; k < K; k++)
                hot[(k * K) + k] = (BFloat16)1f;
            double[] ones = Values(hot, K, K, activations);
            Compare.Close(Run(device, w, hot, K, activations, accumulator, LinearPath.AccurateScalar), Multiply(ones, weights, K, N, K), AccurateTolerance);
        }
    }

    [Theory]
    [CombinatorialDevices]
    public void BetterAccumulatorsSurviveCancellation(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        // 50,048 products up to some thousands, their opposites, and a small rest.
        const int Half = 391 * 128, K = (2 * Half) + 128;
        float[] large = RandomData.Gaussian(Half, 1, 1000), factors = RandomData.Gaussian(Half, 2);
        BFloat16[] x = [.. large.Select(v => (BFloat16)v), .. large.Select(v => (BFloat16)(-v)), .. Enumerable.Repeat((BFloat16)1f, 128)];
        float[] weights = [.. factors, .. factors, .. Enumerable.Repeat(1 / 128f, 128)];
        foreach (ActivationFormat? activations in new ActivationFormat?[] { null, ActivationFormat.Fp8Group128, ActivationFormat.Fp8Group32 })
        {
            HostMatrix w = Quantizer.Quantize(weights, 1, K, activations is null ? WeightFormat.Bf16 : WeightFormat.Fp8Block);
            double expected = Multiply(Values(x, 1, K, activations), MatrixOracle.Values(w), 1, 1, K)[0];
            double Error(Accumulator accumulator, LinearPath? path = null) => Math.Abs(Run(device, w, x, 1, activations, accumulator, path)[0] - expected) / expected;
            Assert.InRange(expected, 0.9, 1.1);
            // Observed on the CPU: 0.03 to 0.2. Other orders of summation lose more or less.
            Assert.InRange(Error(Accumulator.Float32), 1e-4, 1e3);
            foreach (LinearPath path in Paths)
            {
                Assert.InRange(Error(Accumulator.Kahan, path), 0, 2e-6);
                Assert.InRange(Error(Accumulator.Float64, path), 0, 1e-7);
            }
        }
    }

    [Theory]
    [CombinatorialDevices]
    public void IntegerSumsAreExactBeyondFloat32(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        const int K = 1_000_000;
        // 49 · 999,999 + 7, in between 2²⁵ and 2²⁶: a float32 sum of ones would have lost the end.
        var values = new float[K];
        Array.Fill(values, 7);
        BFloat16[] x = Array.ConvertAll(values, v => (BFloat16)v);
        values[^1] = 1;
        HostMatrix w = Quantizer.Quantize(values, 1, K, WeightFormat.Int4, new ScaleBlock(1, 1 << 20));
        Assert.Equal([1f], w.Scales);
        foreach (LinearPath path in Paths)
            Assert.Equal([(float)((49L * (K - 1)) + 7)], Run(device, w, x, 1, ActivationFormat.Int4, Accumulator.Float32, path));
    }

    [Theory]
    [CombinatorialDevices]
    public void InfinitiesAndNaNReachTheirRowsOnly(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        const int N = 2, K = 40;
        BFloat16[] x = RandomData.GaussianBf16(4 * K, 3);
        x[7] = BFloat16.FromBits(0x7F80);
        x[K + 8] = BFloat16.FromBits(0x7FC0);
        (x[(2 * K) + 1], x[(2 * K) + 30]) = (BFloat16.FromBits(0x7F80), BFloat16.FromBits(0xFF80));
        float[] weights = RandomData.Gaussian(N * K, 4).Select(MathF.Abs).ToArray();
        foreach (Accumulator accumulator in new[] { Accumulator.Kahan, Accumulator.Float64 })
        {
            foreach (LinearPath path in Paths)
            {
                HostMatrix w = Quantizer.Quantize(weights, N, K, WeightFormat.Fp8Block);
                Compare.Close(Run(device, w, x, 4, null, accumulator, path), MatrixOracle.Multiply(x, MatrixOracle.Values(w), 4, N, K), AccurateTolerance);
                // FP8 activations saturate at infinity and keep NaN.
                Compare.Close(Run(device, w, x, 4, ActivationFormat.Fp8Group32, accumulator, path), Multiply(Values(x, 4, K, ActivationFormat.Fp8Group32), MatrixOracle.Values(w), 4, N, K), AccurateTolerance);
            }
        }
    }

    [Theory]
    [CombinatorialDevices]
    public void ARowHasTheSameBitsAloneAndAmongOthers(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        const int M = 4, N = 3, K = 200;
        BFloat16[] x = RandomData.GaussianBf16(M * K, 6);
        foreach ((WeightFormat format, ActivationFormat? activations, Accumulator accumulator) in Combinations)
        {
            HostMatrix w = Quantizer.Quantize(RandomData.Gaussian(N * K, 5), N, K, format, BlockOf(activations));
            float[] together = Run(device, w, x, M, activations, accumulator);
            Assert.Equal(together[(2 * N)..(3 * N)], Run(device, w, x[(2 * K)..(3 * K)], 1, activations, accumulator));
            Assert.Equal(together, Run(device, w, x, M, activations, accumulator));
        }
    }

    [Fact]
    public void WhatDoesNotGoTogetherIsNamed()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        GpuStream stream = device.DefaultStream;
        using DeviceBuffer<float> y = device.Allocate<float>(4);
        using DeviceBuffer<BFloat16> bf16 = device.Allocate<BFloat16>(256);
        using var nvfp4 = new QuantizedActivations(device, ActivationFormat.Nvfp4, 1, 256);
        using var int4 = new QuantizedActivations(device, ActivationFormat.Int4, 1, 256);
        Refused(WeightFormat.Fp8Block, nvfp4, "FP8 block weights and NVFP4 activations do not go together: NVFP4 activations need NVFP4 weights, and FP8 block weights BF16 or FP8 groups of 128 or FP8 groups of 32 activations.");
        Refused(WeightFormat.Bf16, int4, "INT4 activations need INT4 weights, and BF16 weights BF16 activations.");
        Refused(WeightFormat.Int4, int4, "scale every 128 of 256 columns");
        using var narrow = new QuantizedMatrix(device, WeightFormat.Nvfp4, 4, 32);
        Assert.Contains("256 columns, the weights 32", Assert.Throws<ArgumentException>(() => Linear.Multiply(stream, narrow, nvfp4, y.View, 1)).Message, StringComparison.Ordinal);
        using var fitting = new QuantizedMatrix(device, WeightFormat.Nvfp4, 2, 256);
        Assert.Contains("2 rows of activations that hold 1", Assert.Throws<ArgumentException>(() => Linear.Multiply(stream, fitting, nvfp4, y.View, 2)).Message, StringComparison.Ordinal);
        Linear.Multiply(stream, fitting, nvfp4, y.View, 0);
        Assert.Throws<ArgumentOutOfRangeException>(() => Linear.Multiply(stream, fitting, bf16.View, y.View, 1, 0, (Accumulator)9));
        using var stack = new QuantizedMatrix(device, WeightFormat.Nvfp4, 4, 256, count: 2);
        Assert.Contains("stack", Assert.Throws<ArgumentException>(() => Linear.Multiply(stream, stack, nvfp4, y.View, 1)).Message, StringComparison.Ordinal);

        void Refused(WeightFormat format, QuantizedActivations x, string message)
        {
            using var weights = new QuantizedMatrix(device, format, 4, 256);
            Assert.Contains(message, Assert.Throws<ArgumentException>(() => Linear.Multiply(stream, weights, x, y.View, 1)).Message, StringComparison.Ordinal);
        }
    }

    /// <summary>Quantising and multiplying are recorded and replayed over new activations.</summary>
    [Fact]
    public void AGraphQuantisesAndMultiplies()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cuda);
        using GpuStream stream = device.CreateStream();
        const int M = 3, N = 33, K = 272;
        HostMatrix w = Quantizer.Quantize(RandomData.Gaussian(N * K, 1), N, K, WeightFormat.Fp8Block);
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        using DeviceBuffer<BFloat16> x = device.Allocate<BFloat16>(M * K);
        using DeviceBuffer<float> y = device.Allocate<float>(M * N);
        using var quantised = new QuantizedActivations(device, ActivationFormat.Fp8Group128, M, K);
        Step();
        using GpuGraph graph = GpuGraph.Capture(stream, Step);
        BFloat16[] values = RandomData.GaussianBf16(M * K, 2);
        x.CopyFrom(stream, values);
        graph.Replay(stream);
        Compare.Close(y.ToArray(stream), Multiply(Values(values, M, K, ActivationFormat.Fp8Group128), MatrixOracle.Values(w), M, N, K), AccurateTolerance);

        void Step()
        {
            ActivationQuantizer.Quantize(stream, x, quantised, M);
            Linear.Multiply(stream, weights, quantised, y.View, M, 0, Accumulator.Kahan);
        }
    }

    internal static double[] Multiply(double[] x, double[] w, int m, int n, int k)
    {
        var y = new double[m * n];
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++)
                for (int c = 0; c < k; c++)
                    y[(i * n) + j] += x[(i * k) + c] * w[(j * k) + c];
        return y;
    }

    private static double[] Values(BFloat16[] x, int m, int k, ActivationFormat? format) => format is { } quantised
        ? ActivationOracle.Values(ActivationOracle.Quantize(x, m, k, quantised))
        : Array.ConvertAll(x, v => (double)(float)v);

    private static WeightFormat WeightsOf(ActivationFormat activations) => activations switch
    {
        ActivationFormat.Nvfp4 => WeightFormat.Nvfp4,
        ActivationFormat.Int4 => WeightFormat.Int4,
        _ => WeightFormat.Fp8Block,
    };

    // Integer sums need one scale a row.
    private static ScaleBlock BlockOf(ActivationFormat? activations) => activations == ActivationFormat.Int4 ? new ScaleBlock(1, 1024) : new ScaleBlock(2, 32);

    internal static float[] Integers(WeightFormat format, int rows, int k, int seed)
    {
        float[] values = Array.ConvertAll(RandomData.SmallIntegersBf16(rows * k, seed), v => (float)v);
        for (int i = 0; i < values.Length; i += 16)
            values[i] = format switch { WeightFormat.Bf16 => 1, WeightFormat.Fp8Block => 448, WeightFormat.Nvfp4 => 6, _ => 7 };
        for (int row = 0; row < rows && format == WeightFormat.Nvfp4; row++)
            values[row * k] = 6 * 448;
        return values;
    }

    private static float[] Run(GpuDevice device, HostMatrix w, BFloat16[] x, int m, ActivationFormat? activations, Accumulator accumulator, LinearPath? path = null, int misalignment = 0)
    {
        using var output = GuardedBuffer<float>.Output(device, m * w.N);
        Launch(device, w, x, (output.View.Cast<byte>(), true), m, activations, accumulator, path, misalignment);
        return output.ToArray();
    }

    private static BFloat16[] RunBf16(GpuDevice device, HostMatrix w, BFloat16[] x, int m, ActivationFormat? activations, Accumulator accumulator, LinearPath? path)
    {
        using var output = GuardedBuffer<BFloat16>.Output(device, m * w.N);
        Launch(device, w, x, (output.View.Cast<byte>(), false), m, activations, accumulator, path, 0);
        return output.ToArray();
    }

    private static void Launch(GpuDevice device, HostMatrix w, BFloat16[] x, (ILGPU.ArrayView<byte> View, bool Float32) y, int m, ActivationFormat? activations, Accumulator accumulator, LinearPath? path, int misalignment)
    {
        GpuStream stream = device.DefaultStream;
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        using var input = GuardedBuffer<BFloat16>.Input(device, x, misalignment);
        if (activations is not { } format)
        {
            // Float32 sums of BF16 activations are the other paths'.
            if (accumulator == Accumulator.Float32)
                Linear.Launch(stream, weights, input.View, y.View, y.Float32, (m, 0));
            else
                Linear.LaunchAccurate(stream, weights, input.View, y.View, y.Float32, (m, 0), accumulator, path);
            return;
        }
        using var quantised = new QuantizedActivations(device, format, m, w.K);
        ActivationQuantizer.Quantize(stream, input.View, quantised, m);
        Linear.Launch(stream, weights, quantised, y.View, y.Float32, (m, 0), accumulator, path);
    }
}
