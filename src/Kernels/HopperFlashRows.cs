using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Queries of a warpgroup of <see cref="HopperFlash"/> into shared memory, and its outputs, in the same place, to where they belong.</summary>
internal static class HopperFlashRows
{
    private const int UnitBytes = 16, UnitShift = 4, Units = 1 << UnitShift, RowsTogether = Warpgroup.Threads >> UnitShift;

    /// <summary>Loads 64 rows; a meeting of the warpgroup must follow.</summary>
    public static void Load(HopperFlashArgs a, in HopperFlashBlock block, int row, uint queries)
    {
        int unit = Group.IdxX & (Units - 1);
        for (int i = (Group.IdxX & (Warpgroup.Threads - 1)) >> UnitShift; i < HopperFlash.WarpgroupRows; i += RowsTogether)
            SharedWindow.Store(queries + HopperFlashEdges.Place((uint)i, (uint)unit, HopperFlash.QuerySlabBytes), Mem.LoadGlobalFrom(a.Query + Place(block, row + i, unit)));
        Tma.FenceShared();
    }

    /// <summary>Stores the warpgroup's totals as BF16.</summary>
    public static void Store(HopperFlashArgs a, in HopperFlashBlock block, int row, (uint Outputs, uint Found) places, uint meeting)
    {
        uint lane = (uint)Warp.LaneIdx, named = ((((uint)Group.IdxX >> 5) & 3) * 16) + (lane & 15);
        // All warps have done with the queries.
        Warpgroup.Meet(meeting);
        WgmmaStore.Bf16Slab0(places.Outputs + HopperFlashEdges.Place(named, lane >> 4, HopperFlash.QuerySlabBytes));
        WgmmaStore.Bf16Slab1(places.Outputs + HopperFlashEdges.Place(named, 8 + (lane >> 4), HopperFlash.QuerySlabBytes));
        // All outputs are there.
        Warpgroup.Meet(meeting);
        int unit = Group.IdxX & (Units - 1), rows = a.Tokens * a.GroupSize;
        bool restores = SharedWindow.Load(places.Found).X != 0;
        for (int i = (Group.IdxX & (Warpgroup.Threads - 1)) >> UnitShift; i < HopperFlash.WarpgroupRows && row + i < rows; i += RowsTogether)
        {
            U4 output = SharedWindow.Load(places.Outputs + HopperFlashEdges.Place((uint)i, (uint)unit, HopperFlash.QuerySlabBytes));
            if (restores)
                output = HopperFlashEdges.Restored(a, block, row + i, unit, output);
            Mem.StoreGlobalTo(a.Output + Place(block, row + i, unit), output);
        }
    }

    private static long Place(in HopperFlashBlock block, int row, int unit) => (block.Tokens.Word(block.KvHead, row, HopperFlash.HeadDim) * sizeof(uint)) + (unit * UnitBytes);
}
