using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Whether blocks of <see cref="HopperMixedGemm"/> have parts of K, up to 128 rows of x.</summary>
internal interface IMixedSplit
{
    static abstract bool Exists { get; }
}

/// <summary>All of K.</summary>
internal readonly struct AllOfK : IMixedSplit
{
    public static bool Exists => false;
}

/// <summary>A part of K.</summary>
internal readonly struct PartOfK : IMixedSplit
{
    public static bool Exists => true;
}

/// <summary>Sums of parts of K of <see cref="HopperMixedGemm"/>, added in their order by the warpgroup that is the last of its columns to be done.</summary>
internal static class HopperMixedParts
{
    /// <summary>Leaves a part's totals and, if all other parts are there, adds all; says whether it did.</summary>
    /// <param name="a">Arguments.</param>
    /// <param name="rows">The tile's rows.</param>
    /// <param name="warpgroup">Which of the block's.</param>
    /// <param name="last">Shared address of 16 bytes of the warpgroup's own.</param>
    public static bool Add(HopperMixedArgs a, int rows, int warpgroup, uint last)
    {
        int tile = Grid.IdxX % a.WholeTiles, parts = (a.Steps + a.PartSteps - 1) / a.PartSteps;
        long stride = (long)a.WholeTiles * HopperMixedSharing.TileBytes(a.TileRows);
        long first = HopperMixedSharing.Place(a, tile, warpgroup), own = first + (Grid.IdxX / a.WholeTiles * stride);
        HopperMixedSharing.Store(own, rows);
        uint meeting = (uint)(warpgroup + 1);
        // The warpgroup's totals are written before it counts.
        Warpgroup.Meet(meeting);
        if ((Group.IdxX & (Warpgroup.Threads - 1)) == 0)
        {
            U4 seen = default;
            seen.X = Fence.CountAround(HopperMixedSharing.Counter(a, tile, warpgroup), (uint)(parts - 1));
            SharedWindow.Store(last, seen);
        }
        // All know its number, and see what the others wrote before they counted.
        Warpgroup.Meet(meeting);
        if (SharedWindow.Load(last).X != (uint)(parts - 1))
            return false;
        Wgmma.Clear();
        for (int part = 0; part < parts; part++)
        {
            long from = first + (part * stride);
            WgmmaTotals.Add0(from);
            if (rows > HopperMixedSharing.PartRows)
                WgmmaTotals.Add1(from + HopperMixedSharing.PartBytes);
        }
        return true;
    }
}
