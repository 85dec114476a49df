using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// The tiles of <see cref="HopperMixedGemm"/> in turn. Each expert's rows begin a tile of their own; with experts a block meets its tiles in ascending order, so
/// the walk over the experts goes on where it stood.
/// </summary>
internal struct HopperMixedTiles
{
    // As HopperTile: so many tiles of rows together, whose x stays in L2 while W passes by.
    private const int RowsTogether = 8;

    private int expert, before, end, start, count;

    /// <summary>The matrix of the tile.</summary>
    public int Expert;

    /// <summary>Place of its first row.</summary>
    public int First;

    /// <summary>Its rows.</summary>
    public int Count;

    /// <summary>Its first column of y.</summary>
    public int Column;

    /// <summary>Before the first tile.</summary>
    public void Start<TRows>(HopperMixedArgs a)
        where TRows : struct, IRowMap
    {
        expert = 0;
        before = 0;
        Enter<TRows>(a);
    }

    /// <summary>Goes to a tile by its number; false behind the last one.</summary>
    public bool Find<TRows>(HopperMixedArgs a, int tile)
        where TRows : struct, IRowMap
    {
        while (tile >= end)
        {
            expert++;
            if (expert >= a.ExpertCount)
                return false;
            before = end;
            Enter<TRows>(a);
        }
        int within = tile - before, perGroup = RowsTogether * a.ColumnTiles, group = within / perGroup;
        within -= group * perGroup;
        int rows = IntrinsicMath.Min(RowsTogether, RowTiles(a) - (group * RowsTogether)), column = within / rows;
        int offset = ((group * RowsTogether) + within - (column * rows)) * a.TileRows;
        Expert = expert;
        First = start + offset;
        Count = IntrinsicMath.Min(a.TileRows, count - offset);
        Column = column * HopperMixedGemm.TileColumns;
        return true;
    }

    /// <summary>The row of y of a place, or −1: routing comes from the device unchecked.</summary>
    public static int Row<TRows>(HopperMixedArgs a, int place)
        where TRows : struct, IRowMap
    {
        if (place < 0 || place >= a.M)
            return -1;
        if (!TRows.IsGrouped || a.Order == 0)
            return place;
        int row = Int(a.Order, place);
        return row < a.M ? row : -1;
    }

    private void Enter<TRows>(HopperMixedArgs a)
        where TRows : struct, IRowMap
    {
        start = TRows.IsGrouped ? Int(a.Offsets, expert) : 0;
        count = TRows.IsGrouped ? Int(a.Offsets, expert + 1) - start : a.M;
        end = before + (RowTiles(a) * a.ColumnTiles);
    }

    private readonly int RowTiles(HopperMixedArgs a) => (count + a.TileRows - 1) / a.TileRows;

    private static int Int(long table, int index) => (int)Interop.FloatAsInt(Mem.LoadReadOnlyFloat(table + ((long)index * sizeof(int))));
}
