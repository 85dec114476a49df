namespace GpuKit.Ilgpu.Tests.Oracle;

/// <summary>Quantised activations by definition: the nearest code is searched in a table, ties go to the even code.</summary>
public static class ActivationOracle
{
    /// <summary>Columns that share a scale of the lowest level.</summary>
    public static int GroupSize(ActivationFormat format, int k) => format switch
    {
        ActivationFormat.Fp8Group128 => 128,
        ActivationFormat.Fp8Group32 => 32,
        ActivationFormat.Nvfp4 => 16,
        _ => k,
    };

    /// <summary>Float32 arithmetic; a NaN without a code becomes 0, as on the device.</summary>
    public static HostActivations Quantize(ReadOnlySpan<BFloat16> x, int m, int k, ActivationFormat format)
    {
        int size = GroupSize(format, k), groups = (k + size - 1) / size;
        bool fp8 = format is ActivationFormat.Fp8Group128 or ActivationFormat.Fp8Group32, nvfp4 = format == ActivationFormat.Nvfp4;
        int rowBytes = fp8 ? k : (k + 1) / 2;
        var result = new HostActivations(format, m, k, new byte[m * rowBytes], new float[nvfp4 ? m : m * groups]) { GroupScales = new byte[nvfp4 ? m * groups : 0] };
        for (int row = 0; row < m; row++)
        {
            float[] values = new float[k];
            for (int i = 0; i < k; i++)
                values[i] = (float)x[(row * k) + i];
            if (nvfp4)
                result.Scales[row] = OneIfZero(Largest(values) / (6f * 448f));
            for (int group = 0; group < groups; group++)
            {
                float[] part = values[(group * size)..Math.Min(k, (group + 1) * size)];
                float scale;
                if (nvfp4)
                {
                    byte code = Nearest(Largest(part) / (6f * result.Scales[row]), MatrixOracle.E4M3[..0x7F]);
                    result.GroupScales[(row * groups) + group] = code;
                    scale = (float)(result.Scales[row] * MatrixOracle.E4M3[code]);
                }
                else
                {
                    float exact = Largest(part) / (fp8 ? 448f : 7f);
                    scale = result.Scales[(row * groups) + group] = OneIfZero(fp8 ? exact : (float)(BFloat16)exact);
                }
                for (int i = 0; i < part.Length; i++)
                {
                    int column = (group * size) + i;
                    int code = Code(format, part[i], scale);
                    result.Codes[(row * rowBytes) + (fp8 ? column : column / 2)] |= (byte)(fp8 ? code : code << (column % 2 * 4));
                }
            }
        }
        return result;
    }

    /// <summary>What the codes and scales stand for.</summary>
    public static double[] Values(HostActivations x)
    {
        int size = GroupSize(x.Format, x.K), groups = (x.K + size - 1) / size;
        var values = new double[x.M * x.K];
        for (int row = 0; row < x.M; row++)
        {
            for (int k = 0; k < x.K; k++)
            {
                int nibble = x.Format is ActivationFormat.Nvfp4 or ActivationFormat.Int4 ? (x.Codes[(row * ((x.K + 1) / 2)) + (k / 2)] >> (k % 2 * 4)) & 15 : 0;
                int group = (row * groups) + (k / size);
                values[(row * x.K) + k] = x.Format switch
                {
                    ActivationFormat.Nvfp4 => MatrixOracle.E2M1[nibble] * MatrixOracle.E4M3[x.GroupScales[group]] * x.Scales[row],
                    ActivationFormat.Int4 => MatrixOracle.Int4[nibble] * x.Scales[row],
                    _ => MatrixOracle.E4M3[x.Codes[(row * x.K) + k]] * x.Scales[group],
                };
            }
        }
        return values;
    }

    private static int Code(ActivationFormat format, float x, float scale)
    {
        float q = x / scale;
        switch (format)
        {
            case ActivationFormat.Int4:
                return float.IsNaN(x) ? 0 : (int)Math.Clamp(Math.Round((double)q, MidpointRounding.ToEven), -8, 7) & 15;
            case ActivationFormat.Nvfp4:
                return scale == 0 || float.IsNaN(x) ? 0 : Nearest(Math.Abs(q), MatrixOracle.E2M1[..8]) | (float.IsNegative(q) ? 8 : 0);
            default:
                return float.IsNaN(x) ? 0x7F : Nearest(Math.Abs(q), MatrixOracle.E4M3[..0x7F]) | (float.IsNegative(q) ? 0x80 : 0);
        }
    }

    // Magnitudes ascend with their codes. What is above the largest, infinity included, becomes the largest.
    private static byte Nearest(float x, double[] magnitudes)
    {
        int best = magnitudes.Length - 1;
        for (int code = 0; x < magnitudes[^1] && code < magnitudes.Length; code++)
        {
            double distance = Math.Abs(magnitudes[code] - x), least = Math.Abs(magnitudes[best] - x);
            if (distance < least || (distance == least && code % 2 == 0))
                best = code;
        }
        return (byte)best;
    }

    private static float Largest(float[] values) => values.Where(float.IsFinite).Select(MathF.Abs).DefaultIfEmpty(0).Max();

    private static float OneIfZero(float scale) => scale > 0 ? scale : 1;
}
