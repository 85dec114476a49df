using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>Launches <see cref="SplitGemm"/>.</summary>
internal static class SplitLinear
{
    /// <summary>y[m, N] = x[m, K] · W[N, K]ᵀ.</summary>
    public static void Launch(GpuStream stream, QuantizedMatrix weights, ArrayView<BFloat16> x, ArrayView<byte> y, bool float32, (int M, int YStride) size, in SplitPlan plan)
    {
        // One part meets no other.
        LaunchScratch? scratch = plan.Parts > 1 ? stream.Scratch : null;
        var args = new SplitGemmArgs
        {
            Product = Linear.CreateArgs(weights, x, y, size.M, size.YStride, float32),
            Partials = scratch is null ? default : scratch.Partials.View,
            Arrived = scratch is null ? default : scratch.Counters.View,
            PartTurns = plan.PartTurns,
        };
        stream.Device.Launch(SplitKernels.Get(plan.Tile), stream, (plan.RowTiles, plan.Columns, plan.Parts), plan.Tile.Threads, plan.Tile.SharedBytes, args);
    }
}
