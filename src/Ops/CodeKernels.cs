using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;
using W16x32 = GpuKit.Ilgpu.Kernels.GemmOnce<GpuKit.Ilgpu.Kernels.GemmPair2>;
using W64x32 = GpuKit.Ilgpu.Kernels.GemmTwice<GpuKit.Ilgpu.Kernels.GemmTwice<GpuKit.Ilgpu.Kernels.GemmOnce<GpuKit.Ilgpu.Kernels.GemmPair2>>>;

namespace GpuKit.Ilgpu;

/// <summary>
/// The one place where run-time choices become type arguments of <see cref="Gemm"/> with codes on both sides. Every tile fits into 99 KB of
/// shared memory, which every card has; each is of one format. W64x32 is a warp's part of 64 rows of x and 32 of W, which is as wide
/// as its scales allow: decoding x costs most.
/// </summary>
internal static class CodeKernels
{
    /// <summary>The architecture whose tensor cores multiply codes with scales: not older ones, and not 12.1, whose kernels are compiled for no architecture of their own.</summary>
    public const int ScaledArch = 120;

    private static readonly Dictionary<GemmTile, (GemmTileInfo Info, WeightFormat Format)> Infos = [];
    private static readonly Dictionary<(Fp8Decoding Decoding, GemmTile Tile), KernelDefinition<LinearArgs>> ByKey = Create();

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = ByKey.Values;

    /// <summary>The tiles of a format.</summary>
    public static IEnumerable<GemmTile> Tiles(WeightFormat format) => Infos.Where(t => t.Value.Format == format).Select(t => t.Key);

    /// <summary>Sizes of a tile; its kernel is not loaded.</summary>
    public static GemmTileInfo Info(GemmTile tile) => Infos[tile].Info;

    /// <summary>The format of a tile, of W and of x.</summary>
    public static WeightFormat FormatOf(GemmTile tile) => Infos[tile].Format;

    /// <summary>The ways that a format's tiles are multiplied.</summary>
    public static IEnumerable<Fp8Decoding> Decodings(WeightFormat format) => format == WeightFormat.Nvfp4 ? [Fp8Decoding.Native] : [Fp8Decoding.Native, Fp8Decoding.NativeScaled, Fp8Decoding.BitMove];

    /// <summary>Codes in 16 bits: what the kernel counts as one column.</summary>
    public static int CodesInColumn(WeightFormat format) => 16 / format.Info().BitsPerCode;

    /// <summary>The kernel of a tile and one of its format's <see cref="Decodings"/>.</summary>
    public static KernelDefinition<LinearArgs> Get(Fp8Decoding decoding, GemmTile tile) => ByKey[(decoding, tile)];

    private static Dictionary<(Fp8Decoding Decoding, GemmTile Tile), KernelDefinition<LinearArgs>> Create()
    {
        var kernels = new Dictionary<(Fp8Decoding Decoding, GemmTile Tile), KernelDefinition<LinearArgs>>();
        // So many native blocks have room on Hopper, by shared memory or (128 × 128) by registers; for more the compiler would spill where the products are emulated (docs/decisions/0003).
        AddFp8<Tile32x64x64, SixStages, W16x32>(kernels, GemmTile.M32N64K128, nativeBlocks: 3);
        AddFp8<Tile64x128x64, FourStages, W64x32>(kernels, GemmTile.M64N128K128, nativeBlocks: 2);
        // Eight warps, two a scheduler: one of four would wait for its own loads.
        AddFp8<Tile128x128x64, ThreeStages, W64x32>(kernels, GemmTile.M128N128K128, nativeBlocks: 1);
        AddNvfp4<Tile32x64x64, SixStages, W16x32>(kernels, GemmTile.M32N64K256);
        AddNvfp4<Tile64x128x64, ThreeStages, W64x32>(kernels, GemmTile.M64N128K256);
        AddNvfp4<Tile128x128x64, TwoStages, W64x32>(kernels, GemmTile.M128N128K256);
        return kernels;
    }

    private static void AddFp8<TTile, TStages, TWarp>(Dictionary<(Fp8Decoding Decoding, GemmTile Tile), KernelDefinition<LinearArgs>> kernels, GemmTile tile, int nativeBlocks)
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
    {
        KernelTraits traits = Traits<TiledFp8Native, TTile, TStages, TWarp>(tile, WeightFormat.Fp8Block);
        kernels.Add((Fp8Decoding.Native, tile), new(Gemm.Run<TiledFp8Native, TTile, TStages, TWarp, OneMatrix, PlainEpilogue>, traits with { MinArch = 89, BlocksPerMultiprocessor = nativeBlocks }));
        kernels.Add((Fp8Decoding.NativeScaled, tile), new(Gemm.Run<TiledFp8Scaled, TTile, TStages, TWarp, OneMatrix, PlainEpilogue>, Scaled(traits)));
        kernels.Add((Fp8Decoding.BitMove, tile), new(Gemm.Run<TiledFp8Decoded, TTile, TStages, TWarp, OneMatrix, PlainEpilogue>, traits));
    }

    private static void AddNvfp4<TTile, TStages, TWarp>(Dictionary<(Fp8Decoding Decoding, GemmTile Tile), KernelDefinition<LinearArgs>> kernels, GemmTile tile)
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
    {
        KernelTraits traits = Traits<TiledNvfp4Native, TTile, TStages, TWarp>(tile, WeightFormat.Nvfp4);
        kernels.Add((Fp8Decoding.Native, tile), new(Gemm.Run<TiledNvfp4Native, TTile, TStages, TWarp, OneMatrix, PlainEpilogue>, Scaled(traits)));
    }

    private static KernelTraits Scaled(KernelTraits traits) => traits with { MinArch = ScaledArch, ExactArch = "120a" };

    // Columns of a tile are 16 bits of codes.
    private static KernelTraits Traits<TFormat, TTile, TStages, TWarp>(GemmTile tile, WeightFormat format)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
    {
        int threads = 1 << GemmSizes<TFormat, TTile, TStages, TWarp>.ThreadsShift;
        Infos.Add(tile, (new GemmTileInfo(TTile.M, TTile.N, threads, GemmSizes<TFormat, TTile, TStages, TWarp>.SharedBytes), format));
        return new KernelTraits(threads, NeedsWarp32: true);
    }
}
