using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>Launches <see cref="HopperSplitGemm"/>.</summary>
internal static class HopperSplitLinear
{
    /// <summary>y[m, N] = x[m, K] · W[N, K]ᵀ.</summary>
    public static void Launch(GpuStream stream, QuantizedMatrix weights, ArrayView<BFloat16> x, ArrayView<byte> y, bool float32, (int M, int YStride) size, in HopperSplitPlan plan)
    {
        stream.Device.RequireSame(weights.Device, nameof(weights));
        HopperSplitKernel kernel = HopperSplitKernels.Get(plan, float32);
        HopperMixedArgs args = HopperMixedLinear.CreateArgs(stream, weights, x, y, float32, size, new HopperMixedPlan(plan.Rows, plan.Columns, plan.Columns * plan.Parts, plan.Columns), plan.Rows, plan.TileColumns);
        LaunchScratch scratch = stream.Scratch;
        args.Partials = Shape.Address(scratch.Partials.View);
        args.Arrived = Shape.Address(scratch.Counters.View);
        args.PartSteps = plan.PartSteps;
        args.EarlyStages = plan.EarlyStages;
        stream.Device.Launch(kernel.Kernel, stream, (plan.Columns, plan.Parts, plan.RowTiles), HopperSplitGemm.Threads, kernel.SharedBytes, args);
    }
}
