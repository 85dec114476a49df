namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Measures what formats cost: products with Gaussian BF16 inputs and float32 outputs, against the dequantised operands and
/// against the weights before they were quantised, both in double precision.
/// </summary>
/// <remarks>The same seed gives the same operands everywhere; devices differ in the order of their sums.</remarks>
public static class ProductErrorEvaluator
{
    private static readonly int[] Rows = [1, 8];

    /// <summary>Measures every case with every sample, with 1 and with 8 rows of inputs.</summary>
    /// <param name="device">Where the products are computed.</param>
    /// <param name="cases">The cases.</param>
    /// <param name="samples">The weights.</param>
    /// <param name="seed">Seed of the inputs.</param>
    /// <param name="progress">Told after each case; may be null.</param>
    /// <param name="cancellation">Stops between cases.</param>
    /// <exception cref="ArgumentException">A sample has a NaN.</exception>
    /// <exception cref="GpuException">Device memory is exhausted.</exception>
    /// <exception cref="OperationCanceledException">It was cancelled.</exception>
    public static IReadOnlyList<ProductError> Measure(
        GpuDevice device, IReadOnlyList<ErrorCase> cases, IReadOnlyList<WeightSample> samples, int seed, IProgress<EvaluationProgress>? progress = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(device);
        ArgumentNullException.ThrowIfNull(cases);
        ArgumentNullException.ThrowIfNull(samples);
        var results = new List<ProductError>();
        int done = 0;
        foreach (WeightSample sample in samples)
        {
            BFloat16[] x = WeightSample.Inputs(Rows.Max(), sample.K, seed);
            double[] unquantized = Multiply(x, sample.Values, sample.N, sample.K);
            foreach (ErrorCase way in cases)
            {
                cancellation.ThrowIfCancellationRequested();
                HostMatrix weights = Quantizer.Quantize(sample.Values, sample.N, sample.K, way.Weights.Format, way.Weights.Block);
                double[] dequantized = Multiply(x, Quantizer.Dequantize(weights), sample.N, sample.K);
                using QuantizedMatrix matrix = QuantizedMatrix.Upload(device, weights);
                foreach (int m in Rows)
                {
                    float[] y = Multiply(device, matrix, x.AsSpan(0, m * sample.K), m);
                    results.Add(new ProductError(way, sample.Distribution, sample.Model, m, sample.N, sample.K,
                        VectorError.Of(y, dequantized.AsSpan(0, y.Length)), VectorError.Of(y, unquantized.AsSpan(0, y.Length))));
                }
                progress?.Report(new EvaluationProgress(++done, samples.Count * cases.Count, $"{way.Weights.Name}, {sample.Distribution}"));
            }
        }
        return results;
    }

    private static float[] Multiply(GpuDevice device, QuantizedMatrix matrix, ReadOnlySpan<BFloat16> x, int m)
    {
        using DeviceBuffer<BFloat16> inputs = device.Upload(x);
        using DeviceBuffer<float> y = device.Allocate<float>((long)m * matrix.N);
        Linear.Multiply(device.DefaultStream, matrix, inputs, y, m);
        return y.ToArray(device.DefaultStream);
    }

    private static double[] Multiply(BFloat16[] x, float[] w, int n, int k)
    {
        double[] inputs = Array.ConvertAll(x, v => (double)(float)v);
        var y = new double[inputs.Length / k * n];
        for (int i = 0; i < y.Length; i++)
        {
            double sum = 0;
            int row = i / n * k, column = i % n * k;
            for (int c = 0; c < k; c++)
                sum += inputs[row + c] * w[column + c];
            y[i] = sum;
        }
        return y;
    }
}
