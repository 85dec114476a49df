using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;
using AttentionArgs = GpuKit.Ilgpu.Kernels.Attention.Args;

namespace GpuKit.Ilgpu.Bench;

/// <summary>Bytes that a launch must read from memory, from its arguments: weights and keys and values; 0 where that is not what a kernel's time is made of.</summary>
internal static class KernelBytes
{
    public static long Of(LaunchRecord launch, int context, double? distinctExperts) => launch.Arguments switch
    {
        ExpertArgs a => a.Weights.Codes.Length / a.ExpertCount * a.TopK,
        ListedArgs a => (long)(a.Weights.Codes.Length / a.ExpertCount * (distinctExperts ?? a.List.Ranks)),
        RouterLinearArgs a => a.Weights.Codes.Length,
        TileRowsArgs a => a.Weights.Codes.Length + (2 * a.Router.Length),
        TileLinearArgs a => a.Weights.Codes.Length + (2 * a.Router.Length),
        // Keys and values, of every sequence; an FP8 cache has a float32 a row besides, which is not counted.
        DecodeAttentionArgs a => (launch.Kernel.Name.Contains(nameof(Fp8Tiles), StringComparison.Ordinal) ? 2L : 4L) * Math.Min(context, a.Capacity) * a.Output.Length / a.GroupSize,
        LinearArgs a when a.ExpertCount > 0 => a.Codes.Length / a.ExpertCount * Math.Min(a.M, a.ExpertCount),
        LinearArgs a => a.Codes.Length,
        AttentionArgs a => 4L * (a.QueryHeads / a.GroupSize) * Math.Min(context, a.Capacity) * a.HeadDim,
        _ => 0,
    };
}
