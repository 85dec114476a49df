using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>
/// The one place where run-time choices (format, path, decoder, output type) become type arguments of a kernel.
/// </summary>
internal static class LinearKernels
{
    internal const int MostThreads = 256;

    private static readonly Dictionary<Key, KernelDefinition<LinearArgs>> ByKey = Create();

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = ByKey.Values;

    private readonly record struct Key(LinearPath Path, WeightFormat Format, Fp8Decoding Decoding, bool Vectorised, bool Float32, bool Grouped);

    /// <summary>The kernel of a plan for products of one matrix with <paramref name="m"/> rows, or of experts' matrices.</summary>
    public static KernelDefinition<LinearArgs> Get(in LinearPlan plan, WeightFormat format, int m, bool float32, bool grouped) =>
        plan.Tile is { } tile ? GemmKernels.Get(format, tile, grouped: grouped)
        : plan.Path == LinearPath.SkinnyGemm ? SkinnyKernels.Get(format, null, m, float32)
        : ByKey[new Key(plan.Path, format, plan.Decoding, plan.Vectorised, float32, grouped)];

    private static Dictionary<Key, KernelDefinition<LinearArgs>> Create()
    {
        var kernels = new Dictionary<Key, KernelDefinition<LinearArgs>>();
        foreach (LinearPath path in new[] { LinearPath.Scalar, LinearPath.Gemv, LinearPath.GemmUnaligned })
            foreach (bool vectorised in new[] { false, true })
                foreach (bool float32 in new[] { false, true })
                    foreach (bool grouped in new[] { false, true })
                        AddFormats(kernels, new Key(path, default, default, vectorised, float32, grouped));
        return kernels;
    }

    private static void AddFormats(Dictionary<Key, KernelDefinition<LinearArgs>> kernels, Key key)
    {
        kernels.Add(key with { Format = WeightFormat.Bf16 }, Access<Bf16Weights>(key));
        kernels.Add(key with { Format = WeightFormat.Nvfp4 }, Access<Nvfp4>(key));
        kernels.Add(key with { Format = WeightFormat.Int4 }, Access<Int4>(key));
        kernels.Add(key with { Format = WeightFormat.Int4Zero }, Access<Int4Zero>(key));
        AddFp8<Fp8BitMove>(kernels, key with { Decoding = Fp8Decoding.BitMove });
        // Tiles have one decoder (LinearPlan.TileDecoding).
        if (key.Path == LinearPath.GemmUnaligned)
            return;
        AddFp8<Fp8Table>(kernels, key with { Decoding = Fp8Decoding.Table });
        AddFp8<Fp8Hardware>(kernels, key with { Decoding = Fp8Decoding.Hardware });
    }

    private static void AddFp8<TDecoder>(Dictionary<Key, KernelDefinition<LinearArgs>> kernels, Key key)
        where TDecoder : struct, IFp8Decoder
    {
        kernels.Add(key with { Format = WeightFormat.Fp8Block }, Access<Fp8Block<TDecoder>>(key));
        kernels.Add(key with { Format = WeightFormat.Fp8TwoTerm }, Access<Fp8TwoTerm<TDecoder>>(key));
    }

    private static KernelDefinition<LinearArgs> Access<TFormat>(Key key)
        where TFormat : struct, IWeightFormat =>
        key.Vectorised ? Output<TFormat, VectorAccess>(key) : Output<TFormat, ElementAccess>(key);

    private static KernelDefinition<LinearArgs> Output<TFormat, TAccess>(Key key)
        where TFormat : struct, IWeightFormat
        where TAccess : struct, IAccess =>
        key.Float32 ? Rows<TFormat, TAccess, Float32Output>(key) : Rows<TFormat, TAccess, Bf16Output>(key);

    private static KernelDefinition<LinearArgs> Rows<TFormat, TAccess, TOutput>(Key key)
        where TFormat : struct, IWeightFormat
        where TAccess : struct, IAccess
        where TOutput : struct, IOutput =>
        key.Grouped ? Path<TFormat, TAccess, TOutput, ExpertMatrices>(key) : Path<TFormat, TAccess, TOutput, OneMatrix>(key);

    private static KernelDefinition<LinearArgs> Path<TFormat, TAccess, TOutput, TRows>(Key key)
        where TFormat : struct, IWeightFormat
        where TAccess : struct, IAccess
        where TOutput : struct, IOutput
        where TRows : struct, IRowMap => key.Path switch
        {
            LinearPath.Scalar => new(Gemv.Run<TFormat, TAccess, TOutput, TRows, SingleLane>, new KernelTraits(MostThreads)),
            LinearPath.Gemv => new(Gemv.Run<TFormat, TAccess, TOutput, TRows, WarpLanes>, WarpTraits<TFormat>(elements: typeof(TAccess) == typeof(ElementAccess))),
            _ => new(GemmUnaligned.Run<TFormat, TAccess, TOutput, TRows>, new KernelTraits(GemmUnaligned.Threads, NeedsWarp32: true)),
        };

    /// <summary>Of a kernel whose warps have a row each. Six blocks leave 40 registers; for eight the compiler spills four to six words where NVFP4 is read by elements (docs/decisions/0003).</summary>
    internal static KernelTraits WarpTraits<TFormat>(bool elements) => new(MostThreads, BlocksPerMultiprocessor: elements && typeof(TFormat) == typeof(Nvfp4) ? 6 : 0);
}
