using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>The one place where run-time choices become type arguments of <see cref="HopperGemm"/>.</summary>
internal static class HopperKernels
{
    private static readonly Dictionary<Key, (KernelDefinition<HopperArgs> Kernel, int SharedBytes)> ByKey = Create();

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = ByKey.Values.Select(k => k.Kernel);

    private readonly record struct Key(HopperTileKind Kind, bool Float32, bool Clusters);

    /// <summary>The kernel of a plan and its dynamic shared memory.</summary>
    public static (KernelDefinition<HopperArgs> Kernel, int SharedBytes) Get(in HopperPlan plan, bool float32) =>
        ByKey[new Key(plan.Kind, float32, plan.Clusters)];

    private static Dictionary<Key, (KernelDefinition<HopperArgs> Kernel, int SharedBytes)> Create()
    {
        var kernels = new Dictionary<Key, (KernelDefinition<HopperArgs> Kernel, int SharedBytes)>();
        Add<HopperBf16N256>(kernels, HopperTileKind.Bf16N256);
        Add<HopperBf16N192>(kernels, HopperTileKind.Bf16N192);
        Add<HopperBf16N160>(kernels, HopperTileKind.Bf16N160);
        Add<HopperBf16N128>(kernels, HopperTileKind.Bf16N128);
        Add<HopperBf16N80>(kernels, HopperTileKind.Bf16N80);
        Add<HopperBf16N64>(kernels, HopperTileKind.Bf16N64);
        Add<HopperFp8N128>(kernels, HopperTileKind.Fp8N128);
        Add<HopperFp8N160>(kernels, HopperTileKind.Fp8N160);
        Add<HopperFp8N192>(kernels, HopperTileKind.Fp8N192);
        return kernels;
    }

    private static void Add<TProduct>(Dictionary<Key, (KernelDefinition<HopperArgs> Kernel, int SharedBytes)> kernels, HopperTileKind kind)
        where TProduct : struct, IHopperProduct
    {
        kernels.Add(new Key(kind, false, false), Define<TProduct, HopperBf16Output, OneBlock>());
        kernels.Add(new Key(kind, false, true), Define<TProduct, HopperBf16Output, TwoBlocks>());
        kernels.Add(new Key(kind, true, false), Define<TProduct, HopperFloat32Output, OneBlock>());
        kernels.Add(new Key(kind, true, true), Define<TProduct, HopperFloat32Output, TwoBlocks>());
    }

    // One block a multiprocessor: without that bound the compiler ignores the exchange of registers between warpgroups.
    private static (KernelDefinition<HopperArgs> Kernel, int SharedBytes) Define<TProduct, TOutput, TCluster>()
        where TProduct : struct, IHopperProduct
        where TOutput : struct, IHopperOutput
        where TCluster : struct, IClusterSize =>
        (new(HopperGemm.Run<TProduct, TOutput, TCluster>, new KernelTraits(HopperGemm.Threads, MinArch: 90, ExactArch: "90a", NeedsWarp32: true, BlocksPerMultiprocessor: 1, ClusterBlocks: TCluster.Count, HasPlainArguments: true)), HopperGemm.SharedBytes<TProduct>());
}
