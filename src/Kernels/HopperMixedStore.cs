using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// A warpgroup's totals [64 columns of y, rows of y] of <see cref="HopperMixedGemm"/> to y: transposed through two slabs of shared memory used in turn, then row by row
/// in 16-byte words, since neighbouring rows may belong to any rows of y.
/// </summary>
internal static class HopperMixedStore
{
    private const int SlabBytes = 8192, WordBytes = 16;

    /// <summary>Shared memory of a warpgroup.</summary>
    public const int Bytes = 2 * SlabBytes;

    /// <summary>Stores a tile; <paramref name="turn"/> is the slab to begin with and goes on from tile to tile.</summary>
    public static void Tile<TOutput, TRows>(HopperMixedArgs a, in HopperMixedTiles tile, uint slabs, int warpgroup, ref int turn)
        where TOutput : struct, IMixedOutput
        where TRows : struct, IRowMap
    {
        int thread = Group.IdxX & (Warpgroup.Threads - 1), wordsInRow = SlabBytes / TOutput.SlabRows / WordBytes;
        int word = thread & (wordsInRow - 1), first = thread / wordsInRow, stride = Warpgroup.Threads / wordsInRow;
        int column = tile.Column + (warpgroup * HopperMixedGemm.WarpgroupColumns) + (word * (WordBytes / TOutput.ElementBytes));
        uint part = TOutput.LanePart();
        for (int slab = 0; slab * TOutput.SlabRows < tile.Count; slab++)
        {
            uint buffer = slabs + (uint)(turn * SlabBytes);
            turn ^= 1;
            TOutput.Store(slab, buffer + part);
            // All of the slab is written before it is read. Its buffer is written again after the next meeting only, when all have read it.
            Warpgroup.Meet((uint)(warpgroup + 1));
            for (int i = first; i < TOutput.SlabRows; i += stride)
            {
                int inTile = (slab * TOutput.SlabRows) + i;
                int row = inTile < tile.Count && column < a.N ? HopperMixedTiles.Row<TRows>(a, tile.First + inTile) : -1;
                if (row >= 0)
                    Mem.StoreGlobalTo(a.Output + (row * a.OutputStride) + ((long)column * TOutput.ElementBytes), SharedWindow.Load(buffer + TOutput.WordAddress((uint)i, (uint)word)));
            }
        }
    }
}

/// <summary>Element type of y, and how totals become rows of it in shared memory.</summary>
internal interface IMixedOutput
{
    static abstract int ElementBytes { get; }

    /// <summary>Rows of y of a slab.</summary>
    static abstract int SlabRows { get; }

    /// <summary>Where this lane's part of a slab begins.</summary>
    static abstract uint LanePart();

    /// <summary>Writes slab <paramref name="slab"/> of the totals.</summary>
    static abstract void Store(int slab, uint to);

    /// <summary>Where a 16-byte word of a row lies in a slab.</summary>
    static abstract uint WordAddress(uint row, uint word);
}

/// <summary>BF16, rounded to nearest even. Words of a row are exchanged by the row's number modulo 8.</summary>
internal readonly struct MixedBf16Output : IMixedOutput
{
    public static int ElementBytes => 2;

    public static int SlabRows => 64;

    // The row that the lane names to stmatrix: of matrices 0 to 3 the second and fourth have the columns 8 to 15 of the warp, the last two rows 8 to 15.
    public static uint LanePart()
    {
        uint lane = (uint)Warp.LaneIdx, matrix = lane >> 3, row = (lane & 7) + ((matrix >> 1) * 8);
        return WordAddress(row, ((((uint)Group.IdxX >> 5) & 3) * 2) + (matrix & 1));
    }

    public static void Store(int slab, uint to)
    {
        if (slab == 0)
            WgmmaStore.TransposedBf16Slab0(to);
        else if (slab == 1)
            WgmmaStore.TransposedBf16Slab1(to);
        else
            WgmmaStore.TransposedBf16Slab2(to);
    }

    public static uint WordAddress(uint row, uint word) => (row * 128) + ((word ^ (row & 7)) << 4);
}

/// <summary>float32. Words of a row are exchanged by the number of the pair of rows modulo 4, two at a time.</summary>
internal readonly struct MixedFloat32Output : IMixedOutput
{
    public static int ElementBytes => 4;

    public static int SlabRows => 32;

    // Row 2t, column 16·w + g of the slab's first eight rows.
    public static uint LanePart()
    {
        uint lane = (uint)Warp.LaneIdx, group = lane >> 2;
        return WordAddress((lane & 3) * 2, ((((uint)Group.IdxX >> 5) & 3) * 4) + (group >> 2)) + ((group & 3) * 4);
    }

    public static void Store(int slab, uint to)
    {
        if (slab == 0)
            WgmmaStore.TransposedFloat32Slab0(to);
        else if (slab == 1)
            WgmmaStore.TransposedFloat32Slab1(to);
        else if (slab == 2)
            WgmmaStore.TransposedFloat32Slab2(to);
        else if (slab == 3)
            WgmmaStore.TransposedFloat32Slab3(to);
        else if (slab == 4)
            WgmmaStore.TransposedFloat32Slab4(to);
        else
            WgmmaStore.TransposedFloat32Slab5(to);
    }

    public static uint WordAddress(uint row, uint word) => (row * 256) + ((word ^ (((row >> 1) & 3) * 2)) << 4);
}
