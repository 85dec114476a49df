using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>The one place where run-time choices become type arguments of <see cref="HopperSplitGemm"/>.</summary>
internal static class HopperSplitKernels
{
    private static readonly Dictionary<Key, HopperSplitKernel> ByKey = Create();

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = ByKey.Values.Select(k => k.Kernel);

    private readonly record struct Key(int Teams, int Rows, bool Float32);

    /// <summary>Rows of x of a tile, the fewest first.</summary>
    public static IEnumerable<int> RowCounts { get; } = [.. ByKey.Keys.Select(k => k.Rows).Distinct().Order()];

    /// <summary>Teams of a block.</summary>
    public static IEnumerable<int> TeamCounts { get; } = [.. ByKey.Keys.Select(k => k.Teams).Distinct().Order()];

    /// <summary>The kernel of a plan.</summary>
    public static HopperSplitKernel Get(in HopperSplitPlan plan, bool float32) => ByKey[new Key(plan.Teams, plan.Rows, float32)];

    private static Dictionary<Key, HopperSplitKernel> Create()
    {
        var kernels = new Dictionary<Key, HopperSplitKernel>();
        Add<TwoHopperTeams, MixedRows32>(kernels);
        Add<TwoHopperTeams, MixedRows64>(kernels);
        Add<FourHopperTeams, MixedRows32>(kernels);
        Add<FourHopperTeams, MixedRows64>(kernels);
        return kernels;
    }

    private static void Add<TTeams, TWidth>(Dictionary<Key, HopperSplitKernel> kernels)
        where TTeams : struct, IHopperTeams
        where TWidth : struct, IMixedWidth
    {
        kernels.Add(new Key(TTeams.Count, TWidth.Rows, false), Define<MixedBf16Output, TTeams, TWidth>());
        kernels.Add(new Key(TTeams.Count, TWidth.Rows, true), Define<MixedFloat32Output, TTeams, TWidth>());
    }

    private static HopperSplitKernel Define<TOutput, TTeams, TWidth>()
        where TOutput : struct, IMixedOutput
        where TTeams : struct, IHopperTeams
        where TWidth : struct, IMixedWidth
    {
        var traits = new KernelTraits(HopperSplitGemm.Threads, MinArch: 90, ExactArch: "90a", NeedsWarp32: true, Overlaps: true, BlocksPerMultiprocessor: 1, HasPlainArguments: true);
        return new(new(HopperSplitGemm.Run<TOutput, TTeams, TWidth>, traits), HopperSplitSizes<TTeams, TWidth>.SharedBytes);
    }
}

/// <summary>A kernel of <see cref="HopperSplitGemm"/> and the dynamic shared memory of its blocks.</summary>
internal readonly record struct HopperSplitKernel(KernelDefinition<HopperMixedArgs> Kernel, int SharedBytes);
