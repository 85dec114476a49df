using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Few rows by four bits with x shared between tiles and K spread over blocks: the same bits as <see cref="SkinnyGemm"/>.</summary>
public sealed class SkinnySplitTests
{
    // A block has 16 warps.
    private static readonly Lazy<GpuDevice> Cpu = new(() => TestDevices.Open(TestDevice.CpuWarp32, warps: 16));

    // One tile of four and some more rows of W; whole chunks of 128 columns, a ragged last one, less than one; more turns than chunks and fewer.
    private static readonly (int M, int N, int K)[] Shapes = [(9, 33, 256), (16, 140, 1312), (11, 1, 32), (12, 127, 4128), (16, 96, 2208), (10, 130, 2048)];

    public static TheoryData<TestDevice, WeightFormat, int> Cases()
    {
        var data = new TheoryData<TestDevice, WeightFormat, int>();
        foreach (TestDevice device in TestDevices.Chosen.Where(d => d != TestDevice.Cpu))
            foreach (WeightFormat format in WeightFormats.All.Where(f => f.Info().BitsPerCode == 4))
                foreach (int warps in new[] { 2, 4, 8, 16 })
                    data.Add(device, format, warps);
        return data;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void GivesTheBitsOfSkinnyGemm(TestDevice which, WeightFormat format, int warps)
    {
        GpuDevice device = which == TestDevice.Cuda ? TestDevices.Get(which) : Cpu.Value;
        foreach ((int m, int n, int k) in Shapes)
        {
            using QuantizedMatrix w = QuantizedMatrix.Upload(device, Quantizer.Quantize(RandomData.Gaussian(n * k, 1), n, k, format));
            using DeviceBuffer<BFloat16> x = device.Upload<BFloat16>(RandomData.GaussianBf16(m * k, 2));
            using DeviceBuffer<float> plain = device.Allocate<float>(m * n), split = device.Allocate<float>(m * n);
            plain.Fill(device.DefaultStream, 0);
            LinearPlan plan = LinearPlan.Choose(new LinearShape(m, w.N, w.K, w.Format, true, 0, w.Block), LinearDevice.Of(device), LinearPath.SkinnyGemm) with { Threads = 32 * warps, ArrangesInputs = false };
            SkinnyLinear.Launch(device.DefaultStream, format, Linear.CreateArgs(w, x, plain.View.Cast<byte>(), m, 0, float32: true), plan);
            // What an earlier product left in the scratch is not read.
            device.DefaultStream.Scratch.Partials.Fill(device.DefaultStream, 0x7F);
            SkinnySplitLinear.Launch(device.DefaultStream, device.DefaultStream.Scratch, format, Linear.CreateArgs(w, x, split.View.Cast<byte>(), m, 0, float32: true), warps);
            Assert.Equal(plain.ToArray(device.DefaultStream), split.ToArray(device.DefaultStream));
            Assert.All(device.DefaultStream.Scratch.Counters.ToArray(device.DefaultStream), c => Assert.Equal(0, c));
        }
    }
}
