using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>The one place where run-time choices become type arguments of <see cref="HopperSplitGemm"/>.</summary>
internal static class HopperSplitKernels
{
    private static readonly Dictionary<Key, HopperSplitKernel> ByKey = Create();

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = ByKey.Values.Select(k => k.Kernel);

    private readonly record struct Key(int Rows, int ClusterBlocks, bool Float32);

    /// <summary>Rows of x of a tile, the fewest first.</summary>
    public static IEnumerable<int> RowCounts { get; } = [.. ByKey.Keys.Select(k => k.Rows).Distinct().Order()];

    /// <summary>Blocks of a cluster, from one on.</summary>
    public static IEnumerable<int> ClusterSizes { get; } = [.. ByKey.Keys.Select(k => k.ClusterBlocks).Distinct().Order()];

    /// <summary>The kernel of a plan.</summary>
    public static HopperSplitKernel Get(in HopperSplitPlan plan, bool float32) => ByKey[new Key(plan.Rows, plan.ClusterBlocks, float32)];

    private static Dictionary<Key, HopperSplitKernel> Create()
    {
        var kernels = new Dictionary<Key, HopperSplitKernel>();
        AddClusters<MixedRows32>(kernels);
        AddClusters<MixedRows64>(kernels);
        return kernels;
    }

    private static void AddClusters<TWidth>(Dictionary<Key, HopperSplitKernel> kernels)
        where TWidth : struct, IMixedWidth
    {
        Add<TWidth, OneBlock>(kernels);
        Add<TWidth, TwoBlocks>(kernels);
        Add<TWidth, FourBlocks>(kernels);
    }

    private static void Add<TWidth, TCluster>(Dictionary<Key, HopperSplitKernel> kernels)
        where TWidth : struct, IMixedWidth
        where TCluster : struct, IClusterSize
    {
        kernels.Add(new Key(TWidth.Rows, TCluster.Count, false), Define<MixedBf16Output, TWidth, TCluster>());
        kernels.Add(new Key(TWidth.Rows, TCluster.Count, true), Define<MixedFloat32Output, TWidth, TCluster>());
    }

    private static HopperSplitKernel Define<TOutput, TWidth, TCluster>()
        where TOutput : struct, IMixedOutput
        where TWidth : struct, IMixedWidth
        where TCluster : struct, IClusterSize
    {
        var traits = new KernelTraits(HopperSplitGemm.Threads, MinArch: 90, ExactArch: "90a", NeedsWarp32: true, Overlaps: true, BlocksPerMultiprocessor: 1, ClusterBlocks: TCluster.Count, HasPlainArguments: true);
        return new(new(HopperSplitGemm.Run<TOutput, TWidth, TCluster>, traits), HopperSplitGemm.SharedBytes<TWidth>(), HopperSplitGemm.CopiedRows<TWidth, TCluster>());
    }
}

/// <summary>A kernel of <see cref="HopperSplitGemm"/> and what its launch must know.</summary>
/// <param name="Kernel">The kernel.</param>
/// <param name="SharedBytes">Dynamic shared memory of a block.</param>
/// <param name="CopiedRows">Rows of x of a copy.</param>
internal readonly record struct HopperSplitKernel(KernelDefinition<HopperMixedArgs> Kernel, int SharedBytes, int CopiedRows);
