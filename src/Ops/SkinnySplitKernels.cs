using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>The one place where run-time choices become type arguments of <see cref="SkinnySplit"/>.</summary>
internal static class SkinnySplitKernels
{
    private static readonly KernelTraits Traits = new(SkinnySplit.MostGroups * SkinnySplit.Tiles * 32, NeedsWarp32: true, Overlaps: true);

    private static readonly Dictionary<Key, KernelDefinition<SkinnySplitArgs>> ByKey = Create();

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = ByKey.Values;

    private readonly record struct Key(WeightFormat Format, bool Float32, int Tiles);

    /// <summary>The kernel for so many tiles of eight rows of x.</summary>
    public static KernelDefinition<SkinnySplitArgs> Get(WeightFormat format, bool float32, int tiles) => ByKey[new Key(format, float32, tiles)];

    private static Dictionary<Key, KernelDefinition<SkinnySplitArgs>> Create()
    {
        var kernels = new Dictionary<Key, KernelDefinition<SkinnySplitArgs>>();
        Add<StreamedNvfp4>(kernels, WeightFormat.Nvfp4);
        Add<StreamedInt4>(kernels, WeightFormat.Int4);
        Add<StreamedInt4Zero>(kernels, WeightFormat.Int4Zero);
        return kernels;
    }

    private static void Add<TFormat>(Dictionary<Key, KernelDefinition<SkinnySplitArgs>> kernels, WeightFormat format)
        where TFormat : struct, IStreamedFormat
    {
        kernels.Add(new(format, false, 1), new(SkinnySplit.Run<TFormat, Bf16Output, OneTile>, Traits));
        kernels.Add(new(format, true, 1), new(SkinnySplit.Run<TFormat, Float32Output, OneTile>, Traits));
        kernels.Add(new(format, false, 2), new(SkinnySplit.Run<TFormat, Bf16Output, TwoTiles>, Traits));
        kernels.Add(new(format, true, 2), new(SkinnySplit.Run<TFormat, Float32Output, TwoTiles>, Traits));
    }
}
