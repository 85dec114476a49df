using ILGPU;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>
/// The scales of one matrix or of a stack, and where each lies. A slab is a matrix, or one term of it in a format whose
/// weights are sums.
/// </summary>
internal struct ScaleTable
{
    /// <summary>[Slabs, ⌈N / 2^RowShift⌉, Columns] multipliers; one a slab in a format with group scales; empty when unscaled.</summary>
    public ArrayView<float> Blocks;

    /// <summary>[Slabs, N, Columns] E4M3 multipliers of a format with group scales, else empty.</summary>
    public ArrayView<byte> Groups;

    /// <summary>
    /// [Slabs, ⌈N / 2^RowShift⌉, ⌈Columns / 2⌉] zero points, two a byte, the even block in the low half, of a format that has them,
    /// else empty.
    /// </summary>
    public ArrayView<byte> ZeroPoints;

    /// <summary>log2 of the rows that share a scale.</summary>
    public int RowShift;

    /// <summary>log2 of the columns that share a scale.</summary>
    public int ColumnShift;

    /// <summary>⌈K / 2^ColumnShift⌉.</summary>
    public int Columns;

    /// <summary>Block or group scales of one slab.</summary>
    public int PerSlab;

    /// <summary>Bytes of zero points of one slab.</summary>
    public int ZeroBytesPerSlab;

    /// <summary>Index of the multiplier of row <paramref name="n"/> and column <paramref name="k"/>.</summary>
    public readonly long Index(int slab, int n, int k) =>
        ((long)slab * PerSlab) + ((long)(n >> RowShift) * Columns) + (k >> ColumnShift);

    /// <summary>Zero point of row <paramref name="n"/> and column <paramref name="k"/>, 0..15.</summary>
    public readonly uint ZeroPoint(int slab, int n, int k)
    {
        int column = k >> ColumnShift;
        long index = ((long)slab * ZeroBytesPerSlab) + ((long)(n >> RowShift) * ((Columns + 1) >> 1)) + (column >> 1);
        return ((uint)ZeroPoints[index] >> (4 * (column & 1))) & 15;
    }
}
