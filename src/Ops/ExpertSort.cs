using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.ExpertSort;

namespace GpuKit.Ilgpu;

/// <summary>Groups the (token, slot) pairs of a routing by expert.</summary>
public static class ExpertSort
{
    internal static readonly KernelDefinition<Kernel.Args> StableCount = new(Kernel.Run, new KernelTraits(Kernel.MaxThreads));

    /// <summary>
    /// Writes the pair indices sorted by expert, equal experts in ascending pair order, and where each expert's begin: the
    /// pairs of expert e are <c>order[offsets[e] .. offsets[e + 1]]</c>; pair p is slot <c>p % topK</c> of token <c>p / topK</c>.
    /// Deterministic. Pairs whose expert is out of range are left out; the elements of <paramref name="order"/> from
    /// <c>offsets[experts]</c> on keep their contents.
    /// </summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="expertIds"><c>[pairs]</c>, as <see cref="Router"/> writes them.</param>
    /// <param name="order"><c>[pairs]</c>, written.</param>
    /// <param name="offsets"><c>[experts + 1]</c>, written (zeros when there are no pairs).</param>
    /// <param name="pairs">tokens · topK.</param>
    /// <param name="experts">Number of experts, 1 to 4096.</param>
    /// <exception cref="ArgumentException">A size is out of range, or a view is too short or lives on another device.</exception>
    public static void Apply(GpuStream stream, ArrayView<int> expertIds, ArrayView<int> order, ArrayView<int> offsets, int pairs, int experts)
    {
        ArgumentNullException.ThrowIfNull(stream);
        Shape.RequireSize(pairs, nameof(pairs));
        Shape.RequireRange(experts, 1, Kernels.Router.MaxExperts, nameof(experts));
        Shape.Require(stream, expertIds, 1, pairs, nameof(expertIds));
        Shape.Require(stream, order, 1, pairs, nameof(order));
        Shape.Require(stream, offsets, 1, experts + 1L, nameof(offsets));
        var args = new Kernel.Args
        {
            // The kernel reads none of zero pairs; any valid view stands in.
            ExpertIds = pairs == 0 ? offsets : expertIds,
            Order = pairs == 0 ? offsets : order,
            Offsets = offsets,
            Pairs = pairs,
            Experts = experts,
        };
        int threads = LaunchShape.WholeWarps(stream.Device, pairs, Kernel.MaxThreads);
        stream.Device.Launch(StableCount, stream, (LaunchShape.Blocks(stream.Device, experts, 1), 1, 1), threads, 0, args);
    }
}
