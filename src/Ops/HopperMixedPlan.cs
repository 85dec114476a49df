using GpuKit.Ilgpu.Kernels;

namespace GpuKit.Ilgpu;

/// <summary>How a product with FP8 weights and BF16 activations is spread over a Hopper card: a pure function of shape and device.</summary>
/// <param name="TileRows">Most rows of x of a tile.</param>
/// <param name="ColumnTiles">Tiles along N.</param>
/// <param name="Blocks">Blocks, which take tiles in turn.</param>
/// <param name="WholeTiles">Tiles that are one block's; without a bound where experts share the rows.</param>
/// <param name="SharedTiles">Tiles behind them, each of which two blocks share along K.</param>
internal readonly record struct HopperMixedPlan(int TileRows, int ColumnTiles, int Blocks, int WholeTiles, int SharedTiles = 0)
{
    private const int Arch = 90, ScaleExtent = 128;

    // Whole 16-byte words of a row of codes, and of y in BF16.
    private const int WordCodes = 16, WordColumns = 8;

    // Nanoseconds of one step along K of a tile on an H200, between those of short products and of long ones at the power limit (docs/kernels/gemm.md), and in steps what the end of a tile takes, and handing one over.
    private static readonly (int TileRows, int Cost)[] Tiles = [(192, 1150), (176, 1095), (160, 1000), (128, 930), (64, 650)];
    private const int EndSteps = 2, HandingSteps = 4;

    // Launches do not overlap.
    private const int LaunchTime = 2000;

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
        return Fastest(shape, device).Plan;
    }

    /// <summary>What the fastest plan of one matrix takes, in nanoseconds by the costs above.</summary>
    public static long Time(in LinearShape shape, in LinearDevice device) => LaunchTime + Fastest(shape, device).Time;

    private static (HopperMixedPlan Plan, long Time) Fastest(in LinearShape shape, in LinearDevice device)
    {
        (HopperMixedPlan best, long least) = (default, long.MaxValue);
        long steps = Count(shape.K, HopperMixedGemm.StepColumns) + EndSteps;
        foreach ((int rows, int cost) in Tiles)
        {
            HopperMixedPlan plan = Of(rows, shape, device.Multiprocessors);
            long turns = Count(plan.WholeTiles, plan.Blocks), time = turns * steps * cost;
            if (plan.SharedTiles > 0)
                time += ((steps / 2) + HandingSteps) * cost;
            if (time < least)
                (best, least) = (plan, time);
        }
        return (best, least);
    }

    /// <summary>The plan with a given tile on so many multiprocessors.</summary>
    public static HopperMixedPlan Of(int tileRows, in LinearShape shape, int multiprocessors)
    {
        long columns = Count(shape.N, HopperMixedGemm.TileColumns);
        if (shape.Experts > 0)
        {
            // Each may have one tile of rows more than its share.
            long most = (Count(shape.M, tileRows) + shape.Experts) * columns;
            return new HopperMixedPlan(tileRows, (int)columns, (int)Math.Min(most, multiprocessors), int.MaxValue);
        }
        long tiles = Count(shape.M, tileRows) * columns;
        int blocks = (int)Math.Min(tiles, multiprocessors), left = (int)(tiles % blocks);
        // Their totals fit into the stream's scratch: 96 KB at most, where two multiprocessors have 128.
        bool shares = left > 0 && 2 * left <= blocks && Count(shape.K, HopperMixedGemm.StepColumns) > 1;
        return new HopperMixedPlan(tileRows, (int)columns, blocks, (int)tiles - (shares ? left : 0), shares ? left : 0);
    }

    private static long Count(long size, int tile) => (size + tile - 1) / tile;
}
