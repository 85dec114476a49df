using System.Numerics;
using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Quantised activations on the streaming path, against the double oracle and against the path of dot products.</summary>
public sealed class StreamedActivationTests
{
    private const double Tolerance = 1e-5;

    // K in whole 16-byte words of codes: full chunks for some warps, partial ones, halves of words missing, fewer chunks than warps.
    private static readonly (int M, int N, int K)[] Shapes =
    [
        (1, 1, 16), (1, 17, 48), (2, 33, 128), (7, 40, 144), (8, 15, 400), (9, 31, 1040), (16, 48, 656), (16, 1, 2064), (9, 70, 1056),
    ];

    public static TheoryData<TestDevice, ActivationFormat> Cases()
    {
        var data = new TheoryData<TestDevice, ActivationFormat>();
        foreach (TestDevice device in TestDevices.Chosen.Where(d => d != TestDevice.Cpu))
            foreach (ActivationFormat format in ActivationFormats.All)
                data.Add(device, format);
        return data;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void MatchesTheOracle(TestDevice which, ActivationFormat format)
    {
        GpuDevice device = TestDevices.Get(which);
        foreach ((int m, int n, int words) in Shapes)
        {
            int k = format.Info().BitsPerCode == 4 ? 2 * words : words;
            foreach (ScaleBlock block in Blocks(format))
            {
                HostMatrix w = Weights(format, n, k, block, 3);
                for (int i = 0; i < w.Scales.Length && format is ActivationFormat.Fp8Group128 or ActivationFormat.Fp8Group32; i++)
                    w.Scales[i] *= 1 + (i % 3);
                BFloat16[] x = RandomData.GaussianBf16(m * k, 4);
                float[] y = Run(device, w, x, m, format, LinearPath.SkinnyGemm);
                Compare.Close(y, AccurateLinearTests.Multiply(Values(x, m, k, format), MatrixOracle.Values(w), m, n, k), Tolerance);
                if (format == ActivationFormat.Int4)
                    Assert.Equal(Run(device, w, x, m, format, LinearPath.Accurate), y);
            }
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void ARowHasTheSameBitsForEveryNumberOfRows(TestDevice which, ActivationFormat format)
    {
        GpuDevice device = TestDevices.Get(which);
        const int M = 16, N = 33, K = 416;
        HostMatrix w = Weights(format, N, K, Blocks(format)[0], 5);
        BFloat16[] x = RandomData.GaussianBf16(M * K, 6);
        float[] all = Run(device, w, x, M, format, LinearPath.SkinnyGemm);
        foreach (int m in new[] { 1, 2, 7, 8, 9, 15 })
        {
            Assert.Equal(all[..(m * N)], Run(device, w, x[..(m * K)], m, format, LinearPath.SkinnyGemm));
            Assert.Equal(all[^(m * N)..], Run(device, w, x[^(m * K)..], m, format, LinearPath.SkinnyGemm));
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void OneHotInputsReadEachWeightFromItsPlace(TestDevice which, ActivationFormat format)
    {
        GpuDevice device = TestDevices.Get(which);
        const int N = 40, K = 96;
        HostMatrix w = Weights(format, N, K, Blocks(format)[0], 7);
        double[] values = MatrixOracle.Values(w);
        for (int first = 0; first < K; first += 16)
        {
            var hot = new BFloat16[16 * K];
            for (int i = 0; i < 16; i++)
                hot[(i * K) + first + i] = (BFloat16)1f;
            double[] inputs = Values(hot, 16, K, format);
            Compare.Close(Run(device, w, hot, 16, format, LinearPath.SkinnyGemm), AccurateLinearTests.Multiply(inputs, values, 16, N, K), Tolerance);
        }
    }

    [Theory]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void NaNAndInfinitiesReachTheirRowsOnly(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        const int M = 4, N = 5, K = 64;
        BFloat16[] x = RandomData.GaussianBf16(M * K, 8);
        x[7] = BFloat16.FromBits(0x7F80);
        x[K + 40] = BFloat16.FromBits(0x7FC0);
        foreach (ActivationFormat format in new[] { ActivationFormat.Fp8Group128, ActivationFormat.Fp8Group32 })
        {
            HostMatrix w = Weights(format, N, K, Blocks(format)[0], 9);
            float[] y = Run(device, w, x, M, format, LinearPath.SkinnyGemm);
            Assert.All(y[N..(2 * N)], v => Assert.True(float.IsNaN(v)));
            Compare.Close(y, AccurateLinearTests.Multiply(Values(x, M, K, format), MatrixOracle.Values(w), M, N, K), Tolerance);
            // A weight that was NaN when the device quantised it, where the hardware converts codes; older cards take it for ±480.
            if (device.Target is { Number: < 89 })
                continue;
            using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
            byte[] codes = weights.Codes.ToArray(device.DefaultStream);
            codes[(3 * K) + 41] = 0xFF;
            weights.Codes.CopyFrom(device.DefaultStream, codes);
            float[] poisoned = Run(device, weights, x, M, format, LinearPath.SkinnyGemm);
            for (int i = 0; i < y.Length; i++)
                Assert.Equal(i % N == 3 ? float.NaN : y[i], poisoned[i]);
        }
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    [InlineData(5)]
    [InlineData(6)]
    [InlineData(8)]
    [InlineData(10)]
    [InlineData(16)]
    public void SumsOfSoManyWarpsReachRowsThatAreApart(int warps)
    {
        // Blocks have as many warps as the device allows, which are a power of two, or as NVFP4 has chunks.
        using GpuDevice device = TestDevices.Open(TestDevice.CpuWarp32, (int)BitOperations.RoundUpToPowerOf2((uint)warps));
        const int M = 16, N = 33, Stride = 40;
        foreach (ActivationFormat format in ActivationFormats.All.Where(f => f == ActivationFormat.Nvfp4 || BitOperations.IsPow2(warps)))
        {
            int k = (512 / format.Info().BitsPerCode * warps) + 32;
            HostMatrix w = Weights(format, N, k, Blocks(format)[0], 10);
            Assert.Equal(32 * warps, LinearPlan.ChooseAccurate(new LinearShape(M, N, k, w.Format, true, 0, w.Block, format), LinearDevice.Of(device), LinearPath.SkinnyGemm).Threads);
            BFloat16[] x = RandomData.GaussianBf16(M * k, 11);
            using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
            float[] y = Run(device, weights, x, M, format, LinearPath.SkinnyGemm, Stride);
            Compare.Close([.. y.Where((_, i) => i % Stride < N)], AccurateLinearTests.Multiply(Values(x, M, k, format), MatrixOracle.Values(w), M, N, k), Tolerance);
            Assert.All(y.Where((_, i) => i % Stride >= N), v => Assert.Equal(uint.MaxValue, BitConverter.SingleToUInt32Bits(v)));
        }
    }

    [Theory]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void IntegerSumsAreExactBeyondFloat32(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        // Warps take turns of 128 columns and are added in their order. The last two bring the sum beyond 2²⁴, where float32 counts by twos, and an odd number each, which float32 rounds down both times.
        const int K = 460_800, Chunk = 128;
        var shape = new LinearShape(1, 1, K, WeightFormat.Int4, true, 0, new ScaleBlock(1, 1 << 20), ActivationFormat.Int4);
        int warps = LinearPlan.ChooseAccurate(shape, LinearDevice.Of(device), LinearPath.SkinnyGemm).Threads / 32;
        float[] x = new float[K], w = new float[K];
        Array.Fill(x, 7);
        Array.Fill(w, 7);
        foreach (int odd in new[] { (warps - 2) * Chunk, (warps - 1) * Chunk })
            (x[odd], w[odd]) = (2, 1);
        long[] sums = [.. Enumerable.Range(0, warps).Select(warp => Enumerable.Range(0, K).Where(k => k / Chunk % warps == warp).Sum(k => (long)(x[k] * w[k])))];
        long sum = sums.Sum();
        Assert.Equal(sum - 2, (long)sums.Aggregate(0f, (total, part) => total + part)); // the numbers are chosen well
        HostMatrix weights = Quantizer.Quantize(w, 1, K, WeightFormat.Int4, new ScaleBlock(1, 1 << 20));
        Assert.Equal([(float)sum], Run(device, weights, Array.ConvertAll(x, v => (BFloat16)v), 1, ActivationFormat.Int4, LinearPath.SkinnyGemm));
    }

    // As many columns as a warp may have, all of the largest products.
    [Theory]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void AWarpsIntegersDoNotOverflow(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        const int K = SkinnyGemm.MostIntegerColumns / 32 * 32;
        float[] ones = new float[K];
        Array.Fill(ones, 7);
        using QuantizedMatrix w = QuantizedMatrix.Upload(device, Quantizer.Quantize(ones, 1, K, WeightFormat.Int4, new ScaleBlock(1, 1 << 20)));
        using DeviceBuffer<BFloat16> x = device.Upload<BFloat16>(Array.ConvertAll(ones, v => (BFloat16)v));
        using var codes = new QuantizedActivations(device, ActivationFormat.Int4, 1, K);
        using DeviceBuffer<float> y = device.Allocate<float>(1);
        GpuStream stream = device.DefaultStream;
        ActivationQuantizer.Quantize(stream, x, codes, 1);
        // Quantisers write 7 at most; a checkpoint may hold −8. Multipliers stay 1.
        w.Codes.Fill(stream, 0x88);
        codes.Codes.Fill(stream, 0x88);
        LinearArgs args = Linear.CreateArgs(w, default, y.View.Cast<byte>(), 1, 0, float32: true) with { X = codes.Codes.View.Cast<ushort>(), InputScales = codes.ScaleTable };
        var plan = new LinearPlan(LinearPath.SkinnyGemm, Fp8Decoding.Table, true, 1, 1, 32);
        SkinnyLinear.Launch(stream, w.Format, args, plan, codes.Format);
        Assert.Equal([64f * K], y.ToArray(stream));
    }

    private static ScaleBlock[] Blocks(ActivationFormat format) => format switch
    {
        ActivationFormat.Fp8Group128 => [new ScaleBlock(128, 128), new ScaleBlock(32, 64)],
        ActivationFormat.Fp8Group32 => [new ScaleBlock(32, 32), new ScaleBlock(128, 128)],
        ActivationFormat.Int4 => [new ScaleBlock(1, 8192)],
        _ => [ScaleBlock.Group128],
    };

    private static HostMatrix Weights(ActivationFormat format, int n, int k, ScaleBlock block, int seed)
    {
        WeightFormat weights = format switch { ActivationFormat.Nvfp4 => WeightFormat.Nvfp4, ActivationFormat.Int4 => WeightFormat.Int4, _ => WeightFormat.Fp8Block };
        return Quantizer.Quantize(RandomData.Gaussian(n * k, seed), n, k, weights, block);
    }

    internal static double[] Values(BFloat16[] x, int m, int k, ActivationFormat format) => ActivationOracle.Values(ActivationOracle.Quantize(x, m, k, format));

    private static float[] Run(GpuDevice device, HostMatrix w, BFloat16[] x, int m, ActivationFormat format, LinearPath path)
    {
        using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
        return Run(device, weights, x, m, format, path);
    }

    // Rows of y are as far apart as they are long where no stride is given.
    private static float[] Run(GpuDevice device, QuantizedMatrix weights, BFloat16[] x, int m, ActivationFormat format, LinearPath path, int stride = 0)
    {
        GpuStream stream = device.DefaultStream;
        using var input = GuardedBuffer<BFloat16>.Input(device, x);
        using var quantised = new QuantizedActivations(device, format, m, weights.K);
        ActivationQuantizer.Quantize(stream, input.View, quantised, m);
        using var output = GuardedBuffer<float>.Output(device, ((m - 1) * Math.Max(stride, weights.N)) + weights.N);
        Linear.Launch(stream, weights, quantised, output.View.Cast<byte>(), true, (m, stride), Accumulator.Float32, path);
        return output.ToArray();
    }
}
