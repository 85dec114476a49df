using ILGPU;

namespace GpuKit.Ilgpu.Tests.Support;

/// <summary>A product with FP8 weights whose K is split, and what it gives when it runs by itself. Few numbers on the CPU.</summary>
internal sealed class SplitProduct : IDisposable
{
    private readonly QuantizedMatrix weights;
    private readonly DeviceBuffer<BFloat16> x;
    private readonly DeviceBuffer<float> y;
    private readonly int rows;
    private readonly SplitPlan? plan;

    /// <param name="device">A card, which chooses kernel and parts itself, or a checking device with 16 warps a block.</param>
    /// <param name="rows">17 to 64.</param>
    /// <param name="seed">Of the numbers.</param>
    public SplitProduct(GpuDevice device, int rows = 18, int seed = 1)
    {
        this.rows = rows;
        (int n, int k) = device.IsCuda ? (2048, 2048) : (16, 192);
        weights = QuantizedMatrix.Upload(device, Quantizer.Quantize(RandomData.Gaussian(n * k, seed), n, k, WeightFormat.Fp8Block));
        x = device.Upload<BFloat16>(RandomData.GaussianBf16(rows * k, seed + 1));
        y = device.Allocate<float>(rows * n);
        var shape = new LinearShape(rows, n, k, WeightFormat.Fp8Block, true, 0, ScaleBlock.Square128);
        LinearDevice kind = LinearDevice.Of(device);
        SplitPlan natural = SplitPlan.Choose(shape, kind);
        plan = device.IsCuda ? null : SplitPlan.Of(natural.Tile, shape, kind, parts: 2);
        Assert.True((plan ?? natural).Parts > 1, $"K of {k} is not split on {device}.");
        double[] oracle = Oracle.MatrixOracle.Multiply(x.ToArray(device.DefaultStream), Oracle.MatrixOracle.Values(Quantizer.Quantize(RandomData.Gaussian(n * k, seed), n, k, WeightFormat.Fp8Block)), rows, n, k);
        using (GpuStream stream = device.CreateStream())
        {
            Launch(stream);
            Expected = Result(stream);
        }
        Compare.Close(Expected, oracle, 1e-5);
    }

    /// <summary>The product, which is that of the oracle.</summary>
    public float[] Expected { get; }

    public void Launch(GpuStream stream)
    {
        if (plan is { } split)
            SplitLinear.Launch(stream, weights, x, y.View.Cast<byte>(), true, (rows, 0), split);
        else
            Linear.Multiply(stream, weights, x, y, rows);
    }

    /// <summary>What the last launch wrote; NaN takes its place.</summary>
    public float[] Result(GpuStream stream)
    {
        float[] result = y.ToArray(stream);
        y.Fill(stream, 0xFF);
        return result;
    }

    public void Dispose()
    {
        weights.Dispose();
        x.Dispose();
        y.Dispose();
    }
}
