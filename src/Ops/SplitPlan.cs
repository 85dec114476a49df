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

    /// <summary>The plan of a product that <see cref="LinearShape.CanSplit"/>.</summary>
    public static SplitPlan Choose(in LinearShape shape, in LinearDevice device) => Of(ChooseTile(shape, device), shape, device);

    /// <summary>The plan with a given kernel and, for tests and benchmarks, number of parts, as far as there is room for their sums.</summary>
    public static SplitPlan Of(SplitTile tile, in LinearShape shape, in LinearDevice device, int? parts = null)
    {
        int columns = Count(shape.N, SplitGemm.Columns), turns = Count(shape.K, SplitGemm.TurnColumns);
        int most = Math.Max(1, LaunchScratch.BlocksOf(device.Multiprocessors) / columns);
        int best = Math.Min(parts ?? ChooseParts(columns, turns, device), most);
        int partTurns = Math.Max(1, Count(turns, best));
        return new SplitPlan(tile, columns, Math.Max(1, Count(turns, partTurns)), partTurns);
    }

    /// <summary>The launch.</summary>
    public LinearPlan Launch(WeightFormat format) =>
        new(LinearPath.SplitGemm, LinearPlan.TileDecoding(format), true, Columns, Parts, Tile.Teams * SplitGemm.TeamThreads, SharedBytes: SplitKernels.SharedBytes(format, Tile), Split: this);

    // Most teams that the device has shared memory for: they hide each other's waits.
    private static SplitTile ChooseTile(in LinearShape shape, in LinearDevice device)
    {
        (int rows, int shared, int threads) = (shape.M <= 32 ? 32 : MostRows, device.SharedBytes, device.MaxThreads);
        WeightFormat format = shape.Format;
        return SplitKernels.Tiles(format).Where(t => !t.Streams && t.Rows == rows && SplitKernels.SharedBytes(format, t) <= shared && t.Teams * SplitGemm.TeamThreads <= threads).MaxBy(t => t.Teams);
    }

    /// <summary>Parts of <paramref name="turns"/> turns, of 64 columns, for so many tiles along N.</summary>
    public static int ChooseParts(int columns, int turns, in LinearDevice device)
    {
        (int best, long least) = (1, long.MaxValue);
        for (int parts = 1; parts <= MostParts && (parts == 1 || parts * columns <= LaunchScratch.BlocksOf(device.Multiprocessors)); parts++)
        {
            long cost = (long)Count(columns * parts, device.Multiprocessors) * (Count(turns, parts) + 10) + (parts == 1 ? 0 : 8);
            if (cost < least)
                (best, least) = (parts, cost);
        }
        return best;
    }

    private static int Count(int size, int per) => (int)(((long)size + per - 1) / per);
}
