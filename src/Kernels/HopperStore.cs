using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>A warpgroup's totals to y, through two slabs of shared memory that the copy engine empties in turn.</summary>
internal static class HopperStore
{
    private const int SlabBytes = HopperGemm.WarpgroupRows * HopperGemm.StepBytes, SlabsKept = 2;

    /// <summary>Shared memory of a warpgroup.</summary>
    public const int Bytes = SlabsKept * SlabBytes;

    /// <summary>Stores 64 rows × <paramref name="columns"/> columns; what lies beyond y is dropped.</summary>
    public static void Tile<TOutput>(HopperArgs a, HopperTile place, uint slabs, int warpgroup, int columns)
        where TOutput : struct, IHopperOutput
    {
        bool leads = (Group.IdxX & (Warpgroup.Threads - 1)) == 0;
        uint meeting = (uint)(warpgroup + 1), part = LanePart<TOutput>();
        for (int slab = 0; slab * TOutput.SlabColumns < columns; slab++)
        {
            // The last slab of a width that is no multiple of one begins earlier, and what it has in common with the one before is stored twice.
            int within = IntrinsicMath.Min(slab * TOutput.SlabColumns, columns - TOutput.SlabColumns), column = place.Column + within;
            uint buffer = slabs + (uint)((slab & 1) * SlabBytes);
            // A width of three slabs has left the last of the tile before in the first one's buffer; the sums in between have been time enough to read it.
            if (leads && slab == 0)
                Tma.WaitRead(0);
            else if (leads)
                Tma.WaitRead(1);
            // The last store of this slab's buffer has been read.
            Warpgroup.Meet(meeting);
            TOutput.Store(within, buffer + part);
            Tma.FenceShared();
            // All of the slab is written before it is copied.
            Warpgroup.Meet(meeting);
            if (leads)
            {
                if (place.Row < a.M && column < a.N)
                    Tma.Store(a.Output, HopperArgs.OutputMap, buffer, column, place.Row);
                Tma.Commit();
            }
        }
    }

    // Where a lane's part of a slab begins: for BF16 the row that it names to stmatrix, 16 rows a warp and the second eight columns for
    // the upper half of the warp; for float32 its own upper row and pair of columns. 16-byte words of a row are swizzled.
    private static uint LanePart<TOutput>()
        where TOutput : struct, IHopperOutput
    {
        uint lane = (uint)Warp.LaneIdx, firstRow = (((uint)Group.IdxX >> 5) & 3) * 16;
        if (TOutput.SlabColumns == 64)
        {
            uint named = firstRow + (lane & 15);
            return (named * HopperGemm.StepBytes) + (((lane >> 4) ^ (named & 7)) << 4);
        }
        uint row = firstRow + (lane >> 2);
        return (row * HopperGemm.StepBytes) + ((((lane & 3) >> 1) ^ (row & 7)) << 4) + ((lane & 1) * 8);
    }
}
