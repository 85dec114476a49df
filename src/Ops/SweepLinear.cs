using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>Launches <see cref="SkinnySweep"/>.</summary>
internal static class SweepLinear
{
    /// <summary>A product whose arguments are complete.</summary>
    public static void Launch(GpuStream stream, in LinearArgs args, in SweepPlan plan, in LinearShape shape) =>
        stream.Device.Launch(SweepKernels.Get(shape.Format, shape.Activations, args.M, args.IsFloat32 != 0), stream, (plan.Blocks, 1, 1), 32 * plan.Warps, plan.SharedBytes(args.M, shape), args);
}
