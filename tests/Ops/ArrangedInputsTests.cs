using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Products whose blocks arrange x: the same bits as without.</summary>
public sealed class ArrangedInputsTests
{
    // A block or more of rows, and of warps a block; whole chunks of 128 columns, and a ragged last one; chunks for some warps only, and many for each. With one block x is arranged as soon as that has arrived.
    private static readonly (int M, int N, int K, int Warps)[] Shapes = [(9, 64, 256, 4), (16, 64, 1312, 2), (11, 32, 128, 4), (12, 32, 4128, 2), (5, 32, 3104, 2), (1, 32, 2048, 1), (16, 96, 2208, 1)];

    public static TheoryData<TestDevice, WeightFormat> Cases()
    {
        var data = new TheoryData<TestDevice, WeightFormat>();
        foreach (TestDevice device in TestDevices.Chosen.Where(d => d != TestDevice.Cpu))
            foreach (WeightFormat format in WeightFormats.All.Where(f => f.Info().BitsPerCode == 4))
                data.Add(device, format);
        return data;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void GiveTheSameBits(TestDevice which, WeightFormat format)
    {
        GpuDevice device = TestDevices.Get(which);
        foreach ((int m, int n, int k, int warps) in Shapes)
        {
            using QuantizedMatrix w = QuantizedMatrix.Upload(device, Quantizer.Quantize(RandomData.Gaussian(n * k, 1), n, k, format));
            using DeviceBuffer<BFloat16> x = device.Upload<BFloat16>(RandomData.GaussianBf16(m * k, 2));
            using DeviceBuffer<float> plain = device.Allocate<float>(m * n), arranged = device.Allocate<float>(m * n);
            Launch(w, x, plain, m, arranges: false, warps);
            // What an earlier product left in the scratch is not read.
            device.DefaultStream.Scratch.Partials.Fill(device.DefaultStream, 0x7F);
            for (int turn = 0; turn < 2; turn++)
            {
                Launch(w, x, arranged, m, arranges: true, warps);
                Assert.Equal(plain.ToArray(device.DefaultStream), arranged.ToArray(device.DefaultStream));
                Assert.All(device.DefaultStream.Scratch.Counters.ToArray(device.DefaultStream), count => Assert.Equal(0, count));
            }
        }
    }

    // Launches of both kinds by many threads on one stream: none finds another's inputs in the scratch that they share.
    [Theory]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void ThreadsOnOneStreamDoNotMixTheirInputs(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        const int M = 16, N = 64, K = 256, Threads = 4, Turns = 5;
        using GpuStream stream = device.CreateStream();
        using QuantizedMatrix w = QuantizedMatrix.Upload(device, Quantizer.Quantize(RandomData.Gaussian(N * K, 1), N, K, WeightFormat.Int4));
        float[][] expected = new float[Threads][], actual = new float[Threads][];
        Parallel.For(0, Threads, i =>
        {
            using DeviceBuffer<BFloat16> x = device.Upload<BFloat16>(RandomData.GaussianBf16(M * K, 10 + i));
            using DeviceBuffer<float> y = device.Allocate<float>(M * N);
            Launch(w, x, y, M, arranges: false, warps: 4);
            expected[i] = y.ToArray(device.DefaultStream);
            for (int turn = 0; turn < Turns; turn++)
                Launch(w, x, y, M, arranges: true, warps: 4, stream);
            actual[i] = y.ToArray(stream);
        });
        Assert.Equal(expected, actual);
    }

    private static void Launch(QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<float> y, int m, bool arranges, int warps, GpuStream? stream = null)
    {
        LinearDevice device = LinearDevice.Of(w.Device);
        var shape = new LinearShape(m, w.N, w.K, w.Format, true, 0, w.Block);
        Assert.True(SkinnyLinear.CanArrange(shape, device));
        LinearPlan plan = LinearPlan.Choose(shape, device, LinearPath.SkinnyGemm) with { ArrangesInputs = arranges, Threads = 32 * warps };
        SkinnyLinear.Launch(stream ?? w.Device.DefaultStream, w.Format, Linear.CreateArgs(w, x, y.Cast<byte>(), m, 0, float32: true), plan);
    }
}
