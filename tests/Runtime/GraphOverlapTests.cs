using GpuKit.Ilgpu.Tests.Support;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Runtime;

/// <summary>Launches that overlap in a graph read nothing too early.</summary>
public sealed class GraphOverlapTests
{
    private const int Size = 512;

    [Fact]
    public void AChainOfProductsInAGraphEqualsTheSameLaunches()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cuda);
        using GpuStream stream = device.CreateStream();
        foreach (WeightFormat format in WeightFormats.All)
        {
            using QuantizedMatrix w = QuantizedMatrix.Upload(device, Quantizer.Quantize(Scaled(3), Size, Size, format));
            foreach (int m in new[] { 1, 16 })
            {
                BFloat16[] x = RandomData.GaussianBf16(m * Size, 5);
                using DeviceBuffer<BFloat16> a = device.Upload<BFloat16>(x), b = device.Upload<BFloat16>(x);
                // Each output is the next input, and overwrites the input of the launch before.
                void Chain()
                {
                    for (int i = 0; i < 50; i++)
                    {
                        Linear.Multiply(stream, w, a, b, m);
                        Linear.Multiply(stream, w, b, a, m);
                    }
                }
                Chain();
                BFloat16[] expected = a.ToArray(stream);
                Assert.All(expected, v => Assert.True(float.IsFinite((float)v)));
                foreach (bool overlap in new[] { true, false })
                {
                    using GpuGraph graph = GpuGraph.Capture(stream, Chain, overlap);
                    for (int replay = 0; replay < 20; replay++)
                    {
                        a.CopyFrom(stream, x);
                        graph.Replay(stream);
                        Assert.Equal(expected, a.ToArray(stream));
                    }
                }
            }
        }
    }

    /// <summary>Products whose blocks arrange their inputs, in the same memory time after time, and warps with many chunks left when that is done.</summary>
    [Fact]
    public void AChainOfProductsWithArrangedInputsInAGraphEqualsTheSameLaunches()
    {
        const int M = 16, Size = 2048;
        GpuDevice device = TestDevices.Get(TestDevice.Cuda);
        using GpuStream stream = device.CreateStream();
        BFloat16[] x = RandomData.GaussianBf16(M * Size, 5);
        using DeviceBuffer<BFloat16> a = device.Upload<BFloat16>(x), b = device.Upload<BFloat16>(x);
        foreach (WeightFormat format in WeightFormats.All.Where(f => f.Info().BitsPerCode == 4))
        {
            using QuantizedMatrix w = QuantizedMatrix.Upload(device, Quantizer.Quantize(Scaled(3, Size), Size, Size, format));
            LinearPlan plan = LinearPlan.Choose(new LinearShape(M, Size, Size, format, true, 0, w.Block), LinearDevice.Of(device), LinearPath.SkinnyGemm) with { Threads = 64 };
            void Chain(bool arranges)
            {
                for (int i = 0; i < 25; i++)
                {
                    SkinnyLinear.Launch(stream, format, Linear.CreateArgs(w, a, b.View.Cast<byte>(), M, 0), plan with { ArrangesInputs = arranges });
                    SkinnyLinear.Launch(stream, format, Linear.CreateArgs(w, b, a.View.Cast<byte>(), M, 0), plan with { ArrangesInputs = arranges });
                }
            }
            a.CopyFrom(stream, x);
            Chain(arranges: false);
            BFloat16[] expected = a.ToArray(stream);
            Assert.All(expected, v => Assert.True(float.IsFinite((float)v)));
            foreach (bool overlap in new[] { true, false })
            {
                using GpuGraph graph = GpuGraph.Capture(stream, () => Chain(arranges: true), overlap);
                for (int replay = 0; replay < 20; replay++)
                {
                    a.CopyFrom(stream, x);
                    graph.Replay(stream);
                    Assert.Equal(expected, a.ToArray(stream));
                }
            }
        }
    }

    /// <summary>Products of 32 and 64 rows, whose blocks add parts of sums through the same memory launch after launch.</summary>
    [Fact]
    public void AChainOfSplitProductsInAGraphEqualsTheSameLaunches()
    {
        const int Wide = 2048, Most = 64;
        GpuDevice device = TestDevices.Get(TestDevice.Cuda);
        using GpuStream stream = device.CreateStream();
        float[] values = Array.ConvertAll(RandomData.Gaussian(Wide * Wide, 3), v => v / MathF.Sqrt(Wide));
        BFloat16[] x = RandomData.GaussianBf16(Most * Wide, 5);
        using DeviceBuffer<BFloat16> a = device.Upload<BFloat16>(x), b = device.Upload<BFloat16>(x);
        foreach (WeightFormat format in WeightFormats.All.Where(SplitKernels.Exist))
        {
            using QuantizedMatrix w = QuantizedMatrix.Upload(device, Quantizer.Quantize(values, Wide, Wide, format));
            foreach (int m in new[] { 32, Most })
            {
                Assert.True(SplitPlan.Choose(new LinearShape(m, Wide, Wide, format, true, 0, w.Block), LinearDevice.Of(device)).Parts > 1);
                void Chain()
                {
                    for (int i = 0; i < 20; i++)
                    {
                        Linear.Launch(stream, w, a, b.View.Cast<byte>(), false, (m, 0), LinearPath.SplitGemm);
                        Linear.Multiply(stream, w, b, a, m);
                    }
                }
                a.CopyFrom(stream, x);
                Chain();
                BFloat16[] expected = a.ToArray(stream);
                Assert.All(expected, v => Assert.True(float.IsFinite((float)v)));
                using GpuGraph graph = GpuGraph.Capture(stream, Chain);
                for (int replay = 0; replay < 10; replay++)
                {
                    a.CopyFrom(stream, x);
                    graph.Replay(stream);
                    Assert.Equal(expected, a.ToArray(stream));
                }
            }
        }
    }

    [Fact]
    public void WeightsThatAGraphWritesAreThereBeforeTheyAreRead()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cuda);
        using GpuStream stream = device.CreateStream();
        float[][] values = [Scaled(7), Scaled(8)];
        using DeviceBuffer<float> first = device.Upload<float>(values[0]), second = device.Upload<float>(values[1]);
        using DeviceBuffer<BFloat16> x = device.Upload<BFloat16>(RandomData.GaussianBf16(Size, 9)), y = device.Allocate<BFloat16>(Size), z = device.Allocate<BFloat16>(Size);
        foreach (WeightFormat format in WeightFormats.All)
        {
            using QuantizedMatrix w = new(device, format, Size, Size);
            void Requantize()
            {
                Quantizer.Quantize(stream, first, w);
                Linear.Multiply(stream, w, x, y, 1);
                Linear.Multiply(stream, w, x, y, 1);
                Quantizer.Quantize(stream, second, w);
                Linear.Multiply(stream, w, x, z, 1);
            }
            Requantize();
            BFloat16[] expectedY = y.ToArray(stream), expectedZ = z.ToArray(stream);
            Assert.NotEqual(expectedY, expectedZ);
            using GpuGraph graph = GpuGraph.Capture(stream, Requantize);
            for (int replay = 0; replay < 20; replay++)
            {
                graph.Replay(stream);
                Assert.Equal(expectedY, y.ToArray(stream));
                Assert.Equal(expectedZ, z.ToArray(stream));
            }
        }
    }

    // Products of about the input's size: a long chain neither vanishes nor overflows.
    private static float[] Scaled(int seed, int size = Size) => Array.ConvertAll(RandomData.Gaussian(size * size, seed), v => v / MathF.Sqrt(size));
}
