namespace GpuKit.Ilgpu;

/// <summary>A quantised matrix <c>[N, K]</c> in host memory: what a quantiser makes and an upload takes.</summary>
/// <param name="Format">Storage format.</param>
/// <param name="N">Output features (rows).</param>
/// <param name="K">Input features (columns).</param>
/// <param name="Codes">Codes, row-major: 2 bytes a weight in BF16, 1 in FP8.</param>
/// <param name="Scales"><c>[⌈N / block rows⌉, ⌈K / block columns⌉]</c> float32 multipliers; empty for BF16.</param>
/// <param name="Block">Scale block.</param>
public sealed record HostMatrix(WeightFormat Format, int N, int K, byte[] Codes, float[] Scales, ScaleBlock Block);
