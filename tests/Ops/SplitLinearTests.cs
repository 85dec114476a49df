using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Products of 17 to 256 rows whose K is split, in every kernel and number of parts, against the double oracle, with guard bands and NaN around all tensors.</summary>
public sealed class SplitLinearTests
{
    private const double Tolerance = 1e-5;

    private static readonly WeightFormat[] Formats = [WeightFormat.Bf16, WeightFormat.Fp8Block, WeightFormat.Nvfp4, WeightFormat.Int4, WeightFormat.Int4Zero];

    // Up to 16 warps a block.
    private static readonly Lazy<GpuDevice> Cpu = new(() => TestDevices.Open(TestDevice.CpuWarp32, warps: 16));

    // Around tiles of 64 and 128 rows of W and of 64 rows of x, turns of 64 columns, and parts that have more turns than others or none for a team.
    private static readonly (int M, int N, int K)[] CardShapes =
    [
        (17, 8, 32), (31, 127, 64), (32, 128, 96), (33, 129, 672), (48, 136, 1056), (63, 255, 2080), (64, 257, 4128), (64, 1000, 1312),
        (65, 191, 672), (127, 129, 1056), (128, 264, 2080), (150, 72, 288), (193, 65, 160), (256, 256, 1312),
    ];

    public static TheoryData<TestDevice, WeightFormat> Cases()
    {
        var data = new TheoryData<TestDevice, WeightFormat>();
        foreach (TestDevice device in TestDevices.Chosen.Where(d => d != TestDevice.Cpu))
            foreach (WeightFormat format in Formats)
                data.Add(device, format);
        return data;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void EveryKernelMatchesTheOracle(TestDevice which, WeightFormat format)
    {
        GpuDevice device = Device(which);
        foreach (SplitTile tile in Tiles(device, format))
        {
            (int M, int N, int K)[] shapes = device.IsCuda ? CardShapes : tile.Rows == 32 ? [(19, 135, 864)] : tile.Columns == 128 ? [(45, 9, 992)] : [(67, 9, 352)];
            foreach ((int m, int n, int k) in shapes.Where(s => s.M <= tile.Rows || tile.Rows == SplitPlan.MostRows))
            {
                HostMatrix w = Quantizer.Quantize(RandomData.Gaussian(n * k, n + k, 0.1f), n, k, format, new ScaleBlock(32, 64));
                BFloat16[] x = RandomData.GaussianBf16(m * k, m + k);
                double[] expected = MatrixOracle.Multiply(x, MatrixOracle.Values(w), m, n, k);
                foreach (int parts in device.IsCuda ? new[] { 1, 2, 3, 5, 8 } : [3])
                {
                    float[] exact = Run(device, w, x, m, tile, parts);
                    Compare.Close(exact, expected, Tolerance);
                    Assert.Equal(Array.ConvertAll(exact, v => (BFloat16)v), Rounded(device, w, x, m, tile, parts));
                }
            }
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void SmallIntegersAreExactAndRepeatable(TestDevice which, WeightFormat format)
    {
        GpuDevice device = Device(which);
        (int m, int n, int k) = device.IsCuda ? (30, 392, 2080) : (18, 40, 288);
        BFloat16[] x = RandomData.SmallIntegersBf16(m * k, 1);
        HostMatrix w = LinearTests.IntegerWeights(format, n, k);
        float[] expected = Array.ConvertAll(MatrixOracle.Multiply(x, MatrixOracle.Values(w), m, n, k), v => (float)v);
        foreach (SplitTile tile in Tiles(device, format))
            for (int repeat = 0; repeat < (device.IsCuda ? 10 : 1); repeat++)
                Assert.Equal(expected, Run(device, w, x, m, tile, 2));
    }

    // Row k of x selects column k: y[k, n] must be W[n, k], a value that names its place.
    [Theory]
    [MemberData(nameof(Cases))]
    public void OneHotInputsReadEachWeightFromItsPlace(TestDevice which, WeightFormat format)
    {
        GpuDevice device = Device(which);
        const int N = 136;
        // Two turns and one, and both sides of a block of scales; the card has five turns.
        int k = device.IsCuda ? 320 : 192;
        HostMatrix w = Quantizer.Quantize(RandomData.Gaussian(N * k, 7), N, k, format, new ScaleBlock(32, 128));
        double[] values = MatrixOracle.Values(w);
        foreach (SplitTile tile in Tiles(device, format).Where(t => device.IsCuda || t is { Rows: 64, Threads: < 384 }))
        {
            for (int first = 0; first < k; first += tile.Rows)
            {
                var x = new BFloat16[tile.Rows * k];
                for (int row = 0; row < tile.Rows; row++)
                    x[(row * k) + first + row] = (BFloat16)1f;
                float[] y = Run(device, w, x, tile.Rows, tile, 2);
                for (int row = 0; row < tile.Rows; row++)
                    for (int n = 0; n < N; n++)
                        Assert.Equal((float)values[(n * k) + first + row], y[(row * N) + n]);
            }
        }
    }

    // Sums that meet no others need no memory to meet in.
    [Theory]
    [InlineData(1, false)]
    [InlineData(2, true)]
    public void OnlyPartsTakeTheStreamsScratch(int parts, bool takes)
    {
        GpuDevice device = Cpu.Value;
        HostMatrix w = Quantizer.Quantize(RandomData.Gaussian(16 * 192, 1), 16, 192, WeightFormat.Int4);
        SplitTile tile = Tiles(device, WeightFormat.Int4).First(t => t is { Rows: 32, IsNarrow: true });
        SplitPlan plan = SplitPlan.Of(tile, new LinearShape(17, w.N, w.K, w.Format, true, 0, w.Block), LinearDevice.Of(device), parts);
        Assert.Equal(parts, plan.Parts);
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        using DeviceBuffer<BFloat16> x = device.Upload<BFloat16>(RandomData.GaussianBf16(17 * w.K, 2));
        using DeviceBuffer<float> y = device.Allocate<float>(17 * w.N);
        using GpuStream stream = device.CreateStream();
        long before = device.Ledger.ScratchBytes;
        SplitLinear.Launch(stream, weights, x, y.View.Cast<byte>(), true, (17, 0), plan);
        stream.Synchronize();
        Assert.Equal(takes, device.Ledger.ScratchBytes > before);
    }

    private static GpuDevice Device(TestDevice which) => which == TestDevice.Cuda ? TestDevices.Get(which) : Cpu.Value;

    private static IEnumerable<SplitTile> Tiles(GpuDevice device, WeightFormat format) =>
        SplitKernels.Tiles(format).Where(t => t.Fits(LinearDevice.Of(device)));

    private static float[] Run(GpuDevice device, HostMatrix w, BFloat16[] x, int m, SplitTile tile, int parts) => Run<float>(device, w, x, m, tile, parts);

    private static BFloat16[] Rounded(GpuDevice device, HostMatrix w, BFloat16[] x, int m, SplitTile tile, int parts) => Run<BFloat16>(device, w, x, m, tile, parts);

    private static TOutput[] Run<TOutput>(GpuDevice device, HostMatrix w, BFloat16[] x, int m, SplitTile tile, int parts)
        where TOutput : unmanaged
    {
        SplitPlan plan = SplitPlan.Of(tile, new LinearShape(m, w.N, w.K, w.Format, true, 0, w.Block), LinearDevice.Of(device), parts);
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        using var input = GuardedBuffer<BFloat16>.Input(device, x);
        using var output = GuardedBuffer<TOutput>.Output(device, m * w.N);
        SplitLinear.Launch(device.DefaultStream, weights, input.View, output.View.Cast<byte>(), typeof(TOutput) == typeof(float), (m, 0), plan);
        return output.ToArray();
    }
}
