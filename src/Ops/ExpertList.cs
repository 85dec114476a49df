using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.ExpertList;

namespace GpuKit.Ilgpu;

/// <summary>The list of the experts that up to 64 tokens chose, from a routing on the device: <see cref="Kernel"/>. Bitwise repeatable.</summary>
internal static class ExpertList
{
    internal static readonly KernelDefinition<ExpertListArgs> Make = new(Kernel.Run, new KernelTraits(Kernel.MostThreads, Overlaps: true));

    /// <summary>Writes the list of a routing.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="experts"><c>[tokens, topK]</c>; what does not exist is left out.</param>
    /// <param name="list">Where it goes, for so many tokens.</param>
    /// <param name="topK">Experts a token.</param>
    /// <param name="count">Experts that there are, at most 512.</param>
    public static void Launch(GpuStream stream, ArrayView<int> experts, ExpertListing list, int topK, int count)
    {
        Shape.Require(stream, experts, list.Tokens, topK, nameof(experts));
        Shape.RequireRange(count, 1, Kernel.MostExperts, nameof(count));
        var args = new ExpertListArgs { Experts = experts, List = list, TopK = topK, ExpertCount = count };
        int threads = LaunchShape.WholeWarps(stream.Device, Math.Max(list.Tokens * topK, list.Ranks), Kernel.MostThreads);
        stream.Device.Launch(Make, stream, (1, 1, 1), threads, 0, args);
    }
}
