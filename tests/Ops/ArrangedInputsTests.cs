using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Products whose inputs a launch of their own arranges: the same bits as without.</summary>
public sealed class ArrangedInputsTests
{
    // Whole chunks of 128 columns, a ragged last one, less than one; more warps than chunks and fewer.
    private static readonly (int M, int N, int K)[] Shapes = [(9, 33, 256), (16, 40, 1312), (11, 1, 32), (12, 17, 4128), (16, 96, 160)];

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
        foreach ((int m, int n, int k) in Shapes)
        {
            using QuantizedMatrix w = QuantizedMatrix.Upload(device, Quantizer.Quantize(RandomData.Gaussian(n * k, 1), n, k, format));
            using DeviceBuffer<BFloat16> x = device.Upload<BFloat16>(RandomData.GaussianBf16(m * k, 2));
            using DeviceBuffer<float> plain = device.Allocate<float>(m * n), arranged = device.Allocate<float>(m * n);
            Launch(w, x, plain, m, arranges: false);
            // What an earlier product left in the scratch is not read.
            device.DefaultStream.Scratch.Partials.Fill(device.DefaultStream, 0x7F);
            Launch(w, x, arranged, m, arranges: true);
            Assert.Equal(plain.ToArray(device.DefaultStream), arranged.ToArray(device.DefaultStream));
        }
    }

    // Launches of both kinds by many threads on one stream: none finds another's inputs in the scratch that they share.
    [Theory]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void ThreadsOnOneStreamDoNotMixTheirInputs(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        const int M = 16, N = 40, K = 256, Threads = 4, Turns = 5;
        using GpuStream stream = device.CreateStream();
        using QuantizedMatrix w = QuantizedMatrix.Upload(device, Quantizer.Quantize(RandomData.Gaussian(N * K, 1), N, K, WeightFormat.Int4));
        float[][] expected = new float[Threads][], actual = new float[Threads][];
        Parallel.For(0, Threads, i =>
        {
            using DeviceBuffer<BFloat16> x = device.Upload<BFloat16>(RandomData.GaussianBf16(M * K, 10 + i));
            using DeviceBuffer<float> y = device.Allocate<float>(M * N);
            Launch(w, x, y, M, arranges: false);
            expected[i] = y.ToArray(device.DefaultStream);
            for (int turn = 0; turn < Turns; turn++)
                Launch(w, x, y, M, arranges: true, stream);
            actual[i] = y.ToArray(stream);
        });
        Assert.Equal(expected, actual);
    }

    private static void Launch(QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<float> y, int m, bool arranges, GpuStream? stream = null)
    {
        LinearDevice device = LinearDevice.Of(w.Device);
        var shape = new LinearShape(m, w.N, w.K, w.Format, true, 0, w.Block);
        Assert.True(SkinnyLinear.CanArrange(shape, device));
        LinearPlan plan = LinearPlan.Choose(shape, device, LinearPath.SkinnyGemm) with { ArrangesInputs = arranges };
        SkinnyLinear.Launch(stream ?? w.Device.DefaultStream, w.Format, Linear.CreateArgs(w, x, y.Cast<byte>(), m, 0, float32: true), plan);
    }
}
