using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Ops;

public sealed class GroupedLinearTests
{
    [Theory]
    [CombinatorialDevices(1, 1, "uniform")]
    [CombinatorialDevices(4, 2, "uniform")]
    [CombinatorialDevices(4, 1, "one takes all")]
    [CombinatorialDevices(8, 3, "skewed")]
    [CombinatorialDevices(16, 2, "one row")]
    [CombinatorialDevices(70, 1, "few of many")]
    public void EveryPathMatchesTheOracle(TestDevice which, int experts, int rowsPerInput, string distribution)
    {
        GpuDevice device = TestDevices.Get(which);
        const int N = 35, K = 96;
        int m = (distribution switch { "one row" => 1, "few of many" => 3, _ => 24 }) * rowsPerInput;
        int[] expertOf = Route(m, experts, distribution);
        foreach (WeightFormat format in WeightFormats.All)
        {
            HostMatrix[] matrices = [.. Enumerable.Range(0, experts).Select(e => Quantizer.Quantize(RandomData.Gaussian(N * K, e, 0.1f), N, K, format, new ScaleBlock(32, 64)))];
            BFloat16[] x = RandomData.GaussianBf16(m / rowsPerInput * K, 99);
            double[] expected = Expected(matrices, expertOf, x, rowsPerInput);
            foreach (LinearPath path in new[] { LinearPath.Scalar, LinearPath.Gemv, LinearPath.Gemm, LinearPath.GemmUnaligned }.Where(p => LinearTests.CanRun(device, p)))
                Compare.Close(Run(device, matrices, expertOf, x, (m, rowsPerInput), path), expected, 1e-5);
        }
    }

    /// <summary>More turns along K than any pipeline has stages, several times over, and a last one that is not whole.</summary>
    [Theory]
    [CombinatorialDevices]
    public void LongRowsGoRoundThePipelineManyTimes(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        const int Experts = 3, M = 21;
        (int n, int k) = device.IsCuda ? (131, 1056) : (5, 1056);
        int[] expertOf = Route(M, Experts, "skewed");
        foreach (WeightFormat format in device.IsCuda ? WeightFormats.All : [WeightFormat.Bf16, WeightFormat.Fp8Block])
        {
            HostMatrix[] matrices = [.. Enumerable.Range(0, Experts).Select(e => Quantizer.Quantize(RandomData.Gaussian(n * k, e, 0.1f), n, k, format, new ScaleBlock(32, 64)))];
            BFloat16[] x = RandomData.GaussianBf16(M * k, 99);
            if (LinearTests.CanRun(device, LinearPath.Gemm))
                Compare.Close(Run(device, matrices, expertOf, x, (M, 1), LinearPath.Gemm), Expected(matrices, expertOf, x, 1), 1e-5);
        }
    }

    [Theory]
    [CombinatorialDevices]
    public void ExpertsThatDoNotExistReadNothing(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        HostMatrix[] matrices = [Quantizer.Quantize(RandomData.Gaussian(64, 1), 2, 32, WeightFormat.Bf16)];
        float[] y = Run(device, matrices, [0, 7, -1], RandomData.GaussianBf16(3 * 32, 2), (3, 1), LinearPath.Gemv);
        Assert.False(float.IsNaN(y[0]) || float.IsNaN(y[1]));
        Assert.All(y[2..], v => Assert.True(float.IsNaN(v)));
    }

    /// <summary>Every row of a tile, and a second tile of the same expert; neighbours share inputs, so a row's place in x is not its number.</summary>
    [Theory]
    [CombinatorialDevices(64)]
    [CombinatorialDevices(128)]
    public void AnExpertOfMoreRowsThanATileMatchesTheOracle(TestDevice which, int tileRows)
    {
        GpuDevice device = TestDevices.Get(which);
        if (!LinearTests.CanRun(device, LinearPath.Gemm))
            return;
        const int Experts = 2, M = 162, RowsPerInput = 2, N = 9, K = 96;
        int[] expertOf = [.. Enumerable.Range(0, M).Select(p => p % 11 == 3 ? 0 : 1)];
        foreach (WeightFormat format in WeightFormats.All)
        {
            HostMatrix[] matrices = [.. Enumerable.Range(0, Experts).Select(e => Quantizer.Quantize(RandomData.Gaussian(N * K, e, 0.1f), N, K, format, new ScaleBlock(32, 64)))];
            Assert.True(new LinearShape(M, N, K, format, true, Experts, matrices[0].Block).CanPipeline);
            BFloat16[] x = RandomData.GaussianBf16(M / RowsPerInput * K, 99);
            Compare.Close(Run(device, matrices, expertOf, x, (M, RowsPerInput), LinearPath.Gemm, tileRows == 64 ? GemmTile.M64N128K64 : GemmTile.M128N128K64), Expected(matrices, expertOf, x, RowsPerInput), 1e-5);
        }
    }

    private static int[] Route(int m, int experts, string distribution)
    {
        var random = new Random(5);
        return [.. Enumerable.Range(0, m).Select(_ => distribution switch
        {
            "one takes all" => experts - 1,
            "skewed" => (int)(experts * Math.Pow(random.NextDouble(), 3)),
            _ => random.Next(experts),
        })];
    }

    private static double[] Expected(HostMatrix[] matrices, int[] expertOf, BFloat16[] x, int rowsPerInput)
    {
        int n = matrices[0].N, k = matrices[0].K;
        var y = new double[expertOf.Length * n];
        for (int p = 0; p < expertOf.Length; p++)
            MatrixOracle.Multiply(x.AsSpan(p / rowsPerInput * k, k), MatrixOracle.Values(matrices[expertOf[p]]), 1, n, k).CopyTo(y, p * n);
        return y;
    }

    private static float[] Run(GpuDevice device, HostMatrix[] matrices, int[] expertOf, BFloat16[] x, (int M, int RowsPerInput) size, LinearPath path, GemmTile? tile = null)
    {
        HostMatrix first = matrices[0];
        using var stack = new QuantizedMatrix(device, first.Format, first.N, first.K, matrices.Length, first.Block);
        for (int e = 0; e < matrices.Length; e++)
            stack.Write(e, 0, matrices[e]);
        int[] order = [.. Enumerable.Range(0, expertOf.Length).OrderBy(p => expertOf[p])];
        int[] offsets = [.. Enumerable.Range(0, matrices.Length + 1).Select(e => expertOf.Count(id => id < e))];
        using var experts = GuardedBuffer<int>.Input(device, expertOf);
        using var sorted = GuardedBuffer<int>.Input(device, order);
        using var starts = GuardedBuffer<int>.Input(device, offsets);
        using var input = GuardedBuffer<BFloat16>.Input(device, x);
        using var output = GuardedBuffer<float>.Output(device, size.M * first.N);
        GroupedLinear.Launch(device.DefaultStream, stack, new ExpertRouting(experts.View, sorted.View, starts.View), input.View, output.View.Cast<byte>(), true, new GroupedSize(size.M, size.RowsPerInput), path, tile: tile);
        return output.ToArray();
    }
}
