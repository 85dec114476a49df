using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>How a product of 17 to 128 rows with FP8 weights and BF16 activations is spread over a Hopper card by <see cref="HopperSplitGemm"/>: a pure function of shape and device.</summary>
/// <param name="Teams">Teams that the warpgroups of a block form: two with tiles of 128 columns of y, or four with 64.</param>
/// <param name="Columns">Tiles along N.</param>
/// <param name="Parts">Parts of K.</param>
/// <param name="PartSteps">Steps of 128 columns of a part.</param>
/// <param name="Rows">Rows of x of the kernel's tile, 32 or 64.</param>
/// <param name="RowTiles">Tiles along M.</param>
/// <param name="EarlyStages">Stages of a team, 1 or 2, whose weights are asked for before the launch before is waited for. No bit depends on it.</param>
internal readonly record struct HopperSplitPlan(int Teams, int Columns, int Parts, int PartSteps, int Rows, int RowTiles, int EarlyStages)
{
    // With fewer the product streams; with more there are tiles enough.
    private const int LeastRows = 17, MostRows = 128;

    // Nanoseconds that a unit of these costs takes on an H200.
    private const int TurnTime = 280;

    // Of a step of 128 columns of half a tile; a whole one takes two.
    private static readonly SplitCosts Costs = new(1, 10, 8, 0);

    /// <summary>Columns of y of a tile.</summary>
    public int TileColumns => TileColumnsOf(Teams);

    /// <summary>Whether the kernel can run it and the plan takes it.</summary>
    /// <remarks>Among 65 to 128 rows it follows from N, K and the device alone, so that a row has the same bits.</remarks>
    public static bool Exists(in LinearShape shape, in LinearDevice device)
    {
        if (shape.M is < LeastRows or > MostRows || !(shape with { M = Math.Min(shape.M, SplitPlan.MostRows) }).CanSplit || !HopperMixedPlan.Exists(shape, device))
            return false;
        LinearShape most = shape with { M = MostRows };
        return shape.M <= SplitPlan.MostRows || TurnTime * Math.Min(Cost(TwoHopperTeams.Count, most, device), Cost(FourHopperTeams.Count, most, device)) < HopperMixedPlan.Time(most, device);
    }

    /// <summary>The plan, or for tests and benchmarks that with a number of teams and parts, as far as there is room for their sums, and a kernel's rows.</summary>
    public static HopperSplitPlan Choose(in LinearShape shape, in LinearDevice device, int? parts = null, int? rows = null, int? teams = null)
    {
        int chosen = teams ?? (Cost(FourHopperTeams.Count, shape, device) <= Cost(TwoHopperTeams.Count, shape, device) ? FourHopperTeams.Count : TwoHopperTeams.Count);
        int columns = Count(shape.N, TileColumnsOf(chosen)), steps = Count(shape.K, HopperMixedGemm.StepColumns), tileRows = rows ?? (shape.M <= 32 ? 32 : SplitPlan.MostRows);
        int most = Math.Max(1, LaunchScratch.BlocksOf(device.Multiprocessors) / (columns * Count(shape.M, tileRows)));
        int partSteps = Count(steps, Math.Min(parts ?? Split(chosen, shape, device).Parts, most));
        int splits = Count(steps, partSteps), rowTiles = Count(shape.M, tileRows);
        return new HopperSplitPlan(chosen, columns, splits, partSteps, tileRows, rowTiles, Early(chosen, tileRows, (long)columns * splits * rowTiles, device));
    }

    // With one, x of the first stage comes sooner. With two the memory has more to do until the launch before has ended, which is worth it where blocks are few: most find a multiprocessor that the launch before does not need, and wait there.
    // Wide tiles of 32 rows are faster with two, too (measured: docs/kernels/gemm.md).
    private static int Early(int teams, int rows, long blocks, in LinearDevice device) => 4 * blocks < 3 * device.Multiprocessors || (teams == TwoHopperTeams.Count && rows == 32) ? 2 : 1;

    private static long Cost(int teams, in LinearShape shape, in LinearDevice device) => Split(teams, shape, device).Cost;

    private static (int Parts, long Cost) Split(int teams, in LinearShape shape, in LinearDevice device) =>
        SplitPlan.ChooseParts(Count(shape.N, TileColumnsOf(teams)) * Count(shape.M, SplitPlan.MostRows), Count(shape.K, HopperMixedGemm.StepColumns) * TileColumnsOf(teams) / HopperMixedGemm.WarpgroupColumns, Costs, device);

    private static int TileColumnsOf(int teams) => teams == FourHopperTeams.Count ? FourHopperTeams.Columns : TwoHopperTeams.Columns;

    private static int Count(int size, int per) => (int)(((long)size + per - 1) / per);
}
