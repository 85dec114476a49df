namespace GpuKit.Ilgpu.Models;

/// <summary>A way to multiply whose error is measured.</summary>
/// <param name="Weights">How the weights are stored.</param>
/// <param name="Activation">How the inputs are quantised; null leaves them in BF16.</param>
/// <param name="Accumulator">How products are added.</param>
public sealed record ErrorCase(CheckpointFormat Weights, ActivationFormat? Activation = null, Accumulator Accumulator = Accumulator.Float32)
{
    // Integer sums need one scale a row: blocks wider than any row that is measured.
    private static readonly CheckpointFormat Int4Rows = new("int4-row", WeightFormat.Int4, new ScaleBlock(1, 1 << 20));

    /// <summary>Every way that is measured.</summary>
    public static IReadOnlyList<ErrorCase> All { get; } = [.. CheckpointFormat.All.SelectMany(Of)];

    /// <summary>How the inputs are stored, in tables and records.</summary>
    public string ActivationName => Activation switch
    {
        null => "bf16",
        ActivationFormat.Fp8Group128 => "fp8-g128",
        ActivationFormat.Fp8Group32 => "fp8-g32",
        ActivationFormat.Nvfp4 => "nvfp4",
        ActivationFormat.Int4 => "int4-row",
        _ => throw new InvalidOperationException($"{Activation} has no name."),
    };

    /// <summary>How products are added, in tables and records.</summary>
    public string AccumulatorName => Accumulator.ToString().ToLowerInvariant();

    /// <summary>What is measured of a format: every one with BF16 inputs and float32 sums, some with other inputs and sums.</summary>
    /// <param name="format">The format. INT4 brings along INT4 of one scale a row (<c>int4-row</c>), which INT4 inputs need.</param>
    public static IEnumerable<ErrorCase> Of(CheckpointFormat format)
    {
        ArgumentNullException.ThrowIfNull(format);
        IEnumerable<ErrorCase> more = format.Name switch
        {
            "bf16" => [new(format, null, Accumulator.Kahan), new(format, null, Accumulator.Float64)],
            "fp8" => [new(format, null, Accumulator.Kahan), new(format, null, Accumulator.Float64), new(format, ActivationFormat.Fp8Group128)],
            "fp8-32" => [.. Enum.GetValues<Accumulator>().Select(sum => new ErrorCase(format, ActivationFormat.Fp8Group32, sum))],
            "nvfp4" => [new(format, ActivationFormat.Nvfp4)],
            "int4" => [new(Int4Rows), new(Int4Rows, ActivationFormat.Int4)],
            _ => [],
        };
        return more.Prepend(new ErrorCase(format));
    }
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
/// <param name="Unquantized">Against weights and inputs before they were quantised, in double precision: the formats' loss.</param>
public sealed record ProductError(ErrorCase Case, string Distribution, string? Model, int M, int N, int K, VectorError Dequantized, VectorError Unquantized);
