using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>The one place where run-time choices become type arguments of <see cref="GemvFused"/>.</summary>
internal static class FusedKernels
{
    private static readonly Dictionary<Key, KernelDefinition<LinearArgs>> ByKey = Create();

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = ByKey.Values;

    private readonly record struct Key(WeightFormat Format, bool Scalar, GemmEpilogue Epilogue);

    public static KernelDefinition<LinearArgs> Get(WeightFormat format, LinearPath path, GemmEpilogue epilogue) =>
        ByKey[new Key(format, path == LinearPath.Scalar, epilogue)];

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
        Add<TFormat, PlainEpilogue>(kernels, format, GemmEpilogue.Plain);
        Add<TFormat, BiasEpilogue>(kernels, format, GemmEpilogue.Bias);
        Add<TFormat, ResidualEpilogue>(kernels, format, GemmEpilogue.Residual);
        Add<TFormat, BiasResidualEpilogue>(kernels, format, GemmEpilogue.BiasResidual);
        Add<TFormat, GatedEpilogue>(kernels, format, GemmEpilogue.Gated);
    }

    private static void Add<TFormat, TEpilogue>(Dictionary<Key, KernelDefinition<LinearArgs>> kernels, WeightFormat format, GemmEpilogue epilogue)
        where TFormat : struct, IWeightFormat
        where TEpilogue : struct, IGemmEpilogue
    {
        kernels.Add(new Key(format, false, epilogue), new(GemvFused.Run<TFormat, WarpLanes, TEpilogue>, LinearKernels.WarpTraits<TFormat>(elements: true)));
        kernels.Add(new Key(format, true, epilogue), new(GemvFused.Run<TFormat, SingleLane, TEpilogue>, new KernelTraits(LinearKernels.MostThreads)));
    }
}
