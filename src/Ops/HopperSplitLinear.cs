using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>Launches <see cref="HopperSplitGemm"/>.</summary>
internal static class HopperSplitLinear
{
    private static readonly KernelTraits Traits = new(HopperSplitGemm.Threads, MinArch: 90, ExactArch: "90a", NeedsWarp32: true, Overlaps: true, BlocksPerMultiprocessor: 1, HasPlainArguments: true);

    internal static readonly KernelDefinition<HopperMixedArgs> Bf16 = new(HopperSplitGemm.Run<MixedBf16Output>, Traits);
    internal static readonly KernelDefinition<HopperMixedArgs> Float32 = new(HopperSplitGemm.Run<MixedFloat32Output>, Traits);

    /// <summary>y[m, N] = x[m, K] · W[N, K]ᵀ.</summary>
    public static void Launch(GpuStream stream, QuantizedMatrix weights, ArrayView<BFloat16> x, ArrayView<byte> y, bool float32, (int M, int YStride) size, in HopperSplitPlan plan)
    {
        stream.Device.RequireSame(weights.Device, nameof(weights));
        HopperMixedArgs args = HopperMixedLinear.CreateArgs(stream, weights, x, y, float32, size, new HopperMixedPlan(HopperSplitGemm.Rows, plan.Columns, plan.Columns * plan.Parts));
        LaunchScratch scratch = stream.Scratch;
        args.Partials = Shape.Address(scratch.Partials.View);
        args.Arrived = Shape.Address(scratch.Counters.View);
        args.PartSteps = plan.PartSteps;
        lock (scratch.Gate)
            stream.Device.Launch(float32 ? Float32 : Bf16, stream, (plan.Columns, plan.Parts, 1), HopperSplitGemm.Threads, HopperSplitGemm.SharedBytes, args);
    }
}
