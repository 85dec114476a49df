using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>The one place where run-time choices become type arguments of <see cref="GemvFused"/>.</summary>
internal static class FusedKernels
{
    private const int MostThreads = 256;

    private static readonly Dictionary<Key, KernelDefinition<LinearArgs>> ByKey = Create();

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = ByKey.Values;

    private readonly record struct Key(WeightFormat Format, bool Scalar, bool Gated);

    public static KernelDefinition<LinearArgs> Get(WeightFormat format, LinearPath path, bool gated) =>
        ByKey[new Key(format, path == LinearPath.Scalar, gated)];

    private static Dictionary<Key, KernelDefinition<LinearArgs>> Create()
    {
        var kernels = new Dictionary<Key, KernelDefinition<LinearArgs>>();
        Add<Bf16Weights>(kernels, WeightFormat.Bf16);
        Add<Fp8Block<Fp8BitMove>>(kernels, WeightFormat.Fp8Block);
        Add<Fp8TwoTerm<Fp8BitMove>>(kernels, WeightFormat.Fp8TwoTerm);
        Add<Nvfp4>(kernels, WeightFormat.Nvfp4);
        Add<Int4>(kernels, WeightFormat.Int4);
        Add<Int4Zero>(kernels, WeightFormat.Int4Zero);
        return kernels;
    }

    private static void Add<TFormat>(Dictionary<Key, KernelDefinition<LinearArgs>> kernels, WeightFormat format)
        where TFormat : struct, IWeightFormat
    {
        var traits = new KernelTraits(MostThreads);
        kernels.Add(new Key(format, false, false), new(GemvFused.Run<TFormat, WarpLanes, PlainEpilogue>, traits));
        kernels.Add(new Key(format, false, true), new(GemvFused.Run<TFormat, WarpLanes, GatedEpilogue>, traits));
        kernels.Add(new Key(format, true, false), new(GemvFused.Run<TFormat, SingleLane, PlainEpilogue>, traits));
        kernels.Add(new Key(format, true, true), new(GemvFused.Run<TFormat, SingleLane, GatedEpilogue>, traits));
    }
}
