using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Products whose blocks arrange x: the same bits as without.</summary>
public sealed class ArrangedInputsTests
{
    private const int ChunkColumns = 128;

    // A block or more of rows, and of warps a block; whole chunks of 128 columns, and a ragged last one; chunks for some warps only, and many for each; one tile of rows of x and two.
    private static readonly (int M, int N, int K, int Warps)[] Shapes =
        [(9, 64, 256, 4), (16, 64, 1312, 2), (11, 32, 128, 4), (12, 32, 4128, 2), (8, 32, 3104, 2), (4, 32, 2048, 1), (16, 96, 2208, 1), (16, 32, 1024, 1)];

    // Products that have 16 warps a block.
    private static readonly Lazy<GpuDevice> Wide = new(() => TestDevices.Open(TestDevice.CpuWarp32, warps: 16));

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
            // Of whole chunks alone; warps without one would only add zeros.
            Launch(w, x, plain, m, arranges: false, k % ChunkColumns == 0 ? Math.Min(warps, k / ChunkColumns) : warps);
            // What an earlier product left in the scratch is not read.
            GpuStream stream = device.DefaultStream;
            Scratch.Spoil(stream);
            // A number that the launch changes to another by overflowing.
            uint launches = 0xFFFF;
            stream.Scratch.Progress.CopyFrom(stream, [launches << 16]);
            for (int turn = 0; turn < 2; turn++)
            {
                Launch(w, x, arranged, m, arranges: true, warps);
                Assert.Equal(plain.ToArray(stream), arranged.ToArray(stream));
                Scratch.AssertZeroCounters(stream);
                uint[] expected = Arranged(x.ToArray(stream), m, k), scratch = stream.Scratch.Partials.ToArray(stream);
                Assert.Equal(++launches << 16, stream.Scratch.Progress.ToArray(stream)[0]);
                Assert.Equal(expected, scratch[..expected.Length]);
            }
        }
    }

    // NVFP4 x is decoded on the way: the same bits as where every warp decodes it, and of every number of rows.
    [Theory]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void CodesGiveTheSameBits(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        GpuStream stream = device.DefaultStream;
        foreach ((int m, int n, int k, int warps) in Shapes)
        {
            using QuantizedMatrix w = QuantizedMatrix.Upload(device, Quantizer.Quantize(RandomData.Gaussian(n * k, 1), n, k, WeightFormat.Nvfp4));
            using DeviceBuffer<BFloat16> x = device.Upload<BFloat16>(RandomData.GaussianBf16(m * k, 2));
            using var quantised = new QuantizedActivations(device, ActivationFormat.Nvfp4, m, k);
            ActivationQuantizer.Quantize(stream, x, quantised, m);
            using DeviceBuffer<float> plain = device.Allocate<float>(m * n), arranged = device.Allocate<float>(m * n);
            LaunchCodes(w, quantised, plain, m, arranges: false, k % ChunkColumns == 0 ? Math.Min(warps, k / ChunkColumns) : warps);
            float[] expected = plain.ToArray(stream);
            Scratch.Spoil(stream);
            for (int turn = 0; turn < 2; turn++)
            {
                LaunchCodes(w, quantised, arranged, m, arranges: true, warps);
                Assert.Equal(expected, arranged.ToArray(stream));
                Scratch.AssertZeroCounters(stream);
            }
            Compare.Close(expected, AccurateLinearTests.Multiply(StreamedActivationTests.Values(x.ToArray(stream), m, k, ActivationFormat.Nvfp4), MatrixOracle.Values(Quantizer.Quantize(RandomData.Gaussian(n * k, 1), n, k, WeightFormat.Nvfp4)), m, n, k), 1e-5);
        }
    }

    // INT4 has a decoder of its own for two tiles of x, with zero points and without.
    [Theory]
    [MemberData(nameof(Cases))]
    public void ManyRowsAsTheyLieHaveTheBitsOfOne(TestDevice which, WeightFormat format)
    {
        GpuDevice device = TestDevices.Get(which);
        const int M = 16, N = 64, K = 1312;
        using QuantizedMatrix w = QuantizedMatrix.Upload(device, Quantizer.Quantize(RandomData.Gaussian(N * K, 1), N, K, format));
        using DeviceBuffer<BFloat16> x = device.Upload<BFloat16>(RandomData.GaussianBf16(M * K, 2));
        using DeviceBuffer<float> all = device.Allocate<float>(M * N), one = device.Allocate<float>(N);
        Launch(w, x, all, M, arranges: false, warps: 4);
        float[] together = all.ToArray(device.DefaultStream);
        for (int m = 0; m < M; m++)
        {
            Launch(w, x.View.SubView(m * K, K), one, 1, arranges: false, warps: 4);
            Assert.Equal(together[(m * N)..((m + 1) * N)], one.ToArray(device.DefaultStream));
        }
    }

    // [tile of 8 rows][chunk][step of eight codes][lane] 16 bytes, and eight columns in the order of pairs of codes; rows beyond M are the last one.
    private static uint[] Arranged(BFloat16[] x, int m, int k)
    {
        var arranged = new List<uint>();
        for (int tile = 0; tile < (m + 7) / 8; tile++)
            for (int chunk = 0; chunk < k / ChunkColumns; chunk++)
                for (int step = 0; step < 4; step++)
                    for (int lane = 0; lane < 32; lane++)
                    {
                        int first = (Math.Min((tile * 8) + (lane / 4), m - 1) * k) + (chunk * ChunkColumns) + (lane % 4 * 32) + (step * 8);
                        for (int pair = first; pair < first + 4; pair++)
                            arranged.Add(x[pair].Bits | ((uint)x[pair + 4].Bits << 16));
                    }
        return [.. arranged];
    }

    // Products of both kinds use the same words of the scratch, launch after launch.
    [Theory]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void ProductsWhoseKIsSplitBetweenThemChangeNothing(TestDevice which)
    {
        GpuDevice device = which == TestDevice.Cuda ? TestDevices.Get(which) : Wide.Value;
        const int Few = 16, Many = 24, N = 160, K = 1024;
        using QuantizedMatrix w = QuantizedMatrix.Upload(device, Quantizer.Quantize(RandomData.Gaussian(N * K, 1), N, K, WeightFormat.Nvfp4));
        using DeviceBuffer<BFloat16> x = device.Upload<BFloat16>(RandomData.GaussianBf16(Many * K, 2));
        using DeviceBuffer<float> y = device.Allocate<float>(Few * N), z = device.Allocate<float>(Many * N);
        SplitPlan plan = SplitPlan.Of(SplitKernels.Tiles(WeightFormat.Nvfp4).First(t => t.Rows >= Many && t.Fits(LinearDevice.Of(device))), new LinearShape(Many, N, K, w.Format, true, 0), LinearDevice.Of(device), parts: 2);
        float[]? few = null, many = null;
        for (int turn = 0; turn < 3; turn++)
        {
            Launch(w, x.View.SubView(0, Few * K), y, Few, arranges: true, warps: 2);
            SplitLinear.Launch(device.DefaultStream, w, x, z.View.Cast<byte>(), true, (Many, 0), plan);
            (float[] thisFew, float[] thisMany) = (y.ToArray(device.DefaultStream), z.ToArray(device.DefaultStream));
            Assert.Equal(few ??= thisFew, thisFew);
            Assert.Equal(many ??= thisMany, thisMany);
            Assert.All(thisFew.Zip(thisMany), pair => Assert.Equal(pair.Second, pair.First, 1e-2f));
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
            Launch(w, x, y, M, arranges: false, warps: 2);
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

    private static void LaunchCodes(QuantizedMatrix w, QuantizedActivations x, ArrayView<float> y, int m, bool arranges, int warps)
    {
        LinearDevice device = LinearDevice.Of(w.Device);
        var shape = new LinearShape(m, w.N, w.K, w.Format, true, 0, w.Block, x.Format);
        Assert.True(SkinnyLinear.CanArrange(shape, device));
        LinearPlan plan = LinearPlan.ChooseAccurate(shape, device, LinearPath.SkinnyGemm) with { ArrangesInputs = arranges, Threads = 32 * warps };
        SkinnyLinear.Launch(w.Device.DefaultStream, w.Format, Linear.CreateArgs(w, default, y.Cast<byte>(), m, 0, float32: true) with { X = x.Codes.View.Cast<ushort>(), InputScales = x.ScaleTable }, plan, x.Format);
    }
}
