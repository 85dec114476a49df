namespace GpuKit.Ilgpu.Bench;

/// <summary>What a product should be for some rows of the weights, spread over the matrix and its edges, in double.</summary>
internal sealed class GemvCheck
{
    // Of so many, rounding to BF16 alone is 1.5e-3 to 1.9e-3 of the output; of a few dozen it may be more.
    private const int Rows = 192;

    private readonly int n;
    private readonly (int Row, double[] Values)[] weights;

    /// <summary>Reads the rows back; they serve every product by these weights.</summary>
    public GemvCheck(GpuStream stream, QuantizedMatrix w)
    {
        n = w.N;
        weights = [.. Enumerable.Range(0, Rows).Select(i => (int)((long)i * (n - 1) / (Rows - 1))).Distinct().Select(row => (row, Decode(stream, w, row)))];
    }

    /// <summary>‖y − ref‖ / ‖ref‖ over these rows.</summary>
    /// <param name="inputs">The dequantised rows of x.</param>
    /// <param name="output">The product's element at an index of <c>[m, N]</c>.</param>
    public double Error(IReadOnlyList<double[]> inputs, Func<long, double> output)
    {
        double difference = 0, norm = 0;
        foreach ((int row, double[] values) in weights)
        {
            for (int j = 0; j < inputs.Count; j++)
            {
                double sum = 0;
                double[] x = inputs[j];
                for (int c = 0; c < values.Length; c++)
                    sum += values[c] * x[c];
                double actual = output(((long)j * n) + row);
                difference += (actual - sum) * (actual - sum);
                norm += sum * sum;
            }
        }
        return Math.Sqrt(difference / norm);
    }

    /// <summary>The rows of BF16 activations <c>[m, k]</c>.</summary>
    public static IReadOnlyList<double[]> Inputs(IReadOnlyList<BFloat16> x, int m, int k) =>
        [.. Enumerable.Range(0, m).Select(row => Enumerable.Range(row * k, k).Select(i => (double)(float)x[i]).ToArray())];

    /// <summary>The first <paramref name="m"/> rows of quantised activations.</summary>
    public static IReadOnlyList<double[]> Inputs(GpuStream stream, QuantizedActivations x, int m) =>
        [.. Enumerable.Range(0, m).Select(row => StoredRow.Of(stream, x, row).Decode(x.K))];

    private static double[] Decode(GpuStream stream, QuantizedMatrix w, int row)
    {
        double[] first = StoredRow.Of(stream, w, row, term: 0).Decode(w.K);
        return w.Format != WeightFormat.Fp8TwoTerm ? first : [.. first.Zip(StoredRow.Of(stream, w, row, term: 1).Decode(w.K), (a, b) => a + b)];
    }
}
