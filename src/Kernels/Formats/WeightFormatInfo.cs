namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>Facts of a weight format that host code, tests and docs read.</summary>
/// <param name="Name">Name in tables and messages.</param>
/// <param name="BitsPerCode">Bits of one code; a weight has one a term.</param>
/// <param name="IsScaled">Whether scales go with the codes.</param>
/// <param name="MaxCode">The largest value of a code.</param>
/// <param name="Tolerance">Relative error of a product against the dequantised operands in double, BF16 output.</param>
/// <param name="HasGroupScales">Whether the scales are E4M3 bytes a group of 16 columns and one float32 a matrix, not one float32 a block.</param>
/// <param name="HasZeroPoints">Whether each block has a zero point beside its scale.</param>
/// <param name="Terms">How many codes, each with scales of its own, a weight is the sum of.</param>
internal readonly record struct WeightFormatInfo(string Name, int BitsPerCode, bool IsScaled, float MaxCode, double Tolerance, bool HasGroupScales = false, bool HasZeroPoints = false, int Terms = 1)
{
    /// <summary>Bytes of a row of <paramref name="k"/> codes of one term; the last byte of an odd row of four-bit codes is half used.</summary>
    public long RowBytes(int k) => (((long)k * BitsPerCode) + 7) / 8;

    /// <summary>Bytes of <paramref name="n"/> rows of <paramref name="k"/> codes, all terms.</summary>
    public long Bytes(int n, int k) => checked(Terms * n * RowBytes(k));
}
