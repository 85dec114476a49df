using System.Runtime.InteropServices;
using GpuKit.Ilgpu.Kernels.Formats;

namespace GpuKit.Ilgpu;

/// <summary>What rows must hold before they are written to a <see cref="QuantizedMatrix"/>.</summary>
internal static class MatrixContents
{
    /// <summary>Throws unless codes and scales have the right sizes and no NaN.</summary>
    public static void Check(QuantizedMatrix matrix, (int First, int Count) rows, ReadOnlySpan<byte> codes, ReadOnlySpan<float> scales, ReadOnlySpan<byte> groupScales, string name)
    {
        WeightFormatInfo info = matrix.Format.Info();
        ScaleBlock block = matrix.Block;
        (int first, int count) = rows;
        int k = matrix.K;
        if (codes.Length != count * info.RowBytes(k))
            throw new ArgumentException($"{name}: {codes.Length} bytes of codes for [{count}, {k}] in {info.Name}, which needs {count * info.RowBytes(k)}.");
        if (info.IsScaled && (first % block.Rows != 0 || (count % block.Rows != 0 && first + count != matrix.N)))
            throw new ArgumentException($"{name}: rows {first}..{first + count} do not lie on the edges of {block.Rows}-row scale blocks.");
        if (info.HasGroupScales && count != matrix.N)
            throw new ArgumentException($"{name}: rows {first}..{first + count} of [{matrix.N}, {k}]; {info.Name} has one scale for all rows, so they are written at once.");
        int needed = info.IsScaled ? block.RowBlocks(count) * block.ColumnBlocks(k) : 0;
        if (groupScales.Length != (info.HasGroupScales ? needed : 0))
            throw new ArgumentException($"{name}: {groupScales.Length} group scales for [{count}, {k}] in {info.Name}, which needs {(info.HasGroupScales ? needed : 0)}.");
        if (info.HasGroupScales ? scales.Length != 1 : scales.Length != needed)
            throw new ArgumentException(info.HasGroupScales
                ? $"{name}: {scales.Length} matrix scales; {info.Name} needs one."
                : $"{name}: {scales.Length} scales for [{count}, {k}]; {block.Rows}×{block.Columns} blocks need [{block.RowBlocks(count)}, {block.ColumnBlocks(k)}] = {needed}.");
        RejectNaN(matrix, codes, scales, groupScales, name);
    }

    // A NaN weight makes every output NaN, and the bit-move decoders would even read it as a number: refused at the door.
    private static void RejectNaN(QuantizedMatrix matrix, ReadOnlySpan<byte> codes, ReadOnlySpan<float> scales, ReadOnlySpan<byte> groupScales, string name)
    {
        long bad = matrix.Format switch
        {
            WeightFormat.Bf16 => IndexOfNaN(MemoryMarshal.Cast<byte, ushort>(codes)),
            WeightFormat.Fp8Block => codes.IndexOfAny((byte)0x7F, (byte)0xFF),
            // Every four-bit code is a number.
            _ => -1,
        };
        if (bad >= 0)
            throw new ArgumentException($"{name}: the weight at row {bad / matrix.K}, column {bad % matrix.K} is NaN.");
        for (int i = 0; i < scales.Length; i++)
            if (!float.IsFinite(scales[i]))
                throw new ArgumentException($"{name}: scale {i} is {scales[i]}; scales must be finite.");
        int group = groupScales.IndexOfAny((byte)0x7F, (byte)0xFF);
        if (group >= 0)
            throw new ArgumentException($"{name}: the scale of row {group / matrix.Block.ColumnBlocks(matrix.K)}, group {group % matrix.Block.ColumnBlocks(matrix.K)} is NaN.");
    }

    private static int IndexOfNaN(ReadOnlySpan<ushort> bits)
    {
        for (int i = 0; i < bits.Length; i++)
            if ((bits[i] & 0x7FFF) > 0x7F80)
                return i;
        return -1;
    }
}
