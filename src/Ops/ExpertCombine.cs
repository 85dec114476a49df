using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.ExpertCombine;

namespace GpuKit.Ilgpu;

/// <summary>The weighted sum behind <see cref="ListedDown"/>: <see cref="Kernel"/>. Always launched right behind it.</summary>
internal static class ExpertCombine
{
    private const int MostThreads = 512;

    internal static readonly KernelDefinition<ExpertCombineArgs> WeightedSum = new(Kernel.Run, new KernelTraits(MostThreads, NeedsWarp32: true, Overlaps: true));
    internal static readonly KernelDefinition<ExpertCombineArgs> WeightedSumNorm = new(Kernel.RunNorm, new KernelTraits(MostThreads, NeedsWarp32: true, Overlaps: true));

    /// <summary>Adds to the residual stream what the experts of each token gave, and norms it where asked.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="outputs"><c>[tokens · topK, hidden]</c> float32.</param>
    /// <param name="routing">Experts and weights.</param>
    /// <param name="experts">Experts that there are.</param>
    /// <param name="residual"><c>[tokens, hidden]</c> float32, on 16-byte boundaries.</param>
    /// <param name="next">The norm behind it, and where its result goes.</param>
    public static void Launch(GpuStream stream, ArrayView<float> outputs, in TokenRouting routing, int experts, (ArrayView<float> View, int Tokens, int Hidden) residual, FollowingNorm? next)
    {
        ArrayView<BFloat16> normed = next?.Normed ?? default, gain = next?.Norm.Gain ?? default;
        var args = new ExpertCombineArgs
        {
            Norm = new Kernels.RmsNorm.Args
            {
                X = residual.View,
                Addend = residual.View,
                Gain = gain.Cast<ushort>(),
                Output = normed.Cast<ushort>(),
                Rows = residual.Tokens,
                Width = residual.Hidden,
                Epsilon = next?.Norm.Epsilon ?? 0,
                HasWords = next is null || RmsNorm.HasWords(residual.View, gain, normed, residual.Hidden) ? 1 : 0,
            },
            Outputs = outputs,
            Experts = routing.Experts,
            Weights = routing.Weights,
            TopK = routing.TopK,
            ExpertCount = experts,
        };
        int threads = LaunchShape.WholeWarps(stream.Device, (residual.Hidden + 3) >> 2, MostThreads);
        stream.Device.Launch(next is null ? WeightedSum : WeightedSumNorm, stream, (LaunchShape.Blocks(stream.Device, residual.Tokens, 1), 1, 1), threads, 0, args);
    }
}
