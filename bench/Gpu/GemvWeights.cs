namespace GpuKit.Ilgpu.Bench;

/// <summary>
/// Equally shaped matrices of random weights, together more than four times the L2, so that a kernel that takes turns among them
/// reads none from it. Made once for all products by such weights.
/// </summary>
internal sealed class GemvWeights : IDisposable
{
    private readonly QuantizedMatrix?[] matrices;
    private readonly Lazy<GemvCheck> check;

    public GemvWeights(GpuStream stream, WeightFormat format, ScaleBlock block, int n, int k)
    {
        GpuDevice device = stream.Device;
        matrices = new QuantizedMatrix?[(int)(4 * device.L2Bytes / format.Info().Bytes(n, k)) + 2];
        check = new Lazy<GemvCheck>(() => new GemvCheck(stream, Last));
        try
        {
            for (int i = 0; i < matrices.Length; i++)
            {
                matrices[i] = new QuantizedMatrix(device, format, n, k, 1, block);
                Fill(stream, this[i], (uint)i);
            }
            stream.Synchronize();
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public int Count => matrices.Length;

    public QuantizedMatrix Last => this[Count - 1];

    /// <summary>Of the last matrix; read back at the first use.</summary>
    public GemvCheck Check => check.Value;

    public QuantizedMatrix this[int index] => matrices[index]!;

    public void Dispose()
    {
        foreach (QuantizedMatrix? matrix in matrices)
            matrix?.Dispose();
    }

    private static void Fill(GpuStream stream, QuantizedMatrix matrix, uint index)
    {
        // BF16: ±[0.5, 1). FP8: any sign and fraction, exponents 0..7 (up to 1.875), no NaN. Four bits: every code is a number.
        (uint keep, uint set) = matrix.Format switch
        {
            WeightFormat.Bf16 => (0x807F807Fu, 0x3F003F00u),
            WeightFormat.Fp8Block or WeightFormat.Fp8TwoTerm => (0xBFBFBFBFu, 0u),
            _ => (uint.MaxValue, 0u),
        };
        RandomBits.Fill(stream, matrix.Codes.View.Cast<uint>(), index + 1, keep, set);
        // Float32 from 0.5 to 1.9375 with five significant bits.
        if (matrix.Scales.Length > 0)
            RandomBits.Fill(stream, matrix.Scales.View.Cast<uint>(), index + 3001, 0x00F80000u, 0x3F000000u);
        // E4M3 from 0.5 to 1.875.
        if (matrix.GroupScales.Length > 0)
            RandomBits.Fill(stream, matrix.GroupScales.View.Cast<uint>(), index + 1001, 0x0F0F0F0Fu, 0x30303030u);
        if (matrix.ZeroPoints.Length > 0)
            RandomBits.Fill(stream, matrix.ZeroPoints.View.Cast<uint>(), index + 2001, uint.MaxValue, 0u);
    }
}
