using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Products of at most 16 rows whose inputs a warp loads once for all rows of W of its block, against the double oracle; with little work on the CPU, too.</summary>
public sealed class HopperSweepLinearTests
{
    // Tensor cores add BF16 products with a few bits less than float32.
    private const double Tolerance = 1e-5;

    // Around shares of 8 rows, tiles of 32 and chunks of 128 columns; fewer chunks than warps, and numbers of them that warps do not divide. K in the fewest columns whose multipliers are a word of 16 bytes.
    private static readonly (int M, int N, int Words)[] CardShapes =
    [
        (1, 32, 1), (1, 33, 1), (2, 47, 2), (3, 640, 5), (7, 1000, 3), (8, 4200, 7), (9, 65, 11), (15, 97, 6), (16, 2080, 9), (16, 8192, 1), (5, 71, 33),
    ];

    public static TheoryData<TestDevice, WeightFormat, bool> Cases()
    {
        var data = new TheoryData<TestDevice, WeightFormat, bool>();
        foreach (TestDevice device in TestDevices.Chosen.Where(d => d != TestDevice.Cpu))
            foreach ((WeightFormat format, ActivationFormat? activations) in HopperSweepKernels.Formats)
                data.Add(device, format, activations is not null);
        return data;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void EveryNumberOfBlocksAndWarpsMatchesTheOracle(TestDevice which, WeightFormat format, bool codes)
    {
        GpuDevice device = TestDevices.Get(which);
        foreach ((int m, int n, int words) in device.IsCuda ? CardShapes : [(3, 70, 3), (10, 41, 2), (2, 32, 1), (1, 250, 1), (2, 72, 17), (10, 72, 17)])
        {
            int k = words * LeastColumns(format);
            HostMatrix w = Weights(RandomData.Gaussian(n * k, 2), n, k, format);
            BFloat16[] x = RandomData.GaussianBf16(m * k, 1);
            double[] expected = null!;
            foreach (HopperSweepPlan plan in device.IsCuda ? new HopperSweepPlan[] { new(132, 16), new(264, 8), new(3, 16), new(200, 4), new(1, 2) } : n == 72 ? [new(2, 2)] : [new(1, 4), new(2, 2)])
            {
                HopperSweepPlan fitting = plan with { Blocks = Math.Min(plan.Blocks, Math.Max(1, (n - 7) / 32)) };
                if (!fitting.Exists(Shape(m, w, codes), LinearDevice.Of(device)))
                    continue;
                (float[] exact, BFloat16[] rounded, double[] inputs) = Run(device, w, x, m, codes, fitting);
                expected ??= AccurateLinearTests.Multiply(inputs, MatrixOracle.Values(w), m, n, k);
                Compare.Close(exact, expected, Tolerance);
                Assert.Equal(Array.ConvertAll(exact, v => (BFloat16)v), rounded);
            }
            Assert.NotNull(expected);
        }
    }

    // Groups of two chunks, whose multipliers are at other places of the 16 bytes.
    [Theory]
    [MemberData(nameof(Cases))]
    public void MultipliersOfWiderGroupsAreFound(TestDevice which, WeightFormat format, bool codes)
    {
        if (format == WeightFormat.Nvfp4)
            return;
        GpuDevice device = TestDevices.Get(which);
        foreach ((int m, int n, int k) in device.IsCuda ? new[] { (3, 300, 3072), (11, 300, 3072), (16, 72, 8192) } : [(3, 40, 1024), (11, 40, 1024)])
        {
            HostMatrix w = Quantizer.Quantize(RandomData.Gaussian(n * k, 2), n, k, format, new ScaleBlock(1, 256));
            (float[] exact, _, double[] inputs) = Run(device, w, RandomData.GaussianBf16(m * k, 1), m, codes, new HopperSweepPlan(device.IsCuda ? 2 : 1, device.IsCuda ? 16 : 4));
            Compare.Close(exact, AccurateLinearTests.Multiply(inputs, MatrixOracle.Values(w), m, n, k), Tolerance);
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void ARowHasTheSameBitsForEveryNumberOfRows(TestDevice which, WeightFormat format, bool codes)
    {
        GpuDevice device = TestDevices.Get(which);
        (int n, int k, int warps) = device.IsCuda ? (1500, 2560, 16) : (73, 512, 2);
        HostMatrix w = Weights(RandomData.Gaussian(n * k, 5), n, k, format);
        BFloat16[] x = RandomData.GaussianBf16(16 * k, 6);
        var plan = new HopperSweepPlan(device.IsCuda ? 20 : 2, warps);
        float[] all = Run(device, w, x, 16, codes, plan).Exact;
        foreach (int m in device.IsCuda ? new[] { 1, 2, 7, 8, 9, 15 } : [8])
        {
            Assert.Equal(all[..(m * n)], Run(device, w, x[..(m * k)], m, codes, plan).Exact);
            Assert.Equal(all[^(m * n)..], Run(device, w, x[^(m * k)..], m, codes, plan).Exact);
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void OneHotInputsReadEachCodeFromItsPlace(TestDevice which, WeightFormat format, bool codes)
    {
        if (codes)
            return;
        GpuDevice device = TestDevices.Get(which);
        (int n, int k) = device.IsCuda ? (264, 1536) : (72, 512);
        HostMatrix w = Weights(RandomData.Gaussian(n * k, 7), n, k, format);
        double[] values = MatrixOracle.Values(w);
        for (int first = 0; first + 16 <= k; first += device.IsCuda ? 16 : 240)
        {
            var hot = new BFloat16[16 * k];
            for (int row = 0; row < 16; row++)
                hot[(row * k) + first + row] = (BFloat16)1f;
            float[] y = Run(device, w, hot, 16, codes, new HopperSweepPlan(2, device.IsCuda ? 16 : 4)).Exact;
            for (int row = 0; row < 16; row++)
                for (int column = 0; column < n; column++)
                    Assert.Equal((float)values[(column * k) + first + row], y[(row * n) + column]);
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void RepeatedLaunchesGiveTheSameBits(TestDevice which, WeightFormat format, bool codes)
    {
        GpuDevice device = TestDevices.Get(which);
        if (!device.IsCuda)
            return;
        // Twenty units a warp: each of its stages is filled ten times.
        const int N = 4752, K = 8192;
        HostMatrix w = Weights(RandomData.Gaussian(N * K, 5), N, K, format);
        BFloat16[] x = RandomData.GaussianBf16(16 * K, 6);
        var plan = new HopperSweepPlan(33, 16);
        float[] all = Run(device, w, x, 16, codes, plan).Exact;
        foreach (int m in new[] { 1, 16 })
            for (int i = 0; i < 10; i++)
                Assert.Equal(all[..(m * N)], Run(device, w, x[..(m * K)], m, codes, plan, repeats: 5).Exact);
    }

    [Fact]
    public void ThePlanTakesItWhereABlockHas140RowsAndMore()
    {
        var h200 = new LinearDevice(true, 90, 32, 1024, 132, 227 * 1024);
        foreach ((int n, int k, bool chosen) in new[]
        {
            (29568, 8192, true), (28672, 8192, true), (25600, 5120, true), (18944, 3584, true), (18480, 4096, true), (18479, 4096, false), (14336, 4096, false), (8192, 29568, false), (151936, 2048, false), (29568, 8160, false), (29568, 8320, false), (29568, 29568, false),
        })
            foreach (int m in new[] { 1, 8, 9, 16 })
            {
                Assert.Equal(chosen, Chosen(WeightFormat.Nvfp4, null, n, k, m, h200));
                Assert.Equal(chosen, Chosen(WeightFormat.Nvfp4, ActivationFormat.Nvfp4, n, k, m, h200));
                Assert.Equal(chosen, Chosen(WeightFormat.Int4, null, n, k, m, h200));
                Assert.Equal(chosen, Chosen(WeightFormat.Int4Zero, null, n, k, m, h200));
                Assert.False(Chosen(WeightFormat.Fp8Block, null, n, k, m, h200));
                Assert.False(Chosen(WeightFormat.Nvfp4, null, n, k, m, h200 with { Arch = 89 }));
                Assert.False(Chosen(WeightFormat.Nvfp4, null, n, k, m, h200 with { IsCuda = false }));
            }
        Assert.False(Chosen(WeightFormat.Nvfp4, null, 29568, 8192, 17, h200));
        Assert.False(Chosen(WeightFormat.Nvfp4, null, int.MaxValue, 256, 1, h200));
        Assert.False(Chosen(WeightFormat.Int4, null, int.MaxValue, 512, 1, h200));
        Assert.False(Chosen(WeightFormat.Nvfp4, null, 128256, 4096, 1, h200));
        // A row's multipliers are whole words of 16 bytes: 256 columns of E4M3, four groups of float32.
        Assert.True(Chosen(WeightFormat.Nvfp4, null, 29568, 8448, 1, h200));
        Assert.False(Chosen(WeightFormat.Int4, null, 29568, 8448, 1, h200));
        foreach ((int k, int group, bool chosen) in new[] { (3584, 128, true), (3584, 256, false), (3968, 256, true), (4096, 256, true), (5120, 512, false) })
            Assert.Equal(chosen, HopperSweepPlan.IfChosen(new LinearShape(1, 29568, k, WeightFormat.Int4, true, 0, new ScaleBlock(1, group)), h200) is not null);
        // Sums of 16 rows and more than 256 of W do not fit into a block: two of half as many, one after the other.
        foreach ((int n, int blocks) in new[] { (33792, 132), (33793, 264), (34816, 264), (36864, 264), (36960, 264), (67584, 264) })
            Assert.Equal(blocks, HopperSweepPlan.IfChosen(new LinearShape(1, n, 5120, WeightFormat.Int4, true, 0, ScaleBlock.Group128), h200)?.Blocks);
        Assert.Null(HopperSweepPlan.IfChosen(new LinearShape(1, 67585, 5120, WeightFormat.Int4, true, 0, ScaleBlock.Group128), h200));
        foreach (WeightFormat format in new[] { WeightFormat.Nvfp4, WeightFormat.Int4, WeightFormat.Int4Zero })
            foreach (int m in new[] { 1, 16 })
                Assert.Equal(new HopperSweepPlan(264, 16), HopperSweepPlan.IfChosen(new LinearShape(m, 57344, 8192, format, true, 0, ScaleBlock.Group128), h200));
        Assert.Equal(new HopperSweepPlan(132, 16), HopperSweepPlan.IfChosen(new LinearShape(1, 29568, 8192, WeightFormat.Nvfp4, true, 0), h200));
    }

    private static bool Chosen(WeightFormat format, ActivationFormat? activations, int n, int k, int m, in LinearDevice device) =>
        HopperSweepPlan.IfChosen(new LinearShape(m, n, k, format, true, 0, ScaleBlock.Group128, activations), device) is not null;

    private static int LeastColumns(WeightFormat format) => format == WeightFormat.Nvfp4 ? 256 : 512;

    private static HostMatrix Weights(float[] values, int n, int k, WeightFormat format) => Quantizer.Quantize(values, n, k, format, ScaleBlock.Group128);

    private static LinearShape Shape(int m, HostMatrix w, bool codes) => new(m, w.N, w.K, w.Format, true, 0, w.Block, codes ? ActivationFormat.Nvfp4 : null);

    private static (float[] Exact, BFloat16[] Rounded, double[] Inputs) Run(GpuDevice device, HostMatrix w, BFloat16[] x, int m, bool codes, HopperSweepPlan plan, int repeats = 1)
    {
        Assert.True(plan.Exists(Shape(m, w, codes), LinearDevice.Of(device)));
        GpuStream stream = device.DefaultStream;
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        using var input = GuardedBuffer<BFloat16>.Input(device, x);
        using var exact = GuardedBuffer<float>.Output(device, m * w.N);
        using var rounded = GuardedBuffer<BFloat16>.Output(device, m * w.N);
        using QuantizedActivations? quantized = codes ? new QuantizedActivations(device, ActivationFormat.Nvfp4, m, w.K) : null;
        if (quantized is not null)
            ActivationQuantizer.Quantize(stream, input.View, quantized, m);
        for (int i = 0; i < repeats; i++)
            Launch(stream, weights, input.View, quantized, exact.View.Cast<byte>(), true, m, plan);
        Launch(stream, weights, input.View, quantized, rounded.View.Cast<byte>(), false, m, plan);
        double[] inputs = quantized is null ? Array.ConvertAll(x, v => (double)(float)v) : StreamedActivationTests.Values(x, m, w.K, ActivationFormat.Nvfp4);
        return (exact.ToArray(), rounded.ToArray(), inputs);
    }

    private static void Launch(GpuStream stream, QuantizedMatrix w, ArrayView<BFloat16> x, QuantizedActivations? quantized, ArrayView<byte> y, bool float32, int m, HopperSweepPlan plan)
    {
        var shape = new LinearShape(m, w.N, w.K, w.Format, true, 0, w.Block, quantized?.Format);
        if (quantized is null)
            HopperSweepLinear.Launch(stream, w, x, y, float32, (m, 0), plan, shape);
        else
            HopperSweepLinear.Launch(stream, w, quantized, y, float32, (m, 0), plan, shape);
    }
}
