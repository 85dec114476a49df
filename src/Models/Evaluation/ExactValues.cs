namespace GpuKit.Ilgpu.Models;

/// <summary>
/// The numbers that quantised operands stand for, in double precision: in float32 a code times its scale is rounded, which would
/// hide the error of the better accumulators.
/// </summary>
internal static class ExactValues
{
    // Wider than any row: one scale for all of it.
    private static readonly ScaleBlock WholeRow = new(1, 1 << 20);

    /// <summary>Weights <c>[N, K]</c>.</summary>
    public static double[] Of(HostMatrix matrix)
    {
        WeightFormat format = matrix.Format;
        if (!format.IsScaled())
            return Array.ConvertAll(Quantizer.Dequantize(matrix), v => (double)v);
        ScaleBlock block = format.BlockOr(matrix.Block);
        int terms = format.Terms(), perTerm = matrix.Scales.Length / terms, columns = block.ColumnBlocks(matrix.K);
        var values = new double[checked(matrix.N * matrix.K)];
        for (int term = 0; term < terms; term++)
        {
            int first = term * perTerm;
            AddScaled(values, Codes(matrix, first, perTerm), matrix.K, format.HasGroupScales()
                ? (_, _) => matrix.Scales[0]
                : (row, column) => matrix.Scales[first + (row / block.Rows * columns) + (column / block.Columns)]);
        }
        return values;
    }

    /// <summary>Inputs <c>[M, K]</c>. Their scales belong to one row, which is what makes them no weights.</summary>
    public static double[] Of(HostActivations x)
    {
        (WeightFormat format, ScaleBlock block) = x.Format switch
        {
            ActivationFormat.Fp8Group128 => (WeightFormat.Fp8Block, new ScaleBlock(1, 128)),
            ActivationFormat.Fp8Group32 => (WeightFormat.Fp8Block, new ScaleBlock(1, 32)),
            ActivationFormat.Nvfp4 => (WeightFormat.Nvfp4, WholeRow),
            ActivationFormat.Int4 => (WeightFormat.Int4, WholeRow),
            _ => throw new ArgumentOutOfRangeException(nameof(x), x.Format, "Not an activation format."),
        };
        var matrix = new HostMatrix(format, x.M, x.K, x.Codes, new float[format.HasGroupScales() ? 1 : x.Scales.Length], block) { GroupScales = x.GroupScales };
        var values = new double[checked(x.M * x.K)];
        int columns = block.ColumnBlocks(x.K);
        AddScaled(values, Codes(matrix, 0, matrix.Scales.Length), x.K, (row, column) => x.Scales[(row * columns) + (column / block.Columns)]);
        return values;
    }

    // With ones for the scales of a term, and zeros for others, dequantising gives the codes (times NVFP4's group scales), exactly.
    private static float[] Codes(HostMatrix matrix, int first, int count)
    {
        var scales = new float[matrix.Scales.Length];
        scales.AsSpan(first, count).Fill(1);
        return Quantizer.Dequantize(matrix with { Scales = scales });
    }

    private static void AddScaled(double[] values, float[] codes, int k, Func<int, int, float> scale)
    {
        for (int i = 0; i < values.Length; i++)
            values[i] += codes[i] * (double)scale(i / k, i % k);
    }
}
