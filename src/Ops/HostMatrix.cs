namespace GpuKit.Ilgpu;

/// <summary>A quantised matrix <c>[N, K]</c> in host memory: what a quantiser makes and an upload takes.</summary>
/// <param name="Format">Storage format.</param>
/// <param name="N">Output features (rows).</param>
/// <param name="K">Input features (columns).</param>
/// <param name="Codes">
/// Codes, row-major: 2 bytes a weight in BF16, 1 in FP8, ⌈K / 2⌉ bytes a row in NVFP4 and both INT4s with the even column in the low
/// half (the last half of an odd row is ignored). Two-term FP8: <c>[2, N, K]</c> bytes, the residual codes after all others.
/// </param>
/// <param name="Scales">
/// FP8 and INT4: <c>[⌈N / block rows⌉, ⌈K / block columns⌉]</c> float32 multipliers. NVFP4: the one multiplier of the matrix.
/// Two-term FP8: <c>[2, …]</c>, the residuals' multipliers after all others. Empty for BF16.
/// </param>
/// <param name="Block">Scale block; NVFP4 has its own, whatever is said here.</param>
public sealed record HostMatrix(WeightFormat Format, int N, int K, byte[] Codes, float[] Scales, ScaleBlock Block)
{
    /// <summary>NVFP4: <c>[N, ⌈K / 16⌉]</c> E4M3 multipliers of the groups. Empty for other formats.</summary>
    public byte[] GroupScales { get; init; } = [];

    /// <summary>
    /// INT4 with zero points: <c>[⌈N / block rows⌉, ⌈⌈K / block columns⌉ / 2⌉]</c> bytes of two zero points 0..15, that of the even
    /// block in the low half (the last half of an odd row is ignored). Empty for other formats.
    /// </summary>
    public byte[] ZeroPoints { get; init; } = [];
}
