namespace GpuKit.Ilgpu.Tests.Oracle;

/// <summary>
/// What groups of values become in each format: docs/numerics.md once more, with tables of codes searched for the nearest value and float32
/// divisions where it asks for them. Shares no code with the quantisers.
/// </summary>
internal static class QuantizerOracle
{
    private static readonly double[] E4M3 = MatrixOracle.E4M3[..0x7F], E2M1 = MatrixOracle.E2M1[..8];

    /// <summary>The values that a matrix stands for after quantising, with one row of <paramref name="k"/> values a scale (in NVFP4: a row of groups of 16).</summary>
    public static float[] Values(float[] values, int k, WeightFormat format) => format switch
    {
        WeightFormat.Bf16 => Array.ConvertAll(values, ToBf16),
        WeightFormat.Nvfp4 => Nvfp4(values, k),
        _ => [.. values.Chunk(k).SelectMany(row => format switch
        {
            WeightFormat.Fp8Block => Fp8(row),
            WeightFormat.Fp8TwoTerm => TwoTerm(row),
            WeightFormat.Int4 => Int4(row),
            _ => Int4Zero(row),
        })],
    };

    /// <summary>The largest error that rounding to the format may make of a value in a group of this largest magnitude.</summary>
    public static double Bound(WeightFormat format, double value, double largest, double largestOfMatrix)
    {
        // Scales below the smallest normal number lose bits of their own.
        const double denormal = 1e-37;
        double magnitude = Math.Abs(value);
        return denormal + (1.001 * format switch
        {
            WeightFormat.Bf16 => magnitude / 256,
            WeightFormat.Fp8Block => Math.Max(magnitude / 16, largest / 448 / 1024),
            WeightFormat.Fp8TwoTerm => Math.Max(largest / 16 / 16, largest / 448 / 1024),
            // Half of the widest step, and a group scale that was itself rounded, by an eighth at most unless it is as good as none.
            WeightFormat.Nvfp4 => Math.Max(largest / 6 * 1.125, largestOfMatrix / 448 / 1024),
            WeightFormat.Int4 => largest / 7 * 0.51,
            // The range is at most twice the largest magnitude; the zero point is rounded as well.
            _ => 2 * largest / 15 * 1.02,
        });
    }

    private static float[] Fp8(float[] row)
    {
        float scale = Fp8Scale(row);
        return Array.ConvertAll(row, x => (float)(Nearest(E4M3, x / scale) * scale));
    }

    private static float[] TwoTerm(float[] row)
    {
        float[] first = Fp8(row), rest = [.. row.Zip(first, (x, y) => x - y)];
        float scale = Fp8Scale(rest);
        // The second product is exact in float64, the sum is rounded once.
        return [.. rest.Zip(first, (x, y) => (float)(y + (Nearest(E4M3, x / scale) * scale)))];
    }

    private static float Fp8Scale(float[] row) => OrOne(row.Max(MathF.Abs) / 448f);

    private static float[] Int4(float[] row)
    {
        float scale = OrOne(ToBf16(row.Max(MathF.Abs) / 7f));
        return Array.ConvertAll(row, x => (float)Math.Clamp(Math.Round((double)(x / scale), MidpointRounding.ToEven), -8, 7) * scale);
    }

    private static float[] Int4Zero(float[] row)
    {
        float above = Math.Max(0, row.Max()), below = Math.Max(0, -row.Min());
        float scale = OrOne(ToBf16(Math.Min(above + below, float.MaxValue) / 15f));
        double zero = Math.Clamp(Math.Round((double)(below / scale), MidpointRounding.ToEven), 0, 15);
        return Array.ConvertAll(row, x => (float)(Math.Clamp(Math.Round((double)(x / scale), MidpointRounding.ToEven) + zero, 0, 15) - zero) * scale);
    }

    private static float[] Nvfp4(float[] values, int k)
    {
        float matrixScale = OrOne(values.Max(MathF.Abs) / (6f * 448f));
        return [.. values.Chunk(k).SelectMany(row => row.Chunk(16)).SelectMany(group =>
        {
            float groupScale = (float)Nearest(E4M3, group.Max(MathF.Abs) / (6f * matrixScale));
            float scale = matrixScale * groupScale;
            return group.Select(x => scale > 0 ? (float)Nearest(E2M1, x / scale) * groupScale * matrixScale : 0f);
        })];
    }

    private static float OrOne(float scale) => scale > 0 ? scale : 1;

    // Codes ascend with their values: of two equally near the even code, beyond the last the last.
    private static double Nearest(double[] table, double x)
    {
        double magnitude = Math.Abs(x);
        int above = Array.BinarySearch(table, magnitude);
        if (above < 0)
            above = ~above;
        int code = above == table.Length ? above - 1 : above == 0 ? 0
            : magnitude - table[above - 1] is var down && table[above] - magnitude is var up && down == up ? above - (above & 1)
            : down < up ? above - 1 : above;
        return x < 0 ? -table[code] : table[code];
    }

    private static float ToBf16(float x)
    {
        double step = Math.Max(Math.ScaleB(1, Math.ILogB(x == 0 ? 1 : x) - 7), Math.ScaleB(1, -133));
        double rounded = Math.Round(x / step, MidpointRounding.ToEven) * step;
        return Math.Abs(rounded) > float.MaxValue ? float.CopySign(float.PositiveInfinity, x) : (float)rounded;
    }
}
