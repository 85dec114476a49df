using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Where a thread of <see cref="HopperGemm"/> stands in the ring of stages.</summary>
internal struct HopperRing
{
    public int Stage;

    /// <summary>Parity of the round: which phase of a stage's barriers is meant.</summary>
    public uint Parity;

    /// <summary>The next stage.</summary>
    public void Advance<TProduct>()
        where TProduct : struct, IHopperProduct => Advance(TProduct.Stages);

    /// <summary>The one before, of so many stages.</summary>
    public HopperRing Before(int stages)
    {
        HopperRing before;
        before.Stage = Stage == 0 ? stages - 1 : Stage - 1;
        before.Parity = Stage == 0 ? Parity ^ 1 : Parity;
        return before;
    }

    /// <summary>The next of so many stages.</summary>
    public void Advance(int stages)
    {
        Stage++;
        if (Stage == stages)
        {
            Stage = 0;
            Parity ^= 1;
        }
    }
}

/// <summary>The row and column where a tile of <see cref="HopperGemm"/> begins.</summary>
internal struct HopperTile
{
    // Tiles are taken in groups of so many tile rows: what a group reads of x stays in L2 while W passes by.
    private const int RowsTogether = 8;

    public int Row, Column;

    /// <summary>Place of a tile by its number; with clusters a tile is a pair of blocks, of which this is block <paramref name="rank"/>.</summary>
    public static HopperTile Locate<TProduct, TCluster>(HopperArgs a, int tile, int rank)
        where TProduct : struct, IHopperProduct
        where TCluster : struct, IClusterSize
    {
        int perGroup = RowsTogether * a.ColumnTiles, group = tile / perGroup, within = tile - (group * perGroup);
        int rows = IntrinsicMath.Min(RowsTogether, a.RowTiles - (group * RowsTogether)), column = within / rows;
        HopperTile place;
        place.Row = ((((group * RowsTogether) + within - (column * rows)) * TCluster.Count) + rank) * HopperGemm.TileRows<TProduct>();
        place.Column = column * HopperGemm.TileColumns<TProduct>();
        return place;
    }
}
