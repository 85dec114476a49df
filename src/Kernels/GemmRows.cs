using GpuKit.Ilgpu.Kernels.Isa;
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

    /// <summary>Rows of tile number <paramref name="tile"/> of 2^<paramref name="shift"/> rows. Each expert's rows begin a tile of their own. All lanes of a warp call it.</summary>
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
        // 32 experts at a time, a lane each: one expert after the other would be as many loads in a row.
        int lane = Group.IdxX & 31, before = 0;
        for (int first = 0; first < a.ExpertCount && range.Slab < 0; first += 32)
        {
            int expert = first + lane, start = 0, count = 0;
            if (expert < a.ExpertCount)
            {
                start = a.Offsets[expert];
                count = a.Offsets[expert + 1] - start;
            }
            int tiles = (count + (1 << shift) - 1) >> shift, end = before + SumUpTo(tiles, lane);
            int found = WarpOps.SumInt(tile >= end - tiles && tile < end ? expert + 1 : 0) - 1;
            if (found >= 0)
            {
                int offset = (tile - From(end - tiles, found)) << shift;
                range.Slab = found;
                range.First = From(start, found) + offset;
                range.Count = IntrinsicMath.Min(1 << shift, From(count, found) - offset);
            }
            before = From(end, 31);
        }
        return range;
    }

    /// <summary>The row of y that row <paramref name="i"/> of the tile is, or −1.</summary>
    public readonly int Row<TRows>(LinearArgs a, int i)
        where TRows : struct, IRowMap => i >= Count ? -1 : TRows.IsGrouped ? ExistingRow(a, First + i) : First + i;

    // The sum of the values of this lane and those below it.
    private static int SumUpTo(int value, int lane)
    {
        for (int distance = 1; distance < 32; distance <<= 1)
        {
            int below = From(value, lane - distance);
            value += lane >= distance ? below : 0;
        }
        return value;
    }

    // Of lane `lane` modulo 32.
    private static int From(int value, int lane) => (int)WarpOps.Shuffle((uint)value, lane);

    // Routing comes from the device unchecked: what points outside the tensors is no row.
    private static int ExistingRow(LinearArgs a, int index)
    {
        int row = index >= 0 && index < a.M ? a.Order[index] : -1;
        return row < a.M ? row : -1;
    }
}
