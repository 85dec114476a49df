using GpuKit.Ilgpu.Kernels;

namespace GpuKit.Ilgpu;

/// <summary>How a product with FP8 weights and BF16 activations is spread over a Hopper card: a pure function of shape and device.</summary>
/// <param name="TileRows">Most rows of x of a tile.</param>
/// <param name="ColumnTiles">Tiles along N.</param>
/// <param name="Blocks">Blocks, which take tiles in turn.</param>
internal readonly record struct HopperMixedPlan(int TileRows, int ColumnTiles, int Blocks)
{
    private const int Arch = 90, ScaleExtent = 128;

    // Whole 16-byte words of a row of codes, and of y in BF16.
    private const int WordCodes = 16, WordColumns = 8;

    // Relative time of one step along K of a tile, from docs/results (nanoseconds on an H200).
    private static readonly (int TileRows, int Cost)[] Tiles = [(192, 1320), (160, 1180), (128, 1030), (64, 750)];

    /// <summary>The tiles there are.</summary>
    public static IEnumerable<int> TileRowCounts => Tiles.Select(t => t.TileRows);

    /// <summary>Whether the kernel can run it: a Hopper card, FP8 weights in blocks of at least 128 × 128, rows that are whole 16-byte words.</summary>
    public static bool Exists(in LinearShape shape, in LinearDevice device) =>
        device.Arch == Arch && shape.Aligned && shape.Activations is null && shape.Format == WeightFormat.Fp8Block
        && shape.Block is { Rows: >= ScaleExtent, Columns: >= ScaleExtent } && shape.K % WordCodes == 0 && shape.N % WordColumns == 0;

    /// <summary>The plan of a product. With experts nobody knows how rows are spread: the widest tile, of which an expert's last may be narrower.</summary>
    public static HopperMixedPlan Choose(in LinearShape shape, in LinearDevice device)
    {
        if (shape.Experts > 0)
            return Of(Tiles[0].TileRows, shape, device.Multiprocessors);
        HopperMixedPlan best = default;
        long least = long.MaxValue;
        foreach ((int rows, int cost) in Tiles)
        {
            HopperMixedPlan plan = Of(rows, shape, device.Multiprocessors);
            long tiles = Count(shape.M, rows) * plan.ColumnTiles, turns = (tiles + plan.Blocks - 1) / plan.Blocks;
            if (turns * cost < least)
                (least, best) = (turns * cost, plan);
        }
        return best;
    }

    /// <summary>The plan with a given tile.</summary>
    public static HopperMixedPlan Of(int tileRows, in LinearShape shape, int multiprocessors)
    {
        long columns = Count(shape.N, HopperMixedGemm.TileColumns);
        // Each expert may have one tile of rows more than its share.
        long most = (Count(shape.M, tileRows) + shape.Experts) * columns;
        return new HopperMixedPlan(tileRows, (int)columns, (int)Math.Min(most, multiprocessors));
    }

    private static long Count(int size, int tile) => ((long)size + tile - 1) / tile;
}
