using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>FP8 weights times BF16 activations with the instructions of sm_90a, against the double oracle: on a Hopper card, and with little work on the CPU.</summary>
public sealed class HopperMixedLinearTests
{
    // Tensor cores add BF16 products with a few bits less than float32.
    private const double Tolerance = 1e-5;

    private static readonly int[] TileRows = [64, 128, 160, 176, 192];

    // The kernel needs twelve warps a block; the device wants a power of two.
    private static readonly Lazy<GpuDevice> Cpu = new(() => TestDevices.Open(TestDevice.CpuWarp32, warps: 16));

    // Around tiles of 64, 128, 160, 176 and 192 rows, 128 columns and steps of 128 columns of K; several tiles a block.
    private static readonly (int M, int N, int K)[] CardShapes =
    [
        (1, 8, 16), (63, 64, 64), (64, 72, 80), (65, 120, 128), (127, 128, 144), (129, 136, 256), (160, 96, 272), (161, 8, 128), (175, 72, 144), (176, 128, 272), (177, 136, 128), (191, 184, 272), (192, 192, 512),
        (193, 264, 528), (300, 264, 1040), (17, 520, 4112), (1000, 1032, 656), (4096, 256, 128), (70, 40_000, 64),
    ];

    private static readonly (int M, int N, int K)[] CpuShapes = [(3, 8, 16), (150, 72, 144), (170, 40, 144)];

    public static TheoryData<TestDevice> Devices() => [.. TestDevices.Chosen.Where(d => d != TestDevice.Cpu)];

