using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;
using W32x16 = GpuKit.Ilgpu.Kernels.GemmTwice<GpuKit.Ilgpu.Kernels.GemmOnce<GpuKit.Ilgpu.Kernels.GemmPair1>>;
using W64x32 = GpuKit.Ilgpu.Kernels.GemmTwice<GpuKit.Ilgpu.Kernels.GemmTwice<GpuKit.Ilgpu.Kernels.GemmOnce<GpuKit.Ilgpu.Kernels.GemmPair2>>>;

namespace GpuKit.Ilgpu;

/// <summary>
/// The one place where run-time choices become type arguments of <see cref="Gemm"/> with FP8 on both sides. Every tile fits into 99 KB of
/// shared memory, which every card has. W64x32 is a warp's part of 64 rows of x and 32 of W.
/// </summary>
internal static class CodeKernels
{
    private static readonly Dictionary<GemmTile, GemmTileInfo> Infos = [];
    private static readonly Dictionary<(Fp8Decoding Decoding, GemmTile Tile), KernelDefinition<LinearArgs>> ByKey = Create();

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = ByKey.Values;

    /// <summary>The tiles that there are.</summary>
    public static IEnumerable<GemmTile> Tiles => Infos.Keys;

    /// <summary>Sizes of a tile; its kernel is not loaded.</summary>
    public static GemmTileInfo Info(GemmTile tile) => Infos[tile];

    /// <summary>The kernel of a tile, <see cref="Fp8Decoding.Native"/> or <see cref="Fp8Decoding.BitMove"/>.</summary>
    public static KernelDefinition<LinearArgs> Get(Fp8Decoding decoding, GemmTile tile) => ByKey[(decoding, tile)];

    private static Dictionary<(Fp8Decoding Decoding, GemmTile Tile), KernelDefinition<LinearArgs>> Create()
    {
        var kernels = new Dictionary<(Fp8Decoding Decoding, GemmTile Tile), KernelDefinition<LinearArgs>>();
        Add<Tile32x64x64, SixStages, W32x16>(kernels, GemmTile.M32N64K128);
        Add<Tile64x128x64, FourStages, W64x32>(kernels, GemmTile.M64N128K128);
        // Eight warps, two a scheduler: one of four would wait for its own loads.
        Add<Tile128x128x64, ThreeStages, W64x32>(kernels, GemmTile.M128N128K128);
        return kernels;
    }

    // Columns of a tile are pairs of codes.
    private static void Add<TTile, TStages, TWarp>(Dictionary<(Fp8Decoding Decoding, GemmTile Tile), KernelDefinition<LinearArgs>> kernels, GemmTile tile)
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
    {
        var traits = new KernelTraits(1 << GemmSizes<TiledFp8Native, TTile, TStages, TWarp>.ThreadsShift, NeedsWarp32: true);
        Infos.Add(tile, new GemmTileInfo(TTile.M, TTile.N, traits.MaxThreads, GemmSizes<TiledFp8Native, TTile, TStages, TWarp>.SharedBytes));
        kernels.Add((Fp8Decoding.Native, tile), new(Gemm.Run<TiledFp8Native, TTile, TStages, TWarp, OneMatrix, PlainEpilogue>, traits with { MinArch = 89 }));
        kernels.Add((Fp8Decoding.BitMove, tile), new(Gemm.Run<TiledFp8Decoded, TTile, TStages, TWarp, OneMatrix, PlainEpilogue>, traits));
    }
}
