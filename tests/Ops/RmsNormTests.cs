using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

public sealed class RmsNormTests
{
    private const float Epsilon = 1e-6f;

    [Theory]
    [CombinatorialDevices(1, 1)]
    [CombinatorialDevices(3, 7)]
    [CombinatorialDevices(2, 31)]
    [CombinatorialDevices(2, 32)]
    [CombinatorialDevices(5, 33)]
    [CombinatorialDevices(2, 127)]
    [CombinatorialDevices(2, 128)]
    [CombinatorialDevices(2, 129)]
    [CombinatorialDevices(3, 2048)]
    public void BothFormsMatchTheOracle(TestDevice which, int rows, int width)
    {
        GpuDevice device = TestDevices.Get(which);
        float[] x = RandomData.Gaussian(rows * width, seed: width, factor: 20), add = RandomData.Gaussian(rows * width, seed: 1);
        BFloat16[] g = RandomData.GaussianBf16(width, seed: 2);
        float[] sums = [.. x.Zip(add, (a, b) => a + b)];
        using var input = GuardedBuffer<float>.Input(device, x);
        using var addend = GuardedBuffer<float>.Input(device, add);
        using var gain = GuardedBuffer<BFloat16>.Input(device, g);
        using var plain = GuardedBuffer<BFloat16>.Output(device, rows * width);
        using var added = GuardedBuffer<BFloat16>.Output(device, rows * width);
        var shape = new RmsNormShape(rows, width, Epsilon);

        RmsNorm.Apply(device.DefaultStream, input.View, gain.View, plain.View, shape);
        Assert.Equal(x, input.ToArray());
        RmsNorm.AddAndApply(device.DefaultStream, input.View, addend.View, gain.View, added.View, shape);

        Assert.Equal(sums, input.ToArray());
        Compare.Close(plain.ToArray(), Oracle(x, g, rows, width), 2.5e-3);
        Compare.Close(added.ToArray(), Oracle(sums, g, rows, width), 2.5e-3);
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void RowsAreIndependentAndRepeatable(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        const int Rows = 5, Width = 130;
        float[] x = RandomData.Gaussian(Rows * Width, seed: 4);
        x[Width + 3] = float.NaN;
        using var input = GuardedBuffer<float>.Input(device, x);
        using var gain = GuardedBuffer<BFloat16>.Input(device, RandomData.GaussianBf16(Width, seed: 5));
        using var all = GuardedBuffer<BFloat16>.Output(device, Rows * Width);
        using var alone = GuardedBuffer<BFloat16>.Output(device, Width);

        RmsNorm.Apply(device.DefaultStream, input.View, gain.View, all.View, new(Rows, Width, Epsilon));

        BFloat16[] y = all.ToArray();
        for (int r = 0; r < Rows; r++)
        {
            RmsNorm.Apply(device.DefaultStream, input.View.SubView(r * Width, Width), gain.View, alone.View, new(1, Width, Epsilon));
            Assert.Equal(y[(r * Width)..((r + 1) * Width)], alone.ToArray());
            Assert.All(alone.ToArray(), v => Assert.Equal(r == 1, BFloat16.IsNaN(v)));
        }
    }

    [Fact]
    public void BadArgumentsAreRefusedAndNoRowsAreNothing()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        using DeviceBuffer<float> x = device.Allocate<float>(4);
        using DeviceBuffer<BFloat16> y = device.Allocate<BFloat16>(4);
        RmsNorm.Apply(device.DefaultStream, default, default, default, new(0, 8, Epsilon));
        Assert.Throws<ArgumentException>(() => RmsNorm.Apply(device.DefaultStream, x, y, y, new(2, 4, Epsilon)));
        Assert.Throws<ArgumentOutOfRangeException>(() => RmsNorm.Apply(device.DefaultStream, x, y, y, new(1, 4, -1)));
        Assert.Throws<ArgumentOutOfRangeException>(() => RmsNorm.Apply(device.DefaultStream, x, y, y, new(-1, 4, Epsilon)));
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void WhetherWordsOrElementsAreLoadedChangesNoBit(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        foreach (int width in new[] { 4, 128, 2048, 9000 })
        {
            using var x = GuardedBuffer<float>.Input(device, RandomData.Gaussian(width + 1, seed: 6));
            using var shifted = GuardedBuffer<float>.Input(device, [0, .. x.ToArray()]);
            using var gain = GuardedBuffer<BFloat16>.Input(device, RandomData.GaussianBf16(width, seed: 7));
            using var words = GuardedBuffer<BFloat16>.Output(device, width);
            using var elements = GuardedBuffer<BFloat16>.Output(device, width);
            var shape = new RmsNormShape(1, width, Epsilon);

            RmsNorm.Apply(device.DefaultStream, x.View, gain.View, words.View, shape);
            RmsNorm.Apply(device.DefaultStream, shifted.View.SubView(1, width), gain.View, elements.View, shape);

            Assert.Equal(words.ToArray(), elements.ToArray());
        }
    }

    private static double[] Oracle(float[] x, BFloat16[] gain, int rows, int width)
    {
        var y = new double[rows * width];
        for (int r = 0; r < rows; r++)
        {
            double squares = 0;
            for (int i = 0; i < width; i++)
                squares += (double)x[(r * width) + i] * x[(r * width) + i];
            for (int i = 0; i < width; i++)
                y[(r * width) + i] = x[(r * width) + i] / Math.Sqrt((squares / width) + Epsilon) * (float)gain[i];
        }
        return y;
    }
}
