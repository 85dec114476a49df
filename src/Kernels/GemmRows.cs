using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>The rows of one tile of a product, the same for the whole block.</summary>
internal struct GemmRows
{
    /// <summary>The matrix that multiplies them; −1 past the last tile.</summary>
    public int Slab;

    /// <summary>Where they begin: a row of y, or a place in <see cref="LinearArgs.Order"/>.</summary>
    public int First;

    /// <summary>How many there are, at most a tile's.</summary>
    public int Count;

    /// <summary>Rows of tile number <paramref name="tile"/> of 2^<paramref name="shift"/> rows. Each expert's rows begin a tile of their own.</summary>
    public static GemmRows Find<TRows>(LinearArgs a, int tile, int shift)
        where TRows : struct, IRowMap
    {
        GemmRows range = default;
        range.Slab = -1;
        if (!TRows.IsGrouped)
        {
            long first = (long)tile << shift;
            if (first < a.M)
            {
                range.Slab = 0;
                range.First = (int)first;
                range.Count = IntrinsicMath.Min(1 << shift, a.M - (int)first);
            }
            return range;
        }
        int before = 0;
        for (int expert = 0; expert < a.ExpertCount && range.Slab < 0; expert++)
        {
            int start = a.Offsets[expert];
            int count = a.Offsets[expert + 1] - start;
            int tiles = (count + (1 << shift) - 1) >> shift;
            if (tile < before + tiles)
            {
                int offset = (tile - before) << shift;
                range.Slab = expert;
                range.First = start + offset;
                range.Count = IntrinsicMath.Min(1 << shift, count - offset);
            }
            before += tiles;
        }
        return range;
    }

    /// <summary>The row of y that row <paramref name="i"/> of the tile is, or −1.</summary>
    public readonly int Row<TRows>(LinearArgs a, int i)
        where TRows : struct, IRowMap => i >= Count ? -1 : TRows.IsGrouped ? ExistingRow(a, First + i) : First + i;

    // Routing comes from the device unchecked: what points outside the tensors is no row.
    private static int ExistingRow(LinearArgs a, int index)
    {
        int row = index >= 0 && index < a.M ? a.Order[index] : -1;
        return row < a.M ? row : -1;
    }
}
