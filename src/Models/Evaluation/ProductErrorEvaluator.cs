namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Measures what formats cost: products with Gaussian inputs, drawn in BF16, and float32 outputs, against the dequantised operands
/// and against weights and inputs before they were quantised, both in double precision.
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
            double[] inputs = Array.ConvertAll(x, v => (double)(float)v);
            double[] unquantized = Multiply(inputs, Array.ConvertAll(sample.Values, v => (double)v), sample.N, sample.K);
            foreach (ErrorCase way in cases)
            {
                cancellation.ThrowIfCancellationRequested();
                HostMatrix weights = Quantizer.Quantize(sample.Values, sample.N, sample.K, way.Weights.Format, way.Weights.Block);
                double[] quantized = way.Activation is { } format ? ExactValues.Of(ActivationQuantizer.Quantize(x, Rows.Max(), sample.K, format)) : inputs;
                double[] dequantized = Multiply(quantized, ExactValues.Of(weights), sample.N, sample.K);
                using QuantizedMatrix matrix = QuantizedMatrix.Upload(device, weights);
                foreach (int m in Rows)
                {
                    float[] y = Multiply(device, way, matrix, x.AsSpan(0, m * sample.K), m);
                    results.Add(new ProductError(way, sample.Distribution, sample.Model, m, sample.N, sample.K,
                        VectorError.Of(y, dequantized.AsSpan(0, y.Length)), VectorError.Of(y, unquantized.AsSpan(0, y.Length))));
                }
                progress?.Report(new EvaluationProgress(++done, samples.Count * cases.Count, $"{way.Weights.Name}, {way.ActivationName}, {way.AccumulatorName}, {sample.Distribution}"));
            }
        }
        return results;
    }

    private static float[] Multiply(GpuDevice device, ErrorCase way, QuantizedMatrix matrix, ReadOnlySpan<BFloat16> x, int m)
    {
        using DeviceBuffer<BFloat16> inputs = device.Upload(x);
        using DeviceBuffer<float> y = device.Allocate<float>((long)m * matrix.N);
        if (way.Activation is { } format)
        {
            using var quantized = new QuantizedActivations(device, format, m, matrix.K);
            ActivationQuantizer.Quantize(device.DefaultStream, inputs, quantized, m);
            Linear.Multiply(device.DefaultStream, matrix, quantized, y, m, accumulator: way.Accumulator);
            return y.ToArray(device.DefaultStream);
        }
        Linear.Multiply(device.DefaultStream, matrix, inputs, y, m, accumulator: way.Accumulator);
        return y.ToArray(device.DefaultStream);
    }

    private static double[] Multiply(double[] x, double[] w, int n, int k)
    {
        var y = new double[x.Length / k * n];
        for (int i = 0; i < y.Length; i++)
        {
            double sum = 0;
            int row = i / n * k, column = i % n * k;
            for (int c = 0; c < k; c++)
                sum += x[row + c] * w[column + c];
            y[i] = sum;
        }
        return y;
    }
}
