using GpuKit.Ilgpu.Kernels.Formats;

namespace GpuKit.Ilgpu;

/// <summary>How a weight matrix is stored.</summary>
public enum WeightFormat
{
    /// <summary>16-bit brain floats, two bytes a weight, no scales.</summary>
    Bf16,

    /// <summary>E4M3 codes, one byte a weight, with one float32 multiplier a block (128 × 128 in published checkpoints).</summary>
    Fp8Block,

    /// <summary>
    /// E2M1 codes, two a byte (even column in the low half, rows of ⌈K / 2⌉ bytes), with one E4M3 multiplier a group of 16
    /// columns and one float32 multiplier a matrix.
    /// </summary>
    Nvfp4,

    /// <summary>
    /// Signed codes −8..7, two a byte (even column in the low half, rows of ⌈K / 2⌉ bytes), symmetric, with one multiplier a
    /// group of columns (usually 1 × 128; 32 columns at least).
    /// </summary>
    Int4,

    /// <summary>
    /// Unsigned codes 0..15 in the layout of <see cref="Int4"/>, with one multiplier and one zero point 0..15 a group of columns:
    /// value = (code − zero) · scale.
    /// </summary>
    Int4Zero,

    /// <summary>
    /// Two E4M3 codes a weight, each with one float32 multiplier a block (usually 128 × 128): value = code · scale + residual code
    /// · residual scale. All codes of a matrix come first, then all residual codes; the scales likewise.
    /// </summary>
    Fp8TwoTerm,
}

/// <summary>The list of formats: what it names is tested, benchmarked and documented.</summary>
internal static class WeightFormats
{
    /// <summary>Every format.</summary>
    public static readonly IReadOnlyList<WeightFormat> All = Enum.GetValues<WeightFormat>();

    /// <summary>Layout and accuracy, from the format's own struct.</summary>
    public static WeightFormatInfo Info(this WeightFormat format) => format switch
    {
        WeightFormat.Bf16 => Bf16Weights.Info,
        WeightFormat.Fp8Block => Fp8Block<Fp8Table>.Info,
        WeightFormat.Nvfp4 => Nvfp4.Info,
        WeightFormat.Int4 => Int4.Info,
        WeightFormat.Int4Zero => Int4Zero.Info,
        WeightFormat.Fp8TwoTerm => Fp8TwoTerm<Fp8Table>.Info,
        _ => throw new ArgumentOutOfRangeException(nameof(format), format, "Not a weight format."),
    };

    /// <summary>Name in tables and messages.</summary>
    public static string Title(this WeightFormat format) => format.Info().Name;

    /// <summary>Bytes of a row of <paramref name="k"/> codes.</summary>
    public static long RowBytes(this WeightFormat format, int k) => format.Info().RowBytes(k);

    /// <summary>How many codes, each with scales of its own, a weight is the sum of.</summary>
    public static int Terms(this WeightFormat format) => format.Info().Terms;

    /// <summary>Whether scales go with the codes.</summary>
    public static bool IsScaled(this WeightFormat format) => format.Info().IsScaled;

    /// <summary>Whether there is one float32 scale a matrix, with E4M3 scales of groups below it.</summary>
    public static bool HasGroupScales(this WeightFormat format) => format.Info().HasGroupScales;

    /// <summary>The block of a matrix in this format: NVFP4 has one, others the caller's, or their usual one.</summary>
    public static ScaleBlock BlockOr(this WeightFormat format, ScaleBlock? block) => format switch
    {
        WeightFormat.Nvfp4 => ScaleBlock.Group16,
        WeightFormat.Int4 or WeightFormat.Int4Zero => block ?? ScaleBlock.Group128,
        _ => block ?? ScaleBlock.Square128,
    };
}
