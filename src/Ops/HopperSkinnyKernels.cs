using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>The one place where run-time choices become type arguments of <see cref="HopperSkinnyGemm"/>: formats of four bits, of which a warp's run is long enough to hide how it begins.</summary>
internal static class HopperSkinnyKernels
{
    private static readonly KernelTraits Traits = new(HopperSkinnyGemm.Threads, MinArch: 90, ExactArch: "90a", NeedsWarp32: true, Overlaps: true, BlocksPerMultiprocessor: 1, HasPlainArguments: true);

    private static readonly Dictionary<Key, KernelDefinition<HopperSkinnyArgs>> ByKey = Create();

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = ByKey.Values;

    /// <summary>The formats of weights.</summary>
    internal static readonly IEnumerable<WeightFormat> Formats = [.. ByKey.Keys.Select(k => k.Format).Distinct()];

    private readonly record struct Key(WeightFormat Format, bool Float32 = false, bool TwoTiles = false);

    /// <summary>Whether there is a kernel for such weights.</summary>
    public static bool Exist(WeightFormat format) => ByKey.ContainsKey(new Key(format));

    /// <summary>The kernel for <paramref name="m"/> rows.</summary>
    public static KernelDefinition<HopperSkinnyArgs> Get(WeightFormat format, int m, bool float32) =>
        ByKey[new Key(format, float32, m > SkinnyGemm.Columns)];

    private static Dictionary<Key, KernelDefinition<HopperSkinnyArgs>> Create()
    {
        var kernels = new Dictionary<Key, KernelDefinition<HopperSkinnyArgs>>();
        Add<StreamedNvfp4>(kernels, WeightFormat.Nvfp4);
        Add<StreamedInt4>(kernels, WeightFormat.Int4);
        Add<StreamedInt4Zero>(kernels, WeightFormat.Int4Zero);
        return kernels;
    }

    private static void Add<TFormat>(Dictionary<Key, KernelDefinition<HopperSkinnyArgs>> kernels, WeightFormat format)
        where TFormat : struct, IStreamedFormat
    {
        kernels.Add(new Key(format), new(HopperSkinnyGemm.Run<TFormat, SkinnyBf16Output, OneTile>, Traits));
        kernels.Add(new Key(format, TwoTiles: true), new(HopperSkinnyGemm.Run<TFormat, SkinnyBf16Output, TwoTiles>, Traits));
        kernels.Add(new Key(format, Float32: true), new(HopperSkinnyGemm.Run<TFormat, SkinnyFloat32Output, OneTile>, Traits));
        kernels.Add(new Key(format, Float32: true, TwoTiles: true), new(HopperSkinnyGemm.Run<TFormat, SkinnyFloat32Output, TwoTiles>, Traits));
    }
}
