using ILGPU;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>The scales of one matrix or of a stack, and where each lies.</summary>
internal struct ScaleTable
{
    /// <summary>[Slabs, ⌈N / 2^RowShift⌉, Columns] multipliers; one a slab in a format with group scales; empty when unscaled.</summary>
    public ArrayView<float> Blocks;

    /// <summary>[Slabs, N, Columns] E4M3 multipliers of a format with group scales, else empty.</summary>
    public ArrayView<byte> Groups;

    /// <summary>log2 of the rows that share a scale.</summary>
    public int RowShift;

    /// <summary>log2 of the columns that share a scale.</summary>
    public int ColumnShift;

    /// <summary>⌈K / 2^ColumnShift⌉.</summary>
    public int Columns;

    /// <summary>Block or group scales of one matrix.</summary>
    public int PerSlab;

    /// <summary>Index of the multiplier of row <paramref name="n"/> and column <paramref name="k"/>.</summary>
    public readonly long Index(int slab, int n, int k) =>
        ((long)slab * PerSlab) + ((long)(n >> RowShift) * Columns) + (k >> ColumnShift);
}