    [Theory]
    [MemberData(nameof(Devices))]
    public void EveryTileMatchesTheOracle(TestDevice which)
    {
        if (Device(which) is not { } device)
            return;
        foreach ((int m, int n, int k) in which == TestDevice.Cuda ? CardShapes : CpuShapes)
        {
            BFloat16[] x = RandomData.GaussianBf16(m * k, 1);
            HostMatrix w = Weights(RandomData.Gaussian(n * k, 2), n, k);
            double[] expected = MatrixOracle.Multiply(x, MatrixOracle.Values(w), m, n, k);
            foreach (int tile in Tiles(which))
            {
                (float[] exact, BFloat16[] rounded) = Run(device, tile, w, x, m);
                Compare.Close(exact, expected, Tolerance);
                for (int i = 0; i < exact.Length; i++)
                    if (((BFloat16)exact[i]).Bits != rounded[i].Bits)
                        Assert.Fail($"Tile {tile}, [{m}, {n}, {k}]: element {i} is {exact[i]} in float32 and {rounded[i]} in BF16.");
            }
        }
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void EveryNumberOfRowsIsRight(TestDevice which)
    {
        if (Device(which) is not { } device || which != TestDevice.Cuda)
            return;
        const int Most = 257, N = 136, K = 144;
        BFloat16[] x = RandomData.GaussianBf16(Most * K, 3);
        HostMatrix w = Weights(RandomData.Gaussian(N * K, 4), N, K);
        double[] expected = MatrixOracle.Multiply(x, MatrixOracle.Values(w), Most, N, K);
        foreach (int m in Enumerable.Range(1, 80).Concat([127, 128, 129, 159, 160, 161, 175, 176, 177, 191, 192, 193, 255, 256, 257]))
            foreach (int tile in TileRows)
                Compare.Close(Run(device, tile, w, x[..(m * K)], m).Exact, expected.AsSpan(0, m * N), Tolerance);
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void SmallIntegersAreExactAndRepeatable(TestDevice which)
    {
        if (Device(which) is not { } device)
            return;
        (int m, int n, int k) = which == TestDevice.Cuda ? (333, 776, 1328) : (5, 16, 272);
        BFloat16[] x = RandomData.SmallIntegersBf16(m * k, 1);
        // A scale of 1 in every block: its largest magnitude is that of the format.
        float[] values = Array.ConvertAll(RandomData.SmallIntegersBf16(n * k, 2), v => (float)v);
        for (int row = 0; row < n; row++)
            for (int column = 0; column < k; column += 128)
                values[(row * k) + column] = 448;
        HostMatrix w = Weights(values, n, k);
        float[] expected = Array.ConvertAll(MatrixOracle.Multiply(x, MatrixOracle.Values(w), m, n, k), v => (float)v);
        foreach (int tile in Tiles(which))
            for (int repeat = 0; repeat < (which == TestDevice.Cuda ? 20 : 1); repeat++)
                Assert.True(expected.AsSpan().SequenceEqual(Run(device, tile, w, x, m).Exact), $"tile {tile}, repeat {repeat}");
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void OneHotInputsReadEachCodeFromItsPlace(TestDevice which)
    {
        if (Device(which) is not { } device)
            return;
        (int n, int k) = which == TestDevice.Cuda ? (264, 272) : (136, 144);
        HostMatrix w = Weights(RandomData.Gaussian(n * k, 7), n, k);
        double[] values = MatrixOracle.Values(w);
        var hot = new BFloat16[k * k];
        for (int i = 0; i < k; i++)
            hot[(i * k) + i] = (BFloat16)1f;
        foreach (int tile in Tiles(which))
        {
            float[] y = Run(device, tile, w, hot, k).Exact;
            for (int row = 0; row < k; row++)
                for (int column = 0; column < n; column++)
                    Assert.Equal((float)values[(column * k) + row], y[(row * n) + column]);
        }
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void EveryCodeIsDecodedExactly(TestDevice which)
    {
        if (Device(which) is not { } device)
            return;
        // Row n of W has the code n wherever the input is one; NaN codes never get this far (loading refuses them).
        const int K = 16;
        byte[] codes = [.. Enumerable.Range(0, 256).Where(c => (c & 0x7F) != 0x7F).Select(c => (byte)c)];
        int n = (codes.Length + 7) / 8 * 8;
        float[] values = [.. Enumerable.Range(0, n * K).Select(i => i % K == 0 ? i / K < codes.Length ? (float)MatrixOracle.E4M3[codes[i / K]] : 0 : 448f)];
        HostMatrix w = Weights(values, n, K);
        var x = new BFloat16[K];
        x[0] = (BFloat16)1f;
        float[] y = Run(device, 64, w, x, 1).Exact;
        for (int i = 0; i < codes.Length; i++)
            Assert.Equal(values[i * K], y[i]);
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void WhereATileIsCutChangesNoBit(TestDevice which)
    {
        if (Device(which) is not { } device)
            return;
        int shared = 0;
        // Tiles left over for 3 to 8 blocks, of which two each share one.
        foreach ((int m, int n, int k) in which == TestDevice.Cuda ? new[] { (65, 520, 272), (200, 1160, 1040), (500, 264, 2320), (1000, 776, 912) } : [(20, 400, 272)])
        {
            BFloat16[] x = RandomData.GaussianBf16(m * k, 10);
            HostMatrix w = Weights(RandomData.Gaussian(n * k, 11), n, k);
            double[] expected = MatrixOracle.Multiply(x, MatrixOracle.Values(w), m, n, k);
            foreach (int tile in which == TestDevice.Cuda ? TileRows : [64])
            {
                float[] alone = Run(device, Plan(tile, w, m, int.MaxValue), w, x, m).Exact;
                Compare.Close(alone, expected, Tolerance);
                foreach (int multiprocessors in which == TestDevice.Cuda ? new[] { 3, 4, 5, 7, 8 } : [3])
                {
                    HopperMixedPlan plan = Plan(tile, w, m, multiprocessors);
                    shared += plan.SharedTiles;
                    for (int repeat = 0; repeat < (plan.SharedTiles > 0 && which == TestDevice.Cuda ? 10 : 1); repeat++)
                        Assert.Equal(alone, Run(device, plan, w, x, m).Exact);
                }
            }
        }
        Assert.True(shared > 0);
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void ExpertsHaveTheirOwnRows(TestDevice which)
    {
        if (Device(which) is not { } device)
            return;
        (int m, int n, int k)[] shapes = which == TestDevice.Cuda ? [(1, 136, 144), (700, 136, 144), (2000, 264, 256)] : [(70, 8, 16)];
        foreach ((int m, int n, int k) in shapes)
            foreach (int experts in which == TestDevice.Cuda ? new[] { 1, 8, 128 } : [3])
                foreach (string spread in new[] { "even", "one takes all", "skewed" })
                    CheckExperts(device, which, m, n, k, experts, spread);
    }

    private static void CheckExperts(GpuDevice device, TestDevice which, int m, int n, int k, int experts, string spread)
    {
        const int RowsPerInput = 1;
        var random = new Random(m + experts);
        int[] expertOf = [.. Enumerable.Range(0, m).Select(_ => spread switch { "even" => random.Next(experts), "one takes all" => experts - 1, _ => (int)(experts * Math.Pow(random.NextDouble(), 4)) })];
        int[] order = [.. Enumerable.Range(0, m).OrderBy(p => expertOf[p])];
        int[] offsets = [.. Enumerable.Range(0, experts + 1).Select(e => expertOf.Count(id => id < e))];
        HostMatrix[] matrices = [.. Enumerable.Range(0, experts).Select(e => Weights(RandomData.Gaussian(n * k, e), n, k))];
        BFloat16[] x = RandomData.GaussianBf16(m * k, 9);
        var expected = new double[m * n];
        for (int p = 0; p < m; p++)
            MatrixOracle.Multiply(x.AsSpan(p * k, k), MatrixOracle.Values(matrices[expertOf[p]]), 1, n, k).CopyTo(expected, p * n);
        using var stack = new QuantizedMatrix(device, WeightFormat.Fp8Block, n, k, experts, new ScaleBlock(128, 128));
        for (int e = 0; e < experts; e++)
            stack.Write(e, 0, matrices[e]);
        using var sortedRows = GuardedBuffer<int>.Input(device, order);
        using var starts = GuardedBuffer<int>.Input(device, offsets);
        using var input = GuardedBuffer<BFloat16>.Input(device, x);
        using var gathered = GuardedBuffer<BFloat16>.Output(device, m * k);
        using var scattered = GuardedBuffer<float>.Output(device, m * n);
        using var sorted = GuardedBuffer<BFloat16>.Output(device, m * n);
        var routing = new ExpertRouting(sortedRows.View, sortedRows.View, starts.View);
        GatherRows.Apply(device.DefaultStream, routing.Order, input.View, gathered.View, m, RowsPerInput, k);
        foreach (int tile in Tiles(which))
        {
            HopperMixedLinear.LaunchGrouped(device.DefaultStream, stack, routing, gathered.View, scattered.View.Cast<byte>(), true, m, scatters: true, tile);
            HopperMixedLinear.LaunchGrouped(device.DefaultStream, stack, routing, gathered.View, sorted.View.Cast<byte>(), false, m, scatters: false, tile);
            float[] y = scattered.ToArray();
            Compare.Close(y, expected, Tolerance);
            BFloat16[] places = sorted.ToArray();
            for (int i = 0; i < m; i++)
                for (int column = 0; column < n; column++)
                    Assert.Equal(((BFloat16)y[(order[i] * n) + column]).Bits, places[(i * n) + column].Bits);
        }
    }

    private static int[] Tiles(TestDevice which) => which == TestDevice.Cuda ? TileRows : [192];

    // Null where the card is not a Hopper: its kernels cannot run there, as the plan knows.
    private static GpuDevice? Device(TestDevice which)
    {
        if (which != TestDevice.Cuda)
            return Cpu.Value;
        GpuDevice device = TestDevices.Get(which);
        return device.Target?.Name == "90a" ? device : null;
    }

    private static HostMatrix Weights(float[] values, int n, int k) => Quantizer.Quantize(values, n, k, WeightFormat.Fp8Block, new ScaleBlock(128, 128));

    private static HopperMixedPlan Plan(int tile, HostMatrix w, int m, int multiprocessors) =>
        HopperMixedPlan.Of(tile, new LinearShape(m, w.N, w.K, w.Format, true, 0, w.Block), multiprocessors);

    private static (float[] Exact, BFloat16[] Rounded) Run(GpuDevice device, int tile, HostMatrix w, BFloat16[] x, int m) =>
        Run(device, Plan(tile, w, m, device.MultiprocessorCount), w, x, m);

    private static (float[] Exact, BFloat16[] Rounded) Run(GpuDevice device, HopperMixedPlan plan, HostMatrix w, BFloat16[] x, int m)
    {
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        using var input = GuardedBuffer<BFloat16>.Input(device, x);
        using var exact = GuardedBuffer<float>.Output(device, m * w.N);
        using var rounded = GuardedBuffer<BFloat16>.Output(device, m * w.N);
        Scratch.Spoil(device.DefaultStream);
        HopperMixedLinear.Launch(device.DefaultStream, weights, input.View, exact.View.Cast<byte>(), true, (m, 0), plan);
        Scratch.AssertZeroCounters(device.DefaultStream);
        Scratch.Spoil(device.DefaultStream);
        HopperMixedLinear.Launch(device.DefaultStream, weights, input.View, rounded.View.Cast<byte>(), false, (m, 0), plan);
        Scratch.AssertZeroCounters(device.DefaultStream);
        return (exact.ToArray(), rounded.ToArray());
    }
}
