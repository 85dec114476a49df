namespace GpuKit.Ilgpu;

/// <summary>Quantised activations <c>[M, K]</c> in host memory.</summary>
/// <param name="Format">Storage format.</param>
/// <param name="M">Rows.</param>
/// <param name="K">Columns.</param>
/// <param name="Codes">Codes, row-major: 1 byte a value in FP8, ⌈K / 2⌉ bytes a row in NVFP4 and INT4 with the even column in the low half (the last half of an odd row is 0).</param>
/// <param name="Scales">FP8: <c>[M, ⌈K / group⌉]</c> float32 multipliers. NVFP4 and INT4: <c>[M]</c>, one a row.</param>
public sealed record HostActivations(ActivationFormat Format, int M, int K, byte[] Codes, float[] Scales)
{
    /// <summary>NVFP4: <c>[M, ⌈K / 16⌉]</c> E4M3 multipliers of the groups. Empty for other formats.</summary>
    public byte[] GroupScales { get; init; } = [];
}
