using System.Runtime.InteropServices;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// The tensors that a weight <c>X.weight</c> of shape <c>[n, k]</c> takes in a checkpoint, a format: the one place that knows
/// their names, types, shapes and bytes.
/// </summary>
internal static class WeightTensors
{
    /// <summary>FP8: float32 or BF16 <c>[⌈n / block rows⌉, ⌈k / block columns⌉]</c>.</summary>
    public const string BlockScales = "_scale_inv";

    /// <summary>INT4: BF16 or float32 <c>[n, ⌈k / group⌉]</c>. NVFP4: E4M3 <c>[n, ⌈k / 16⌉]</c>.</summary>
    public const string GroupScales = "_scale";

    /// <summary>NVFP4: one float32.</summary>
    public const string MatrixScale = "_scale_2";

    /// <summary>Codes that stand for zero, of formats that are not symmetric.</summary>
    public const string ZeroPoints = "_zero_point";

    /// <summary>Names, types and shapes as they are written.</summary>
    public static TensorDeclaration[] Declare(string name, WeightFormat format, ScaleBlock? block, int n, int k)
    {
        ScaleBlock scale = format.BlockOr(block);
        long[] packed = [n, format.RowBytes(k)], scales = [scale.RowBlocks(n), scale.ColumnBlocks(k)];
        return format switch
        {
            WeightFormat.Bf16 => [new(name, TensorType.BF16, [n, k])],
            WeightFormat.Fp8Block => [new(name, TensorType.F8E4M3, [n, k]), new(name + BlockScales, TensorType.F32, scales)],
            WeightFormat.Nvfp4 => [new(name, TensorType.U8, packed), new(name + GroupScales, TensorType.F8E4M3, scales), new(name + MatrixScale, TensorType.F32, [])],
            WeightFormat.Int4 => [new(name, TensorType.U8, packed), new(name + GroupScales, TensorType.BF16, scales)],
            _ => throw new ArgumentOutOfRangeException(nameof(format), format, "Checkpoints have no such format."),
        };
    }

    /// <summary>The bytes of a matrix, in the order of <see cref="Declare"/>.</summary>
    public static byte[][] Contents(HostMatrix matrix) => matrix.Format switch
    {
        WeightFormat.Bf16 => [matrix.Codes],
        WeightFormat.Fp8Block => [matrix.Codes, Bytes<float>(matrix.Scales)],
        WeightFormat.Nvfp4 => [matrix.Codes, matrix.GroupScales, Bytes<float>(matrix.Scales)],
        // Exact: the quantiser rounds these scales to BF16 before it takes the codes from them.
        WeightFormat.Int4 => [matrix.Codes, Bytes<BFloat16>(Array.ConvertAll(matrix.Scales, s => (BFloat16)s))],
        _ => throw new ArgumentException($"Checkpoints have no format {matrix.Format}.", nameof(matrix)),
    };

    private static byte[] Bytes<T>(ReadOnlySpan<T> values)
        where T : unmanaged => MemoryMarshal.AsBytes(values).ToArray();
}
