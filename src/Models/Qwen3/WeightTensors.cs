using System.Runtime.InteropServices;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// The tensors that a weight <c>X.weight</c> of shape <c>[n, k]</c> takes in a checkpoint, a format: the one place that knows
/// their names, types, shapes and bytes.
/// </summary>
internal static class WeightTensors
{
    /// <summary>FP8, both terms: float32 or BF16 <c>[⌈n / block rows⌉, ⌈k / block columns⌉]</c>.</summary>
    public const string BlockScales = "_scale_inv";

    /// <summary>Both INT4s: BF16 or float32 <c>[n, ⌈k / group⌉]</c>. NVFP4: E4M3 <c>[n, ⌈k / 16⌉]</c>.</summary>
    public const string GroupScales = "_scale";

    /// <summary>NVFP4: one float32.</summary>
    public const string MatrixScale = "_scale_2";

    /// <summary>INT4 with zero points: U8 <c>[n, ⌈⌈k / group⌉ / 2⌉]</c>, packed like the codes.</summary>
    public const string ZeroPoints = "_zero_point";

    /// <summary>Two-term FP8: the residual's codes <c>[n, k]</c>, with <see cref="BlockScales"/> of their own.</summary>
    public const string Residual = "_residual";

    /// <summary>Names, types and shapes as they are written.</summary>
    public static TensorDeclaration[] Declare(string name, WeightFormat format, ScaleBlock? block, int n, int k)
    {
        ScaleBlock scale = format.BlockOr(block);
        long[] packed = [n, format.RowBytes(k)], scales = [scale.RowBlocks(n), scale.ColumnBlocks(k)], zeros = [scale.RowBlocks(n), (scale.ColumnBlocks(k) + 1L) / 2];
        return format switch
        {
            WeightFormat.Bf16 => [new(name, TensorType.BF16, [n, k])],
            WeightFormat.Fp8Block => [new(name, TensorType.F8E4M3, [n, k]), new(name + BlockScales, TensorType.F32, scales)],
            WeightFormat.Nvfp4 => [new(name, TensorType.U8, packed), new(name + GroupScales, TensorType.F8E4M3, scales), new(name + MatrixScale, TensorType.F32, [])],
            WeightFormat.Int4 => [new(name, TensorType.U8, packed), new(name + GroupScales, TensorType.BF16, scales)],
            WeightFormat.Int4Zero => [.. Declare(name, WeightFormat.Int4, block, n, k), new(name + ZeroPoints, TensorType.U8, zeros)],
            WeightFormat.Fp8TwoTerm => [.. Declare(name, WeightFormat.Fp8Block, block, n, k), .. Declare(name + Residual, WeightFormat.Fp8Block, block, n, k)],
            _ => throw new ArgumentOutOfRangeException(nameof(format), format, "Checkpoints have no such format."),
        };
    }

    /// <summary>The bytes of a matrix, in the order of <see cref="Declare"/>.</summary>
    public static byte[][] Contents(HostMatrix matrix) => matrix.Format switch
    {
        WeightFormat.Bf16 => [matrix.Codes],
        WeightFormat.Fp8Block => [matrix.Codes, Bytes<float>(matrix.Scales)],
        WeightFormat.Nvfp4 => [matrix.Codes, matrix.GroupScales, Bytes<float>(matrix.Scales)],
        WeightFormat.Int4 => [matrix.Codes, Bf16Scales(matrix)],
        WeightFormat.Int4Zero => [matrix.Codes, Bf16Scales(matrix), matrix.ZeroPoints],
        WeightFormat.Fp8TwoTerm =>
        [
            matrix.Codes[..(matrix.Codes.Length / 2)], Bytes<float>(matrix.Scales.AsSpan(0, matrix.Scales.Length / 2)),
            matrix.Codes[(matrix.Codes.Length / 2)..], Bytes<float>(matrix.Scales.AsSpan(matrix.Scales.Length / 2)),
        ],
        _ => throw new ArgumentException($"Checkpoints have no format {matrix.Format}.", nameof(matrix)),
    };

    // Exact: the quantisers round these scales to BF16 before they take the codes from them.
    private static byte[] Bf16Scales(HostMatrix matrix) => Bytes<BFloat16>(Array.ConvertAll(matrix.Scales, s => (BFloat16)s));

    private static byte[] Bytes<T>(ReadOnlySpan<T> values)
        where T : unmanaged => MemoryMarshal.AsBytes(values).ToArray();
}
