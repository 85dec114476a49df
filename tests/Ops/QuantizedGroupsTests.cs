using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Quantise → dequantise, 10,000 groups a format: exactly what the tables say, and never further off than the format allows.</summary>
public sealed class QuantizedGroupsTests
{
    internal const int Groups = 10_000;

    public static TheoryData<WeightFormat> Formats => [.. WeightFormats.All];

    [Theory]
    [MemberData(nameof(Formats))]
    public void TenThousandGroupsAreWhatTheTablesSay(WeightFormat format)
    {
        var random = new Random(17);
        // A matrix in NVFP4 has a scale over all of its groups: many small matrices, else an outlier would hide the others.
        int width = format == WeightFormat.Nvfp4 ? 16 : 32, rows = format == WeightFormat.Nvfp4 ? 50 : 1_000;
        for (int first = 0; first < Groups; first += rows)
        {
            float[] values = [.. Enumerable.Range(0, rows).SelectMany(i => Group(first + i, width, random))];
            float[] expected = QuantizerOracle.Values(values, width, format);
            float[] actual = Quantizer.Dequantize(Quantizer.Quantize(values, rows, width, format, new ScaleBlock(1, 32)));
            double largestOfMatrix = values.Max(MathF.Abs);
            for (int i = 0; i < values.Length; i++)
            {
                Assert.True(expected[i] == actual[i], $"Group {first + (i / width)}: {values[i]:R} became {actual[i]:R}, the tables say {expected[i]:R}.");
                double bound = QuantizerOracle.Bound(format, values[i], values.AsSpan(i / width * width, width).ToArray().Max(MathF.Abs), largestOfMatrix);
                Assert.True(Math.Abs((double)actual[i] - values[i]) <= bound, $"Group {first + (i / width)}: {values[i]:R} became {actual[i]:R}, further off than {bound}.");
            }
        }
    }

    // Of every eight groups: five of ordinary numbers of any size, one of zeros, one with an outlier of 1e30, one of denormals.
    private static float[] Group(int number, int width, Random random)
    {
        float size = MathF.ScaleB(1, random.Next(-100, 90));
        float[] group = RandomData.Gaussian(width, number, size);
        switch (number % 8)
        {
            case 5:
                return new float[width];
            case 6:
                group = RandomData.Gaussian(width, number);
                group[random.Next(width)] = random.Next(2) == 0 ? 1e30f : -1e30f;
                return group;
            case 7:
                return [.. group.Select(_ => random.Next(-1 << 22, 1 << 22) * float.Epsilon)];
            default:
                return group;
        }
    }
}
