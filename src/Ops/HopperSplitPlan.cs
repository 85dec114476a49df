using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>How a product of 17 to 64 rows with FP8 weights and BF16 activations is spread over a Hopper card by <see cref="HopperSplitGemm"/>: a pure function of shape and device.</summary>
/// <param name="Columns">Tiles along N.</param>
/// <param name="Parts">Parts of K.</param>
/// <param name="PartSteps">Steps of 128 columns of a part.</param>
/// <param name="Rows">Rows of x of the kernel's tile, 32 or 64.</param>
internal readonly record struct HopperSplitPlan(int Columns, int Parts, int PartSteps, int Rows)
{
    // With fewer the product streams.
    private const int LeastRows = 17;

    /// <summary>Whether the kernel can run it and the plan takes it.</summary>
    public static bool Exists(in LinearShape shape, in LinearDevice device) => shape.M >= LeastRows && shape.CanSplit && HopperMixedPlan.Exists(shape, device);

    /// <summary>The plan, or for tests and benchmarks that with a number of parts, as far as there is room for their sums, and a kernel's rows.</summary>
    public static HopperSplitPlan Choose(in LinearShape shape, in LinearDevice device, int? parts = null, int? rows = null)
    {
        int columns = Count(shape.N, HopperMixedGemm.TileColumns), steps = Count(shape.K, HopperMixedGemm.StepColumns);
        int most = Math.Max(1, LaunchScratch.BlocksOf(device.Multiprocessors) / columns);
        int partSteps = Count(steps, Math.Min(parts ?? SplitPlan.ChooseParts(columns, 2 * steps, device), most));
        return new HopperSplitPlan(columns, Count(steps, partSteps), partSteps, rows ?? (shape.M <= 32 ? 32 : SplitPlan.MostRows));
    }

    private static int Count(int size, int per) => (int)(((long)size + per - 1) / per);
}
