using System.Numerics;
using System.Runtime.InteropServices;
using GpuKit.Ilgpu.Kernels.Formats;

namespace GpuKit.Ilgpu;

/// <summary>Rows to be written to a <see cref="QuantizedMatrix"/>, laid out as in <see cref="HostMatrix"/>.</summary>
internal readonly ref struct MatrixRows
{
    /// <summary>The first row's number in the matrix.</summary>
    public int First { get; init; }

    public int Count { get; init; }

    public ReadOnlySpan<byte> Codes { get; init; }

    /// <summary>Two-term FP8: the codes of the second term.</summary>
    public ReadOnlySpan<byte> Residual { get; init; }

    public ReadOnlySpan<float> Scales { get; init; }

    public ReadOnlySpan<byte> GroupScales { get; init; }

    public ReadOnlySpan<byte> ZeroPoints { get; init; }
}

/// <summary>What rows must hold before they are written to a <see cref="QuantizedMatrix"/>.</summary>
internal static class MatrixContents
{
    /// <summary>Throws unless codes and scales have the right sizes, no scale is NaN and no group scale negative. Codes are many: looking at them is <see cref="FindNaN"/>'s.</summary>
    public static void Check(QuantizedMatrix matrix, in MatrixRows rows, string name)
    {
        WeightFormatInfo info = matrix.Format.Info();
        ScaleBlock block = matrix.Block;
        (int first, int count) = (rows.First, rows.Count);
        ReadOnlySpan<float> scales = rows.Scales;
        int k = matrix.K;
        long codes = (long)rows.Codes.Length + rows.Residual.Length;
        if (codes != info.Bytes(count, k))
            throw new ArgumentException($"{name}: {codes} bytes of codes for [{count}, {k}] in {info.Name}, which needs {info.Bytes(count, k)}.");
        if (info.IsScaled && (first % block.Rows != 0 || (count % block.Rows != 0 && first + count != matrix.N)))
            throw new ArgumentException($"{name}: rows {first}..{first + count} do not lie on the edges of {block.Rows}-row scale blocks.");
        if (info.HasGroupScales && count != matrix.N)
            throw new ArgumentException($"{name}: rows {first}..{first + count} of [{matrix.N}, {k}]; {info.Name} has one scale for all rows, so they are written at once.");
        int needed = info.IsScaled ? info.Terms * block.RowBlocks(count) * block.ColumnBlocks(k) : 0;
        if (rows.GroupScales.Length != (info.HasGroupScales ? needed : 0))
            throw new ArgumentException($"{name}: {rows.GroupScales.Length} group scales for [{count}, {k}] in {info.Name}, which needs {(info.HasGroupScales ? needed : 0)}.");
        if (info.HasGroupScales ? scales.Length != 1 : scales.Length != needed)
            throw new ArgumentException(info.HasGroupScales
                ? $"{name}: {scales.Length} matrix scales; {info.Name} needs one."
                : $"{name}: {scales.Length} scales for [{count}, {k}]; {block.Rows}×{block.Columns} blocks need {(info.Terms > 1 ? $"{info.Terms} × " : "")}[{block.RowBlocks(count)}, {block.ColumnBlocks(k)}] = {needed}.");
        long zeros = info.HasZeroPoints ? block.ZeroPointBytes(count, k) : 0;
        if (rows.ZeroPoints.Length != zeros)
            throw new ArgumentException($"{name}: {rows.ZeroPoints.Length} bytes of zero points for [{count}, {k}] in {info.Name} with {block.Rows}×{block.Columns} blocks, which needs {zeros}.");
        RefuseScales(matrix, rows, name);
    }

    /// <summary>The place of the first byte of a NaN weight, or a negative number.</summary>
    // A NaN weight makes every output NaN, and the bit-move decoders would even read it as a number: refused at the door.
    public static int FindNaN(WeightFormat format, ReadOnlySpan<byte> codes) => format switch
    {
        WeightFormat.Bf16 => sizeof(short) * IndexOfNaN(MemoryMarshal.Cast<byte, short>(codes)),
        WeightFormat.Fp8Block or WeightFormat.Fp8TwoTerm => codes.IndexOfAny((byte)0x7F, (byte)0xFF),
        // Every four-bit code is a number.
        _ => -1,
    };

    /// <summary>Throws for a place that <see cref="FindNaN"/> found.</summary>
    public static void Refuse(QuantizedMatrix matrix, int badByte, string name)
    {
        if (badByte < 0)
            return;
        int bad = badByte / (matrix.Format == WeightFormat.Bf16 ? sizeof(short) : 1);
        throw new ArgumentException($"{name}: the weight at row {bad / matrix.K}, column {bad % matrix.K} is NaN.");
    }

    private static void RefuseScales(QuantizedMatrix matrix, in MatrixRows rows, string name)
    {
        for (int i = 0; i < rows.Scales.Length; i++)
            if (!float.IsFinite(rows.Scales[i]))
                throw new ArgumentException($"{name}: scale {i} is {rows.Scales[i]}; scales must be finite.");
        int group = rows.GroupScales.IndexOfAny((byte)0x7F, (byte)0xFF);
        if (group >= 0)
            throw new ArgumentException($"{name}: the scale of row {group / matrix.Block.ColumnBlocks(matrix.K)}, group {group % matrix.Block.ColumnBlocks(matrix.K)} is NaN.");
        // Tensor cores that multiply scales themselves take them for magnitudes.
        group = rows.GroupScales.IndexOfAnyInRange((byte)0x81, (byte)0xFF);
        if (group >= 0)
            throw new ArgumentException($"{name}: the scale of row {group / matrix.Block.ColumnBlocks(matrix.K)}, group {group % matrix.Block.ColumnBlocks(matrix.K)} is negative.");
    }

    // Without the sign a NaN is above infinity. As signed numbers, which vectors compare in one instruction.
    private static int IndexOfNaN(ReadOnlySpan<short> bits)
    {
        const short Magnitude = 0x7FFF, Infinity = 0x7F80;
        int i = 0;
        while (i <= bits.Length - Vector<short>.Count && !Vector.GreaterThanAny(new Vector<short>(bits[i..]) & new Vector<short>(Magnitude), new Vector<short>(Infinity)))
            i += Vector<short>.Count;
        for (; i < bits.Length; i++)
            if ((bits[i] & Magnitude) > Infinity)
                return i;
        return -1;
    }
}
