using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

public sealed class GatedActivationTests
{
    [Theory]
    [CombinatorialDevices(1, 1)]
    [CombinatorialDevices(1, 7)]
    [CombinatorialDevices(3, 33)]
    [CombinatorialDevices(5, 128)]
    public void MatchesTheOracle(TestDevice which, int rows, int width)
    {
        GpuDevice device = TestDevices.Get(which);
        BFloat16[] gateUp = RandomData.GaussianBf16(rows * 2 * width, seed: rows + width, factor: 3);
        using var input = GuardedBuffer<BFloat16>.Input(device, gateUp);
        using var output = GuardedBuffer<BFloat16>.Output(device, rows * width);

        GatedActivation.Apply(device.DefaultStream, input.View, output.View, rows, width);

        Compare.Close(output.ToArray(), Oracle(gateUp, rows, width), 2e-3);
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void LargeGatesNeitherOverflowNorVanish(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        BFloat16[] gateUp = Array.ConvertAll([-1e30f, -100f, 100f, 1e30f, 2, 2, 2, 2f], x => (BFloat16)x);
        using var input = GuardedBuffer<BFloat16>.Input(device, gateUp);
        using var output = GuardedBuffer<BFloat16>.Output(device, 4);

        GatedActivation.Apply(device.DefaultStream, input.View, output.View, 1, 4);

        float[] y = Compare.ToFloat(output.ToArray());
        Assert.Equal(0, y[0]);
        Assert.InRange(y[1], -1e-40f, 0);
        Assert.Equal(200, y[2]);
        Assert.Equal((float)(BFloat16)2e30f, y[3]);
    }

    [Fact]
    public void NothingHappensForZeroRowsAndShortViewsAreRefused()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        using DeviceBuffer<BFloat16> small = device.Allocate<BFloat16>(4);
        GatedActivation.Apply(device.DefaultStream, default, default, 0, 8);
        var e = Assert.Throws<ArgumentException>(() => GatedActivation.Apply(device.DefaultStream, small, small, 1, 4));
        Assert.Contains("[1, 8] needs 8", e.Message, StringComparison.Ordinal);
    }

    private static double[] Oracle(BFloat16[] gateUp, int rows, int width)
    {
        var y = new double[rows * width];
        for (int r = 0; r < rows; r++)
        {
            for (int i = 0; i < width; i++)
            {
                double gate = (float)gateUp[(r * 2 * width) + i], up = (float)gateUp[(r * 2 * width) + width + i];
                y[(r * width) + i] = gate / (1 + Math.Exp(-gate)) * up;
            }
        }
        return y;
    }
}
