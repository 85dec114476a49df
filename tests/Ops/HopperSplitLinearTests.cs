using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Products of 17 to 128 rows with FP8 weights on a Hopper card, K split, against the double oracle; with little work on the CPU, too.</summary>
public sealed class HopperSplitLinearTests
{
    // Tensor cores add BF16 products with a few bits less than float32.
    private const double Tolerance = 1e-5;

    // The kernel needs 16 warps a block.
    private static readonly Lazy<GpuDevice> Cpu = new(() => TestDevices.Open(TestDevice.CpuWarp32, warps: 16));

    // Around tiles of 128 columns and steps of 128 columns of K; parts of a step or several, stages filled again and again, teams without any step.
    private static readonly (int M, int N, int K)[] CardShapes =
    [
        (17, 8, 16), (17, 136, 4112), (31, 64, 128), (32, 72, 144), (33, 120, 272), (48, 128, 1040), (63, 136, 2064), (64, 264, 4112), (64, 1032, 2320), (65, 136, 272), (96, 72, 2064), (127, 264, 4112), (128, 1032, 1040),
    ];

    public static TheoryData<TestDevice> Devices() => [.. TestDevices.Chosen.Where(d => d != TestDevice.Cpu)];

    [Theory]
    [MemberData(nameof(Devices))]
    public void EveryNumberOfPartsMatchesTheOracle(TestDevice which)
    {
        if (Device(which) is not { } device)
            return;
        foreach ((int m, int n, int k) in device.IsCuda ? CardShapes : [(35, 72, 2064), (19, 72, 3344), (70, 72, 400)])
        {
            BFloat16[] x = RandomData.GaussianBf16(m * k, 1);
            HostMatrix w = Weights(RandomData.Gaussian(n * k, 2), n, k);
            double[] expected = MatrixOracle.Multiply(x, MatrixOracle.Values(w), m, n, k);
            foreach (Variant variant in Variants(m, device.IsCuda ? [1, 2, 3, 5, 8] : [2]))
            {
                (float[] exact, BFloat16[] rounded) = Run(device, w, x, m, variant);
                Compare.Close(exact, expected, Tolerance);
                Assert.Equal(Array.ConvertAll(exact, v => (BFloat16)v), rounded);
            }
        }
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void SmallIntegersAreExactAndRepeatable(TestDevice which)
    {
        if (Device(which) is not { } device)
            return;
        foreach ((int m, int n, int k) in device.IsCuda ? new[] { (17, 776, 1328), (50, 776, 1328) } : [(18, 16, 272)])
        {
            BFloat16[] x = RandomData.SmallIntegersBf16(m * k, 1);
            // A scale of 1 in every block: its largest magnitude is that of the format.
            float[] values = Array.ConvertAll(RandomData.SmallIntegersBf16(n * k, 2), v => (float)v);
            for (int row = 0; row < n; row++)
                for (int column = 0; column < k; column += 128)
                    values[(row * k) + column] = 448;
            HostMatrix w = Weights(values, n, k);
            float[] expected = Array.ConvertAll(MatrixOracle.Multiply(x, MatrixOracle.Values(w), m, n, k), v => (float)v);
            foreach (Variant variant in Variants(m, device.IsCuda ? [1, 3] : [1]))
                for (int repeat = 0; repeat < (device.IsCuda ? 20 : 1); repeat++)
                    Assert.Equal(expected, Run(device, w, x, m, variant).Exact);
        }
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void OneHotInputsReadEachCodeFromItsPlace(TestDevice which)
    {
        if (Device(which) is not { } device || !device.IsCuda)
            return;
        const int N = 264, K = 272;
        HostMatrix w = Weights(RandomData.Gaussian(N * K, 7), N, K);
        double[] values = MatrixOracle.Values(w);
        foreach (int m in new[] { 17, 34 })
            for (int first = 0; first < K; first += m)
            {
                var hot = new BFloat16[m * K];
                for (int row = 0; row < m; row++)
                    hot[(row * K) + first + row] = (BFloat16)1f;
                foreach (Variant variant in Variants(m, [2]))
                {
                    float[] y = Run(device, w, hot, m, variant).Exact;
                    for (int row = 0; row < m; row++)
                        for (int column = 0; column < N; column++)
                            Assert.Equal((float)values[(column * K) + first + row], y[(row * N) + column]);
                }
            }
    }

    [Fact]
    public void RowsHaveTheSameBitsInBothTiles()
    {
        if (Device(TestDevice.Cuda) is not { } device)
            return;
        const int M = 32, N = 264, K = 4112;
        HostMatrix w = Weights(RandomData.Gaussian(N * K, 2), N, K);
        BFloat16[] x = RandomData.GaussianBf16(M * K, 3);
        foreach (int teams in HopperSplitKernels.TeamCounts)
            Assert.Equal(Run(device, w, x, M, new Variant(2, 64, teams)).Exact, Run(device, w, x, M, new Variant(2, 32, teams)).Exact);
    }

    [Fact]
    public void RowsHaveTheSameBitsAmong65To128()
    {
        if (Device(TestDevice.Cuda) is not { } device)
            return;
        const int Most = 128, N = 264, K = 14_352;
        BFloat16[] x = RandomData.GaussianBf16(Most * K, 14);
        HostMatrix w = Weights(RandomData.Gaussian(N * K, 15), N, K);
        Assert.True(HopperSplitPlan.Exists(new LinearShape(65, N, K, w.Format, true, 0, w.Block), LinearDevice.Of(device)));
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        using DeviceBuffer<BFloat16> input = device.Upload<BFloat16>(x);
        using DeviceBuffer<float> output = device.Allocate<float>(Most * N);
        float[]? all = null;
        foreach (int m in new[] { 128, 127, 100, 65 })
        {
            Linear.Multiply(device.DefaultStream, weights, input.View, output.View, m);
            float[] y = output.ToArray(device.DefaultStream)[..(m * N)];
            all ??= y;
            Assert.Equal(all[..(m * N)], y);
        }
    }

    // Parts of K, rows of the tile, teams of a block.
    private readonly record struct Variant(int Parts, int Rows, int Teams);

    private static IEnumerable<Variant> Variants(int m, int[] parts) => from count in parts from rows in HopperSplitKernels.RowCounts where m <= rows || rows == HopperSplitKernels.RowCounts.Max() from teams in HopperSplitKernels.TeamCounts select new Variant(count, rows, teams);

    // Null where the card is not a Hopper: its kernels cannot run there, as the plan knows.
    private static GpuDevice? Device(TestDevice which)
    {
        if (which != TestDevice.Cuda)
            return Cpu.Value;
        GpuDevice device = TestDevices.Get(which);
        return device.Target?.Name == "90a" ? device : null;
    }

    private static HostMatrix Weights(float[] values, int n, int k) => Quantizer.Quantize(values, n, k, WeightFormat.Fp8Block, new ScaleBlock(128, 128));

    private static (float[] Exact, BFloat16[] Rounded) Run(GpuDevice device, HostMatrix w, BFloat16[] x, int m, Variant variant)
    {
        HopperSplitPlan plan = HopperSplitPlan.Choose(new LinearShape(m, w.N, w.K, w.Format, true, 0, w.Block), LinearDevice.Of(device), variant.Parts, variant.Rows, variant.Teams);
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        using var input = GuardedBuffer<BFloat16>.Input(device, x);
        using var exact = GuardedBuffer<float>.Output(device, m * w.N);
        using var other = GuardedBuffer<float>.Output(device, m * w.N);
        using var rounded = GuardedBuffer<BFloat16>.Output(device, m * w.N);
        // No bit depends on whose copies come first.
        foreach (int early in new[] { 1, 2 })
        {
            Scratch.Spoil(device.DefaultStream);
            HopperSplitLinear.Launch(device.DefaultStream, weights, input.View, (early == 1 ? other : exact).View.Cast<byte>(), true, (m, 0), plan with { EarlyStages = early });
            Scratch.AssertZeroCounters(device.DefaultStream);
        }
        Assert.Equal(exact.ToArray(), other.ToArray());
        Scratch.Spoil(device.DefaultStream);
        HopperSplitLinear.Launch(device.DefaultStream, weights, input.View, rounded.View.Cast<byte>(), false, (m, 0), plan);
        Scratch.AssertZeroCounters(device.DefaultStream);
        return (exact.ToArray(), rounded.ToArray());
    }
}
