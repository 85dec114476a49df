using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

public sealed class DecodeLinearTests
{
    private const float Epsilon = 1e-5f;

    public static TheoryData<TestDevice, WeightFormat, int, int> Cases
    {
        get
        {
            var data = new TheoryData<TestDevice, WeightFormat, int, int>();
            foreach (WeightFormat format in new[] { WeightFormat.Bf16, WeightFormat.Fp8Block, WeightFormat.Nvfp4, WeightFormat.Int4, WeightFormat.Int4Zero })
            {
                data.Add(TestDevice.CpuWarp32, format, 48, 256);
                data.Add(TestDevice.Cuda, format, 48, 256);
                data.Add(TestDevice.Cuda, format, 5120, 2048);
                data.Add(TestDevice.Cuda, format, 2048, 4096);
            }
            data.Add(TestDevice.CpuWarp32, WeightFormat.Fp8Block, 32, 64 * 19);
            // Four and eight chunks a warp; and more than all warps have on their way, not a whole number of rounds.
            data.Add(TestDevice.CpuWarp32, WeightFormat.Fp8Block, 32, 64 * 4 * 16);
            data.Add(TestDevice.CpuWarp32, WeightFormat.Fp8Block, 32, 64 * 8 * 16);
            foreach (TestDevice device in new[] { TestDevice.CpuWarp32, TestDevice.Cuda })
                data.Add(device, WeightFormat.Fp8Block, 16, 64 * 309);
            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void ANormedProductMatchesTheOracle(TestDevice which, WeightFormat format, int n, int k)
    {
        GpuDevice device = TestDevices.Get(which);
        HostMatrix host = Quantizer.Quantize(RandomData.Gaussian(n * k, 1, 1 / MathF.Sqrt(k)), n, k, format, format == WeightFormat.Fp8Block ? new ScaleBlock(32, 64) : null);
        using QuantizedMatrix matrix = QuantizedMatrix.Upload(device, host);
        float[] x = RandomData.Gaussian(k, 2, 30);
        BFloat16[] gain = Gains(k);
        using var residual = GuardedBuffer<float>.Input(device, x);
        using var gains = GuardedBuffer<BFloat16>.Input(device, gain);
        using var sums = GuardedBuffer<long>.Output(device, 7);
        BFloat16[] Apply()
        {
            using var y = GuardedBuffer<BFloat16>.Output(device, n);
            DecodeLinear.Store(device.DefaultStream, matrix, residual.View, new InputNorm(gains.View, Epsilon), y.View, sums.View);
            return y.ToArray();
        }
        BFloat16[] first = Apply();
        double scale = 1 / Math.Sqrt(x.Average(v => (double)v * v) + Epsilon);
        Compare.Close(first, Multiply(MatrixOracle.Values(host), [.. x.Zip(gain, (v, g) => v * scale * (float)g)]), 3e-3);
        Assert.Equal(first, Apply());
        Assert.All(sums.ToArray(), s => Assert.Equal(0, s));
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void AnAddedProductMatchesTheOracleAndFeedsTheRouter(TestDevice which, WeightFormat format, int n, int k)
    {
        const int Experts = 37;
        GpuDevice device = TestDevices.Get(which);
        HostMatrix host = Quantizer.Quantize(RandomData.Gaussian(n * k, 1, 1 / MathF.Sqrt(k)), n, k, format, format == WeightFormat.Fp8Block ? new ScaleBlock(32, 64) : null);
        HostMatrix gate = Quantizer.Quantize(RandomData.Gaussian(Experts * n, 3, 1 / MathF.Sqrt(n)), Experts, n, WeightFormat.Bf16);
        using QuantizedMatrix matrix = QuantizedMatrix.Upload(device, host), router = QuantizedMatrix.Upload(device, gate);
        BFloat16[] x = RandomData.GaussianBf16(k, 2), gain = Gains(n);
        float[] before = RandomData.Gaussian(n, 4);
        using var input = GuardedBuffer<BFloat16>.Input(device, x);
        using var gains = GuardedBuffer<BFloat16>.Input(device, gain);
        (float[] Residual, long[] Sums) Apply(bool routed)
        {
            using var residual = GuardedBuffer<float>.Input(device, before);
            using var sums = GuardedBuffer<long>.Input(device, new long[Experts]);
            DecodeLinear.Add(device.DefaultStream, matrix, input.View, residual.View, routed ? new RouterFeed(router, new InputNorm(gains.View, Epsilon), sums.View) : null);
            return (residual.ToArray(), sums.ToArray());
        }
        (float[] after, long[] units) = Apply(routed: true);
        double[] expected = [.. Multiply(MatrixOracle.Values(host), [.. x.Select(v => (double)(float)v)]).Zip(before, (v, b) => v + b)];
        Compare.Close(after, expected, 1e-3);
        double[] logits = Multiply(MatrixOracle.Values(gate), [.. expected.Zip(gain, (v, g) => v * (float)g)]);
        Compare.Close([.. units.Select(u => (float)(u / 4294967296.0))], logits, 1e-3);
        (float[] again, long[] same) = Apply(routed: true);
        Assert.Equal(after, again);
        Assert.Equal(units, same);
        (float[] alone, long[] untouched) = Apply(routed: false);
        Assert.Equal(after, alone);
        Assert.All(untouched, u => Assert.Equal(0, u));
    }

    [Fact]
    public void WhatDoesNotStreamIsRefused()
    {
        GpuDevice warp = TestDevices.Get(TestDevice.CpuWarp32), narrow = TestDevices.Get(TestDevice.Cpu);
        using QuantizedMatrix ragged = new(warp, WeightFormat.Bf16, 16, 40), odd = new(warp, WeightFormat.Bf16, 24, 64), two = new(warp, WeightFormat.Fp8TwoTerm, 16, 64), lanes = new(narrow, WeightFormat.Bf16, 16, 64);
        foreach (QuantizedMatrix matrix in new[] { ragged, odd, two, lanes })
        {
            Assert.False(DecodeLinear.Exists(matrix.Device, matrix));
            Assert.Throws<NotSupportedException>(() => DecodeLinear.Add(matrix.Device.DefaultStream, matrix, default, default, null));
        }
    }

    private static BFloat16[] Gains(int width) => Array.ConvertAll(RandomData.Gaussian(width, 6, 0.2f), g => (BFloat16)(1 + g));

    private static double[] Multiply(double[] w, double[] v)
    {
        var y = new double[w.Length / v.Length];
        for (int n = 0; n < y.Length; n++)
            for (int k = 0; k < v.Length; k++)
                y[n] += w[(n * v.Length) + k] * v[k];
        return y;
    }
}
