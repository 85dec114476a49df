namespace GpuKit.Ilgpu.Models;

/// <summary>A way to multiply whose error is measured.</summary>
/// <param name="Weights">How the weights are stored.</param>
/// <param name="Activation">How the inputs are stored.</param>
/// <param name="Accumulator">What products are summed in.</param>
public sealed record ErrorCase(CheckpointFormat Weights, string Activation, string Accumulator)
{
    /// <summary>Every way there is.</summary>
    public static IReadOnlyList<ErrorCase> All { get; } = [.. CheckpointFormat.All.Select(f => new ErrorCase(f, "bf16", "float32"))];
}

/// <summary>How far a vector is from a reference.</summary>
/// <param name="Relative">‖y − ref‖ / ‖ref‖.</param>
/// <param name="Cosine">Cosine of the angle between them.</param>
/// <param name="Worst">The largest |y − ref| of an element, in units of the reference's root mean square.</param>
public readonly record struct VectorError(double Relative, double Cosine, double Worst)
{
    internal static VectorError Of(ReadOnlySpan<float> y, ReadOnlySpan<double> reference)
    {
        double dot = 0, squares = 0, referenceSquares = 0, differenceSquares = 0, worst = 0;
        for (int i = 0; i < y.Length; i++)
        {
            double difference = y[i] - reference[i];
            dot += y[i] * reference[i];
            squares += (double)y[i] * y[i];
            referenceSquares += reference[i] * reference[i];
            differenceSquares += difference * difference;
            worst = Math.Max(worst, Math.Abs(difference));
        }
        return new VectorError(Math.Sqrt(differenceSquares / referenceSquares), dot / Math.Sqrt(squares * referenceSquares), worst / Math.Sqrt(referenceSquares / y.Length));
    }
}

/// <summary>The error of one product <c>y[M, N] = x[M, K] · W[N, K]ᵀ</c>.</summary>
/// <param name="Case">How it was computed.</param>
/// <param name="Distribution">Where the weights are from.</param>
/// <param name="Model">The model whose weights they are; null for random ones.</param>
/// <param name="M">Rows of x.</param>
/// <param name="N">Rows of W.</param>
/// <param name="K">Columns of both.</param>
/// <param name="Dequantized">Against the dequantised operands in double precision: the kernel's error.</param>
/// <param name="Unquantized">Against the weights before they were quantised, in double precision: the format's loss.</param>
public sealed record ProductError(ErrorCase Case, string Distribution, string? Model, int M, int N, int K, VectorError Dequantized, VectorError Unquantized);
