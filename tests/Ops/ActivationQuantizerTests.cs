using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Activations: host against an oracle, device against the host, to the bit.</summary>
public sealed class ActivationQuantizerTests
{
    // Odd ends of units, groups and stretches of 1,024 columns.
    private static readonly (int M, int K)[] Shapes = [(1, 1), (3, 40), (2, 129), (1, 257), (5, 64), (2, 1056), (1, 2061)];

    public static TheoryData<ActivationFormat> Formats => [.. ActivationFormats.All];

    public static TheoryData<TestDevice, ActivationFormat> Cases()
    {
        var data = new TheoryData<TestDevice, ActivationFormat>();
        foreach (TestDevice device in TestDevices.Chosen)
            foreach (ActivationFormat format in ActivationFormats.All)
                data.Add(device, format);
        return data;
    }

    [Theory]
    [MemberData(nameof(Formats))]
    public void TheHostDoesWhatTheDefinitionSays(ActivationFormat format)
    {
        foreach ((int m, int k) in Shapes)
        {
            Same(ActivationOracle.Quantize(Awkward(m * k), m, k, format), ActivationQuantizer.Quantize(Awkward(m * k), m, k, format));
            BFloat16[] x = RandomData.GaussianBf16(m * k, k, 0.1f);
            Same(ActivationOracle.Quantize(x, m, k, format), ActivationQuantizer.Quantize(x, m, k, format));
        }
        // Every BF16 magnitude between the largest code and the smallest, so every midpoint that BF16 has; the scale is 1.
        foreach (float largest in new[] { 448f, 2688f, 7f })
        {
            BFloat16[] x = [.. Enumerable.Range(0x3A00, 0x1200).Select(bits => BFloat16.FromBits((ushort)bits)).Where(v => (float)v <= largest).SelectMany(v => new[] { v, (BFloat16)(-(float)v) })];
            for (int i = 0; i < x.Length; i += 16)
                x[i] = (BFloat16)largest;
            Same(ActivationOracle.Quantize(x, 1, x.Length, format), ActivationQuantizer.Quantize(x, 1, x.Length, format));
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void TheDeviceGivesTheHostsBits(TestDevice which, ActivationFormat format)
    {
        GpuDevice device = TestDevices.Get(which);
        foreach ((int m, int k) in Shapes)
        {
            foreach (int misalignment in new[] { 0, 2 })
            {
                BFloat16[] x = Awkward(m * k);
                using var input = GuardedBuffer<BFloat16>.Input(device, x, misalignment);
                Same(ActivationQuantizer.Quantize(x, m, k, format), Quantize(device, input.View, format, m, k));
            }
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void NaNIsKeptOrBecomesZero(TestDevice which, ActivationFormat format)
    {
        GpuDevice device = TestDevices.Get(which);
        const int K = 33;
        BFloat16[] x = RandomData.GaussianBf16(2 * K, 4);
        x[K + 5] = BFloat16.FromBits(0x7FC1);
        x[K + 32] = BFloat16.FromBits(0xFFFF);
        using var input = GuardedBuffer<BFloat16>.Input(device, x);
        HostActivations expected = ActivationOracle.Quantize(x, 2, K, format);
        Same(expected, Quantize(device, input.View, format, 2, K));
        if (format is ActivationFormat.Nvfp4 or ActivationFormat.Int4)
            Assert.Contains("row 1, column 5 is NaN", Assert.Throws<ArgumentException>(() => ActivationQuantizer.Quantize(x, 2, K, format)).Message, StringComparison.Ordinal);
        else
            Same(expected, ActivationQuantizer.Quantize(x, 2, K, format));
        // A row of nothing but zeros or infinities has a scale of 1.
        BFloat16[] none = [.. Enumerable.Repeat(BFloat16.FromBits(0x7F80), K), .. new BFloat16[K]];
        using var noneInput = GuardedBuffer<BFloat16>.Input(device, none);
        HostActivations got = Quantize(device, noneInput.View, format, 2, K);
        Same(ActivationOracle.Quantize(none, 2, K, format), got);
        Assert.All(got.Scales, s => Assert.Equal(1f, s));
        Assert.All(got.Codes[(got.Codes.Length / 2)..], c => Assert.Equal(0, c));
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void ARowDependsOnItselfAlone(TestDevice which, ActivationFormat format)
    {
        GpuDevice device = TestDevices.Get(which);
        const int M = 5, K = 77;
        BFloat16[] x = RandomData.GaussianBf16(M * K, 9);
        x[0] = (BFloat16)1e6f;
        using var input = GuardedBuffer<BFloat16>.Input(device, x);
        HostActivations all = Quantize(device, input.View, format, M, K);
        for (int row = 0; row < M; row++)
        {
            HostActivations alone = Quantize(device, input.View.SubView(row * K, K), format, 1, K);
            Assert.Equal(alone.Codes, Row(all.Codes, row));
            Assert.Equal(alone.Scales, Row(all.Scales, row));
            Assert.Equal(alone.GroupScales, Row(all.GroupScales, row));
        }

        static T[] Row<T>(T[] values, int row) => values[(values.Length / M * row)..(values.Length / M * (row + 1))];
    }

    [Fact]
    public void NarrowerGroupsHardlyHelpFp8()
    {
        const int M = 24, N = 24, K = 512;
        float[] w = RandomData.Gaussian(N * K, 1);
        BFloat16[] x = RandomData.GaussianBf16(M * K, 2);
        double[] exact = MatrixOracle.Multiply(x, Array.ConvertAll(w, v => (double)v), M, N, K);
        double coarse = Loss(ActivationFormat.Fp8Group128, ScaleBlock.Square128), fine = Loss(ActivationFormat.Fp8Group32, new ScaleBlock(32, 32));
        Assert.InRange(coarse, 0.033, 0.040);
        Assert.InRange(fine, 0.95 * coarse, coarse);

        double Loss(ActivationFormat format, ScaleBlock block)
        {
            double[] quantised = AccurateLinearTests.Multiply(ActivationOracle.Values(ActivationQuantizer.Quantize(x, M, K, format)), MatrixOracle.Values(Quantizer.Quantize(w, N, K, WeightFormat.Fp8Block, block)), M, N, K);
            return Compare.RelativeError(Array.ConvertAll(quantised, v => (float)v), exact);
        }
    }

    [Fact]
    public void WrongCallsAreRefusedBeforeAnythingRuns()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        GpuStream stream = device.DefaultStream;
        using var target = new QuantizedActivations(device, ActivationFormat.Nvfp4, 2, 33);
        Assert.Equal((2 * 17) + (2 * 4) + (2 * 3), target.Bytes);
        using DeviceBuffer<BFloat16> x = device.Allocate<BFloat16>(66);
        ActivationQuantizer.Quantize(stream, x, target, 0);
        Assert.Throws<ArgumentOutOfRangeException>(() => ActivationQuantizer.Quantize(stream, x, target, 3));
        Assert.Throws<ArgumentOutOfRangeException>(() => ActivationQuantizer.Quantize(stream, x, target, -1));
        Assert.Contains("needs 66", Assert.Throws<ArgumentException>(() => ActivationQuantizer.Quantize(stream, x.View.SubView(1, 65), target, 2)).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => ActivationQuantizer.Quantize(new BFloat16[5], 2, 3, ActivationFormat.Int4));
        Assert.Throws<ArgumentOutOfRangeException>(() => ActivationQuantizer.Quantize(new BFloat16[6], 2, 3, (ActivationFormat)9));
        Assert.Throws<ArgumentOutOfRangeException>(() => new QuantizedActivations(device, ActivationFormat.Int4, 0, 33));
        Assert.Throws<ArgumentOutOfRangeException>(() => new QuantizedActivations(device, (ActivationFormat)9, 1, 33));
        using GpuDevice other = TestDevices.Open(TestDevice.Cpu);
        Assert.Throws<ArgumentException>(() => ActivationQuantizer.Quantize(other.DefaultStream, x, target, 1));
    }

    /// <summary>Quantises into room for one more row, which must stay as it was.</summary>
    internal static HostActivations Quantize(GpuDevice device, ILGPU.ArrayView<BFloat16> x, ActivationFormat format, int m, int k)
    {
        GpuStream stream = device.DefaultStream;
        using var target = new QuantizedActivations(device, format, m + 1, k);
        target.Codes.Fill(stream, 0xFF);
        target.Scales.Fill(stream, 0xFF);
        target.GroupScales.Fill(stream, 0xFF);
        ActivationQuantizer.Quantize(stream, x, target, m);
        return new HostActivations(format, m, k, Rows(target.Codes.ToArray(stream), c => c == 0xFF), Rows(target.Scales.ToArray(stream), float.IsNaN))
        {
            GroupScales = Rows(target.GroupScales.ToArray(stream), c => c == 0xFF),
        };

        T[] Rows<T>(T[] values, Predicate<T> untouched)
        {
            int written = values.Length / (m + 1) * m;
            Assert.All(values[written..], v => Assert.True(untouched(v)));
            return values[..written];
        }
    }

    private static void Same(HostActivations expected, HostActivations actual)
    {
        Assert.Equal(expected.Scales, actual.Scales);
        Assert.Equal(expected.GroupScales, actual.GroupScales);
        Assert.Equal(expected.Codes, actual.Codes);
    }

    // Zeros, subnormals, outliers and infinities.
    private static BFloat16[] Awkward(int count)
    {
        BFloat16[] values = RandomData.GaussianBf16(count, count);
        float[] special = [0, -0f, 1e-39f, -3e-40f, 1e30f, float.PositiveInfinity, float.NegativeInfinity, 448, -464];
        for (int i = 0; i < count; i += 7)
            values[i] = (BFloat16)special[i / 7 % special.Length];
        return values;
    }
}
