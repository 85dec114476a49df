using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>How a product of 17 to 64 rows is spread over blocks by <see cref="SplitGemm"/>: a pure function of shape and device.</summary>
/// <param name="Tile">The kernel.</param>
/// <param name="Columns">Tiles along N.</param>
/// <param name="Parts">Parts of K.</param>
/// <param name="PartTurns">Turns of 64 columns of a part.</param>
internal readonly record struct SplitPlan(SplitTile Tile, int Columns, int Parts, int PartTurns)
{
    /// <summary>Most rows of x.</summary>
    public const int MostRows = 64;

    /// <summary>Most columns: places within a tile are counted in 32 bits.</summary>
    public const int MostColumns = 1 << 23;

    private const int MostParts = 8;

    // Hopper's own BF16 tiles lose to a split K where so few of them are so long (docs/kernels/gemm.md).
    private const int LongColumns = 4096;

    /// <summary>Whether a device has a kernel for it.</summary>
    public static bool Exists(in LinearShape shape, in LinearDevice device) => shape.CanSplit && SplitKernels.Find(shape.Format, Rows(shape), device) is not null;

    /// <summary>Whether a product that Hopper has BF16 tiles for is faster here: a tile for every fourth multiprocessor at most, and long sums.</summary>
    public static bool IsFasterThanHoppersTiles(in LinearShape shape, in LinearDevice device) =>
        shape.K >= LongColumns && 4 * Count(shape.N, SplitGemm.Columns) <= device.Multiprocessors && Exists(shape, device);

    /// <summary>The plan of a product for which <see cref="Exists"/> holds.</summary>
    public static SplitPlan Choose(in LinearShape shape, in LinearDevice device) => Of(SplitKernels.Find(shape.Format, Rows(shape), device)!.Value, shape, device);

    /// <summary>The plan with a given kernel and, for tests and benchmarks, number of parts, as far as there is room for their sums.</summary>
    public static SplitPlan Of(SplitTile tile, in LinearShape shape, in LinearDevice device, int? parts = null)
    {
        int columns = Count(shape.N, SplitGemm.Columns), turns = Count(shape.K, SplitGemm.TurnColumns);
        int most = Math.Max(1, LaunchScratch.BlocksOf(device.Multiprocessors) / columns);
        int best = Math.Min(parts ?? ChooseParts(columns, turns, device).Parts, most);
        int partTurns = Math.Max(1, Count(turns, best));
        return new SplitPlan(tile, columns, Math.Max(1, Count(turns, partTurns)), partTurns);
    }

    /// <summary>The launch.</summary>
    public LinearPlan Launch() => new(LinearPath.SplitGemm, LinearPlan.TileDecoding(Tile.Format), true, Columns, Parts, Tile.Threads, SharedBytes: Tile.SharedBytes, Split: this);

    /// <summary>Parts of <paramref name="turns"/> turns, of 64 columns, for so many tiles along N, and what they cost in turns.</summary>
    public static (int Parts, long Cost) ChooseParts(int columns, int turns, in LinearDevice device)
    {
        // What beginning and ending a block takes, and what adding parts takes, in turns.
        const int Block = 10, Adding = 8;
        (int best, long least) = (1, long.MaxValue);
        for (int parts = 1; parts <= MostParts && (parts == 1 || parts * columns <= LaunchScratch.BlocksOf(device.Multiprocessors)); parts++)
        {
            long cost = (long)Count(columns * parts, device.Multiprocessors) * (Count(turns, parts) + Block) + (parts == 1 ? 0 : Adding);
            if (cost < least)
                (best, least) = (parts, cost);
        }
        return (best, least);
    }

    private static int Rows(in LinearShape shape) => shape.M <= 32 ? 32 : MostRows;

    private static int Count(int size, int per) => (int)(((long)size + per - 1) / per);
}
