using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>How a product of 17 to 64 rows with FP8 weights and BF16 activations is spread over a Hopper card by <see cref="HopperSplitGemm"/>: a pure function of shape and device.</summary>
/// <param name="Columns">Tiles along N.</param>
/// <param name="Parts">Parts of K.</param>
/// <param name="PartSteps">Steps of 128 columns of a part.</param>
/// <param name="Rows">Rows of x of the kernel's tile, 32 or 64.</param>
/// <param name="ClusterBlocks">Blocks with neighbouring tiles that share x: 1, 2 or 4.</param>
internal readonly record struct HopperSplitPlan(int Columns, int Parts, int PartSteps, int Rows, int ClusterBlocks)
{
    // With fewer the product streams. 33 leaves 17 to 32 to SplitGemm.
    private const int LeastRows = 17;

    /// <summary>Blocks along N, whole clusters: the last may have some that only load.</summary>
    public int GridX => Count(Columns, ClusterBlocks) * ClusterBlocks;

    /// <summary>Whether the kernel can run it and the plan takes it.</summary>
    public static bool Exists(in LinearShape shape, in LinearDevice device) => shape.M >= LeastRows && shape.CanSplit && HopperMixedPlan.Exists(shape, device);

    /// <summary>The plan, or for tests and benchmarks that with a number of parts, as far as there is room for their sums, a kernel's rows and a cluster's blocks.</summary>
    public static HopperSplitPlan Choose(in LinearShape shape, in LinearDevice device, int? parts = null, int? rows = null, int? clusterBlocks = null)
    {
        int columns = Count(shape.N, HopperMixedGemm.TileColumns), steps = Count(shape.K, HopperMixedGemm.StepColumns);
        int most = Math.Max(1, LaunchScratch.BlocksOf(device.Multiprocessors) / columns);
        int partSteps = Count(steps, Math.Min(parts ?? SplitPlan.ChooseParts(columns, 2 * steps, device), most));
        int used = Count(steps, partSteps);
        return new HopperSplitPlan(columns, used, partSteps, rows ?? (shape.M <= 32 ? 32 : SplitPlan.MostRows), clusterBlocks ?? ChooseCluster(columns, used, device));
    }

    // Two blocks halve what L2 must give of x. Where a block that makes up a pair would need another round, none.
    private static int ChooseCluster(int columns, int parts, in LinearDevice device) =>
        device.IsCuda && columns > 1 && Count((columns + (columns & 1)) * parts, device.Multiprocessors) == Count(columns * parts, device.Multiprocessors) ? 2 : 1;

    private static int Count(int size, int per) => (int)(((long)size + per - 1) / per);
}
