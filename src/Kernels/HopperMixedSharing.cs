using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>A warpgroup's totals of a tile that two blocks of <see cref="HopperMixedGemm"/> share, from the one to the other through global memory.</summary>
internal static class HopperMixedSharing
{
    // Rows of y of a part, and its bytes: 32 totals of each of the warpgroup's threads.
    private const int PartRows = 64, PartBytes = PartRows * HopperMixedGemm.WarpgroupColumns * sizeof(float);

    // How a counter wraps: 0, then 1 while totals lie there.
    private const uint Lies = 1;

    /// <summary>Leaves the totals of so many rows, and says that they are there.</summary>
    public static void HandOver(HopperMixedArgs a, int rows, int warpgroup)
    {
        long to = Place(a, warpgroup);
        WgmmaTotals.Store0(to);
        if (rows > PartRows)
            WgmmaTotals.Store1(to + PartBytes);
        if (rows > 2 * PartRows)
            WgmmaTotals.Store2(to + (2 * PartBytes));
        // All threads' are written before one of them says so.
        Warpgroup.Meet((uint)(warpgroup + 1));
        if ((Group.IdxX & (Warpgroup.Threads - 1)) == 0)
            _ = Fence.CountAround(Counter(a, warpgroup), Lies);
    }

    /// <summary>Waits for totals of so many rows that another block leaves, and takes them. The counter is zero again.</summary>
    public static void TakeOver(HopperMixedArgs a, int rows, int warpgroup)
    {
        if ((Group.IdxX & (Warpgroup.Threads - 1)) == 0)
        {
            long counter = Counter(a, warpgroup);
            while (Mem.LoadRelaxedFrom(counter) != Lies)
            {
            }
            _ = Fence.CountAround(counter, Lies);
        }
        // Nobody reads before one has seen that they are there.
        Warpgroup.Meet((uint)(warpgroup + 1));
        long from = Place(a, warpgroup);
        WgmmaTotals.Load0(from);
        if (rows > PartRows)
            WgmmaTotals.Load1(from + PartBytes);
        if (rows > 2 * PartRows)
            WgmmaTotals.Load2(from + (2 * PartBytes));
    }

    // Each thread's own 16 bytes of the first 2,048, and so on.
    private static long Place(HopperMixedArgs a, int warpgroup) =>
        a.Partials + ((long)HopperMixedTurns.Shared * TileBytes(a.TileRows)) + ((long)warpgroup * TileBytes(a.TileRows) / 2) + ((Group.IdxX & (Warpgroup.Threads - 1)) * 16);

    private static int TileBytes(int tileRows) => HopperMixedGemm.TileColumns / HopperMixedGemm.WarpgroupColumns * ((tileRows + PartRows - 1) / PartRows) * PartBytes;

    private static long Counter(HopperMixedArgs a, int warpgroup) => a.Arrived + (((2L * HopperMixedTurns.Shared) + warpgroup) * sizeof(int));
}
