namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>Facts of a weight format that host code, tests and docs read.</summary>
/// <param name="Name">Name in tables and messages.</param>
/// <param name="BitsPerCode">Bits of one weight.</param>
/// <param name="IsScaled">Whether block scales go with the codes.</param>
/// <param name="MaxCode">The largest value of a code.</param>
/// <param name="Tolerance">Relative error of a product against the dequantised operands in double, BF16 output.</param>
internal readonly record struct WeightFormatInfo(string Name, int BitsPerCode, bool IsScaled, float MaxCode, double Tolerance);
