using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>How a product of 17 to 256 rows is spread over blocks by <see cref="SplitGemm"/>: a pure function of shape and device.</summary>
/// <param name="Tile">The kernel.</param>
/// <param name="RowTiles">Tiles along M.</param>
/// <param name="Columns">Tiles along N.</param>
/// <param name="Parts">Parts of K.</param>
/// <param name="PartTurns">Turns of 64 columns of a part.</param>
internal readonly record struct SplitPlan(SplitTile Tile, int RowTiles, int Columns, int Parts, int PartTurns)
{
    /// <summary>Most rows of x of a tile.</summary>
    public const int MostRows = 64;

    /// <summary>Most rows of x.</summary>
    public const int MostTiledRows = 256;

    /// <summary>Most columns of y: tiles along N are the second number of a grid, which has 16 bits.</summary>
    public const int MostOutputs = ushort.MaxValue * SplitTile.NarrowColumns;

    /// <summary>Most columns: places within a tile are counted in 32 bits.</summary>
    public const int MostColumns = 1 << 23;

    private const int MostParts = 8;

    // From so many columns on, or with K split, 33 to 64 rows of BF16 are faster here than in Hopper's own tiles (docs/kernels/gemm.md).
    private const int LongColumns = 4096;

    // In turns of a narrow tile, of which a wide one takes two: a multiprocessor's warps have as much to do in both (measured with FP8 and INT4: docs/kernels/gemm.md).
    private static readonly SplitCosts Wide = new(2, 22, 8, 4), Narrow = new(1, 22, 16, 0);

    /// <summary>Whether a device has a kernel for it.</summary>
    public static bool CanRun(in LinearShape shape, in LinearDevice device) =>
        shape.M <= MostTiledRows && (shape with { M = Math.Min(shape.M, MostRows) }).CanSplit && SplitKernels.Find(shape.Format, Rows(shape), SplitTile.WideColumns, device) is not null;

    /// <summary>Whether the plan takes it: up to 64 rows wherever it can run, more where that is faster than <see cref="Gemm"/>.</summary>
    public static bool IsChosen(in LinearShape shape, in LinearDevice device) => CanRun(shape, device) && (shape.M <= MostRows || IsFasterThanTiles(shape, device));

    // Where Gemm's tiles of 128 × 128 would be one a multiprocessor at most, or a quarter of them empty; of BF16, which it need not decode, with fewer of them (docs/kernels/gemm.md).
    private static bool IsFasterThanTiles(in LinearShape shape, in LinearDevice device)
    {
        int rowTiles = Count(shape.M, MostRows), columns = Count(shape.N, SplitTile.WideColumns);
        return shape.Format == WeightFormat.Bf16 ? rowTiles <= 3 && 2 * columns <= device.Multiprocessors : (rowTiles == 3 ? 1 : Count(rowTiles, 2)) * columns <= device.Multiprocessors;
    }

    /// <summary>Whether a product that Hopper has BF16 tiles for is faster here: where narrow tiles are taken and are one a multiprocessor at most, with more than 32 rows only if sums are long or split.</summary>
    public static bool IsFasterThanHoppersTiles(in LinearShape shape, in LinearDevice device)
    {
        if (shape.M > MostRows || !CanRun(shape, device))
            return false;
        SplitPlan plan = Choose(shape, device);
        return plan.Tile.IsNarrow && plan.Columns <= device.Multiprocessors && (plan.Tile.Rows < MostRows || shape.K >= LongColumns || plan.Parts > 1);
    }

    /// <summary>The plan of a product for which <see cref="CanRun"/> holds: the narrow tile unless the wide one leaves the busiest multiprocessor less to do.</summary>
    public static SplitPlan Choose(in LinearShape shape, in LinearDevice device)
    {
        SplitTile wide = SplitKernels.Find(shape.Format, Rows(shape), SplitTile.WideColumns, device)!.Value;
        return Of(SplitKernels.Find(shape.Format, Rows(shape), SplitTile.NarrowColumns, device) is { } narrow && Split(narrow, shape, device).Cost <= Split(wide, shape, device).Cost ? narrow : wide, shape, device);
    }

    /// <summary>The plan with a given kernel and, for tests and benchmarks, number of parts, as far as there is room for their sums.</summary>
    public static SplitPlan Of(SplitTile tile, in LinearShape shape, in LinearDevice device, int? parts = null)
    {
        int columns = Count(shape.N, tile.Columns), rowTiles = Count(shape.M, tile.Rows), turns = Count(shape.K, SplitGemm.TurnColumns);
        int most = Math.Max(1, LaunchScratch.BlocksOf(device.Multiprocessors) / (columns * rowTiles));
        int best = Math.Min(parts ?? Split(tile, shape, device).Parts, most);
        int partTurns = Math.Max(1, Count(turns, best));
        return new SplitPlan(tile, rowTiles, columns, Math.Max(1, Count(turns, partTurns)), partTurns);
    }

    /// <summary>The launch.</summary>
    public LinearPlan Launch() => new(LinearPath.SplitGemm, LinearPlan.TileDecoding(Tile.Format), true, RowTiles * Columns, Parts, Tile.Threads, SharedBytes: Tile.SharedBytes, Split: this);

    private static (int Parts, long Cost) Split(SplitTile tile, in LinearShape shape, in LinearDevice device) =>
        ChooseParts(Count(shape.N, tile.Columns) * Count(shape.M, tile.Rows), Count(shape.K, SplitGemm.TurnColumns), tile.IsNarrow ? Narrow : Wide, device);

    /// <summary>Parts of <paramref name="turns"/> turns for so many tiles, and what the busiest multiprocessor then has to do.</summary>
    public static (int Parts, long Cost) ChooseParts(int tiles, int turns, SplitCosts costs, in LinearDevice device)
    {
        (int best, long least) = (1, long.MaxValue);
        for (int parts = 1; parts <= MostParts && (parts == 1 || parts * tiles <= LaunchScratch.BlocksOf(device.Multiprocessors)); parts++)
        {
            long cost = (long)Count(tiles * parts, device.Multiprocessors) * ((costs.Turn * Count(turns, parts)) + costs.Block) + (parts == 1 ? 0 : costs.Adding + (parts * costs.AddingPart));
            if (cost < least)
                (best, least) = (parts, cost);
        }
        return (best, least);
    }

    private static int Rows(in LinearShape shape) => shape.M <= 32 ? 32 : MostRows;

    private static int Count(int size, int per) => (int)(((long)size + per - 1) / per);
}

/// <summary>What a block costs, in units of the caller's (docs/kernels/gemm.md has what they follow from).</summary>
/// <param name="Turn">A turn.</param>
/// <param name="Block">Beginning and ending.</param>
/// <param name="Adding">Adding parts, where there are several.</param>
/// <param name="AddingPart">And for each of them.</param>
internal readonly record struct SplitCosts(int Turn, int Block, int Adding, int AddingPart);
