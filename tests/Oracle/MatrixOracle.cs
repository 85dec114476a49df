namespace GpuKit.Ilgpu.Tests.Oracle;

/// <summary>
/// Weight formats and products in double precision. Shares the layout numbers with the library and nothing else: codes are
/// decoded by its own tables, built from the definition of the format.
/// </summary>
public static class MatrixOracle
{
    /// <summary>E4M3FN by definition: bias 7, subnormals m·2⁻⁹, S.1111.111 is NaN, no infinity.</summary>
    public static readonly double[] E4M3 = [.. Enumerable.Range(0, 256).Select(code =>
    {
        int exponent = (code >> 3) & 15, mantissa = code & 7;
        double magnitude = (code & 0x7F) == 0x7F ? double.NaN
            : exponent == 0 ? mantissa * Math.Pow(2, -9)
            : (1 + (mantissa / 8.0)) * Math.Pow(2, exponent - 7);
        return code >= 128 ? -magnitude : magnitude;
    })];

    /// <summary>E2M1 by definition: bias 1, one mantissa bit, subnormal ½, the sign in bit 3.</summary>
    public static readonly double[] E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6];

    /// <summary>Four-bit two's complement.</summary>
    public static readonly double[] Int4 = [0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1];

    /// <summary>The values of a quantised matrix.</summary>
    public static double[] Values(HostMatrix w)
    {
        var values = new double[w.N * w.K];
        int columnBlocks = (w.K + w.Block.Columns - 1) / w.Block.Columns, rowBlocks = (w.N + w.Block.Rows - 1) / w.Block.Rows;
        for (int n = 0; n < w.N; n++)
        {
            for (int k = 0; k < w.K; k++)
            {
                int i = (n * w.K) + k;
                // Four-bit formats: rows of whole bytes, the even column in the low half.
                int nibble = w.Format is WeightFormat.Nvfp4 or WeightFormat.Int4 or WeightFormat.Int4Zero ? (w.Codes[(n * ((w.K + 1) / 2)) + (k / 2)] >> (k % 2 * 4)) & 15 : 0;
                int rowBlock = n / w.Block.Rows, columnBlock = k / w.Block.Columns;
                int zero = w.Format == WeightFormat.Int4Zero ? (w.ZeroPoints[(rowBlock * ((columnBlocks + 1) / 2)) + (columnBlock / 2)] >> (columnBlock % 2 * 4)) & 15 : 0;
                values[i] = w.Format switch
                {
                    WeightFormat.Bf16 => BitConverter.Int32BitsToSingle((w.Codes[2 * i] | (w.Codes[(2 * i) + 1] << 8)) << 16),
                    WeightFormat.Fp8Block => E4M3[w.Codes[i]] * w.Scales[(n / w.Block.Rows * columnBlocks) + (k / w.Block.Columns)],
                    WeightFormat.Nvfp4 => E2M1[nibble] * E4M3[w.GroupScales[(n * ((w.K + 15) / 16)) + (k / 16)]] * w.Scales[0],
                    WeightFormat.Int4 => Int4[nibble] * w.Scales[(n / w.Block.Rows * columnBlocks) + (k / w.Block.Columns)],
                    WeightFormat.Int4Zero => (nibble - zero) * (double)w.Scales[(rowBlock * columnBlocks) + columnBlock],
                    // The first product is a float32, the second is added to it exactly.
                    WeightFormat.Fp8TwoTerm => (float)(E4M3[w.Codes[i]] * w.Scales[(rowBlock * columnBlocks) + columnBlock])
                        + (E4M3[w.Codes[(w.N * w.K) + i]] * w.Scales[((rowBlocks + rowBlock) * columnBlocks) + columnBlock]),
                    _ => throw new NotSupportedException(),
                };
            }
        }
        return values;
    }

    /// <summary>y[M, N] = x[M, K] · W[N, K]ᵀ.</summary>
    public static double[] Multiply(ReadOnlySpan<BFloat16> x, ReadOnlySpan<double> w, int m, int n, int k)
    {
        var y = new double[m * n];
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++)
                for (int c = 0; c < k; c++)
                    y[(i * n) + j] += (float)x[(i * k) + c] * w[(j * k) + c];
        return y;
    }
}
