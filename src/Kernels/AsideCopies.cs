using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Rows of a table of multipliers or zero points that a block brings into shared memory. The table begins at a multiple of 8 bytes, and its rows lie behind each other.</summary>
internal struct AsideRows
{
    /// <summary>The first row of W, and how many.</summary>
    public int First, Count;

    /// <summary>log2 of the rows of W that share a row of the table.</summary>
    public int Shift;

    /// <summary>Bytes of a row of the table.</summary>
    public int Bytes;

    /// <summary>Words of shared memory where the first row goes, and from there to the next.</summary>
    public int To, ToStep;
}

/// <summary>Starts the copies of <see cref="AsideRows"/>. Instructions count: a warp has some of the rows and, behind them, only a few chunks of weights (docs/kernels/gemv.md).</summary>
internal static class AsideCopies
{
    /// <summary>
    /// All warps of the block. Rows in shared memory begin at multiples of 8 bytes: copies of 8 where the table's do so, too, else of 4; bytes one by one, without <c>cp.async</c>, where they begin within a word.
    /// </summary>
    public static void Request(ArrayView<uint> shared, ArrayView<byte> table, AsideRows rows)
    {
        if ((rows.Bytes & 7) == 0)
            Words(shared, table.Cast<uint>(), rows, 1);
        else if ((rows.Bytes & 3) == 0)
            Words(shared, table.Cast<uint>(), rows, 0);
        else
            Bytes(shared.Cast<byte>(), table, rows);
    }

    /// <summary>Waits until all rows are there; the whole block.</summary>
    public static void Await()
    {
        CpAsync.WaitAll();
        // All warps' copies have landed.
        Block.Barrier();
    }

    // Where a row has fewer units of one or two words than a warp lanes, a warp has several rows at once.
    private static void Words(ArrayView<uint> shared, ArrayView<uint> table, AsideRows rows, int unitShift)
    {
        int lane = Group.IdxX & 31, words = rows.Bytes >> 2, units = words >> unitShift;
        int shift = IntrinsicMath.Min(5, 32 - Bits.LeadingZeros((uint)(units - 1)));
        int first = ((Group.IdxX >> 5) << (5 - shift)) + (lane >> shift), step = (Group.DimX >> 5) << (5 - shift);
        for (int unit = lane & ((1 << shift) - 1); unit < units; unit += 32)
        {
            int word = unit << unitShift;
            for (int row = first; row < rows.Count; row += step)
            {
                long from = (long)((rows.First + row) >> rows.Shift) * words;
                int to = rows.To + (row * rows.ToStep) + word;
                if (unitShift == 1)
                    CpAsync.Copy8(ref shared[to], ref table[from + word]);
                else
                    CpAsync.Copy4(ref shared[to], ref table[from + word]);
            }
        }
    }

    private static void Bytes(ArrayView<byte> shared, ArrayView<byte> table, AsideRows rows)
    {
        for (int row = Group.IdxX >> 5; row < rows.Count; row += Group.DimX >> 5)
        {
            long from = (long)((rows.First + row) >> rows.Shift) * rows.Bytes;
            int to = (rows.To + (row * rows.ToStep)) * sizeof(uint);
            for (int at = Group.IdxX & 31; at < rows.Bytes; at += 32)
                shared[to + at] = table[from + at];
        }
    }
}
