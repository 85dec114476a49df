using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>The one place where run-time choices become type arguments of <see cref="HopperSweep"/>, and which formats it has.</summary>
internal static class HopperSweepKernels
{
    // The bound of 512 threads holds the compiler to 128 registers a thread.
    private static readonly KernelTraits Traits = new(32 * HopperSweep.MostWarps, MinArch: 90, ExactArch: "90a", NeedsWarp32: true, Overlaps: true, BlocksPerMultiprocessor: 1, HasPlainArguments: true);

    private static readonly Dictionary<Key, KernelDefinition<HopperSkinnyArgs>> ByKey = Create();

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = ByKey.Values;

    /// <summary>The formats of weights and of activations.</summary>
    internal static readonly IEnumerable<(WeightFormat Weights, ActivationFormat? Activations)> Formats = [.. ByKey.Keys.Select(k => (k.Format, k.Activations)).Distinct()];

    private readonly record struct Key(WeightFormat Format, ActivationFormat? Activations, bool Float32 = false, int Tiles = 1);

    /// <summary>Whether there is a kernel for such weights and activations (null: BF16).</summary>
    public static bool Exist(WeightFormat format, ActivationFormat? activations) => ByKey.ContainsKey(new Key(format, activations));

    /// <summary>The kernel for <paramref name="m"/> rows.</summary>
    public static KernelDefinition<HopperSkinnyArgs> Get(WeightFormat format, ActivationFormat? activations, int m, bool float32) => ByKey[new Key(format, activations, float32, Tiles(m))];

    /// <summary>Tiles of x.</summary>
    public static int Tiles(int m) => SkinnyGemm.Tiles(m, halves: false);

    private static Dictionary<Key, KernelDefinition<HopperSkinnyArgs>> Create()
    {
        var kernels = new Dictionary<Key, KernelDefinition<HopperSkinnyArgs>>();
        Add<StreamedNvfp4, StreamedBf16Inputs>(kernels, new Key(WeightFormat.Nvfp4, null));
        Add<StreamedInt4, StreamedBf16Inputs>(kernels, new Key(WeightFormat.Int4, null));
        Add<StreamedInt4Zero, StreamedBf16Inputs>(kernels, new Key(WeightFormat.Int4Zero, null));
        Add<StreamedNvfp4, StreamedNvfp4Inputs>(kernels, new Key(WeightFormat.Nvfp4, ActivationFormat.Nvfp4));
        return kernels;
    }

    private static void Add<TFormat, TInput>(Dictionary<Key, KernelDefinition<HopperSkinnyArgs>> kernels, Key key)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        kernels.Add(key, new(HopperSweep.Run<TFormat, TInput, SkinnyBf16Output, OneTile>, Traits));
        kernels.Add(key with { Tiles = 2 }, new(HopperSweep.Run<TFormat, TInput, SkinnyBf16Output, TwoTiles>, Traits));
        kernels.Add(key with { Float32 = true }, new(HopperSweep.Run<TFormat, TInput, SkinnyFloat32Output, OneTile>, Traits));
        kernels.Add(key with { Float32 = true, Tiles = 2 }, new(HopperSweep.Run<TFormat, TInput, SkinnyFloat32Output, TwoTiles>, Traits));
    }
}
