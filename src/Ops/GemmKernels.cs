using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;
using W128x32 = GpuKit.Ilgpu.Kernels.GemmTwice<GpuKit.Ilgpu.Kernels.GemmTwice<GpuKit.Ilgpu.Kernels.GemmTwice<GpuKit.Ilgpu.Kernels.GemmOnce<GpuKit.Ilgpu.Kernels.GemmPair2>>>>;
using W16x16 = GpuKit.Ilgpu.Kernels.GemmOnce<GpuKit.Ilgpu.Kernels.GemmPair1>;
using W32x16 = GpuKit.Ilgpu.Kernels.GemmTwice<GpuKit.Ilgpu.Kernels.GemmOnce<GpuKit.Ilgpu.Kernels.GemmPair1>>;
using W32x32 = GpuKit.Ilgpu.Kernels.GemmTwice<GpuKit.Ilgpu.Kernels.GemmOnce<GpuKit.Ilgpu.Kernels.GemmPair2>>;
using W32x64 = GpuKit.Ilgpu.Kernels.GemmTwice<GpuKit.Ilgpu.Kernels.GemmOnce<GpuKit.Ilgpu.Kernels.GemmPair4>>;
using W64x16 = GpuKit.Ilgpu.Kernels.GemmTwice<GpuKit.Ilgpu.Kernels.GemmTwice<GpuKit.Ilgpu.Kernels.GemmOnce<GpuKit.Ilgpu.Kernels.GemmPair1>>>;
using W64x32 = GpuKit.Ilgpu.Kernels.GemmTwice<GpuKit.Ilgpu.Kernels.GemmTwice<GpuKit.Ilgpu.Kernels.GemmOnce<GpuKit.Ilgpu.Kernels.GemmPair2>>>;
using W64x64 = GpuKit.Ilgpu.Kernels.GemmTwice<GpuKit.Ilgpu.Kernels.GemmTwice<GpuKit.Ilgpu.Kernels.GemmOnce<GpuKit.Ilgpu.Kernels.GemmPair4>>>;

namespace GpuKit.Ilgpu;

/// <summary>
/// The one place where run-time choices become type arguments of <see cref="Gemm"/>: which tiles there are, how each is spread over
/// warps, and what they can be asked for. W64x32 is a warp's part of 64 rows of x and 32 of W.
/// </summary>
/// <remarks>
/// BF16 weights are read by every warp that needs them: square parts read least. Codes are decoded by every warp that needs
/// them: there a warp has as many rows of x as registers allow, and few of W.
/// </remarks>
internal static class GemmKernels
{
    private static readonly Dictionary<(WeightFormat Format, GemmTile Tile), GemmTileInfo> Infos = [];
    private static readonly Dictionary<Key, KernelDefinition<LinearArgs>> ByKey = Create();

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = ByKey.Values;

    private readonly record struct Key(WeightFormat Format, GemmTile Tile, bool Grouped = false, GemmEpilogue Epilogue = GemmEpilogue.Plain);

    /// <summary>Sizes of a tile; its kernel is not loaded.</summary>
    public static GemmTileInfo Info(WeightFormat format, GemmTile tile) => Infos[(format, tile)];

    /// <summary>Whether there is such a kernel.</summary>
    public static bool Exists(WeightFormat format, GemmTile tile, GemmEpilogue epilogue = GemmEpilogue.Plain, bool grouped = false) => ByKey.ContainsKey(new Key(format, tile, grouped, epilogue));

    public static KernelDefinition<LinearArgs> Get(WeightFormat format, GemmTile tile, GemmEpilogue epilogue = GemmEpilogue.Plain, bool grouped = false) => ByKey[new Key(format, tile, grouped, epilogue)];

    private static Dictionary<Key, KernelDefinition<LinearArgs>> Create()
    {
        var kernels = new Dictionary<Key, KernelDefinition<LinearArgs>>();
        AddValues(kernels);
        AddCodes<TiledFp8>(kernels, WeightFormat.Fp8Block);
        AddCodes<TiledFp8TwoTerm>(kernels, WeightFormat.Fp8TwoTerm);
        AddCodes<TiledNvfp4>(kernels, WeightFormat.Nvfp4);
        AddCodes<TiledInt4>(kernels, WeightFormat.Int4);
        AddCodes<TiledInt4Zero>(kernels, WeightFormat.Int4Zero);
        return kernels;
    }

    private static void AddValues(Dictionary<Key, KernelDefinition<LinearArgs>> kernels)
    {
        Add<TiledBf16, Tile16x64x128, FourStages, W16x16>(kernels, WeightFormat.Bf16, GemmTile.M16N64K128);
        Add<TiledBf16, Tile32x64x128, FourStages, W32x16>(kernels, WeightFormat.Bf16, GemmTile.M32N64K128);
        Add<TiledBf16, Tile64x64x64, FourStages, W32x32>(kernels, WeightFormat.Bf16, GemmTile.M64N64K64);
        AddMain<TiledBf16, Tile64x128x64, FourStages, W32x64>(kernels, WeightFormat.Bf16, GemmTile.M64N128K64);
        AddMain<TiledBf16, Tile128x128x64, ThreeStages, W64x64>(kernels, WeightFormat.Bf16, GemmTile.M128N128K64);
        Add<TiledBf16, Tile128x256x64, FourStages, W64x64>(kernels, WeightFormat.Bf16, GemmTile.M128N256K64);
        AddInParts<TiledBf16, Tile256x128x64, FourStages, W64x64, Tile128x128x64, FourStages, W64x32>(kernels, WeightFormat.Bf16, GemmTile.M256N128K64);
        Add<TiledBf16, Tile128x128x128, ThreeStages, W64x32>(kernels, WeightFormat.Bf16, GemmTile.M128N128K128);
    }

    private static void AddCodes<TFormat>(Dictionary<Key, KernelDefinition<LinearArgs>> kernels, WeightFormat format)
        where TFormat : struct, ITiledFormat
    {
        Add<TFormat, Tile16x64x128, SixStages, W16x16>(kernels, format, GemmTile.M16N64K128);
        Add<TFormat, Tile32x64x128, SixStages, W32x16>(kernels, format, GemmTile.M32N64K128);
        Add<TFormat, Tile64x64x64, SixStages, W64x16>(kernels, format, GemmTile.M64N64K64);
        AddMain<TFormat, Tile64x128x64, SixStages, W64x32>(kernels, format, GemmTile.M64N128K64);
        AddMain<TFormat, Tile128x128x64, FourStages, W128x32>(kernels, format, GemmTile.M128N128K64);
        // NVFP4's group scales take too many registers for eight such warps: 3.8 KB a thread were spilled, 13 times the time.
        if (format != WeightFormat.Nvfp4)
            Add<TFormat, Tile128x256x64, FourStages, W128x32>(kernels, format, GemmTile.M128N256K64);
        // Tiles that only big products of common formats repay: every kernel is compiled for six architectures in the tests.
        if (format != WeightFormat.Fp8Block)
            return;
        Add<TFormat, Tile256x128x64, FourStages, W128x32>(kernels, format, GemmTile.M256N128K64);
    }

    // Tiles that every card has the shared memory for also serve experts and gated products.
    private static void AddMain<TFormat, TTile, TStages, TWarp>(Dictionary<Key, KernelDefinition<LinearArgs>> kernels, WeightFormat format, GemmTile tile)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
    {
        Add<TFormat, TTile, TStages, TWarp>(kernels, format, tile);
        var key = new Key(format, tile);
        KernelTraits traits = Traits<TFormat, TTile, TStages, TWarp>();
        // In another order of instructions NVFP4 needs more registers: sums of 128 × 128 have none left, and of 64 × 128 fewer blocks run at once (docs/decisions/0003).
        kernels.Add(key with { Grouped = true }, new(Gemm.Run<TFormat, TTile, TStages, TWarp, ExpertMatrices, PlainEpilogue>, traits with { JoinedFirst = typeof(TFormat) == typeof(TiledNvfp4) }));
        kernels.Add(key with { Epilogue = GemmEpilogue.Gated }, new(Gemm.Run<TFormat, TTile, TStages, TWarp, OneMatrix, GatedEpilogue>, traits with { JoinedFirst = typeof(TFormat) == typeof(TiledNvfp4) && TTile.M == 128 }));
    }

    private static void Add<TFormat, TTile, TStages, TWarp>(Dictionary<Key, KernelDefinition<LinearArgs>> kernels, WeightFormat format, GemmTile tile)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
    {
        KernelTraits traits = Traits<TFormat, TTile, TStages, TWarp>();
        Infos.Add((format, tile), new GemmTileInfo(TTile.M, TTile.N, traits.MaxThreads, GemmSizes<TFormat, TTile, TStages, TWarp>.SharedBytes));
        var key = new Key(format, tile);
        kernels.Add(key, new(Gemm.Run<TFormat, TTile, TStages, TWarp, OneMatrix, PlainEpilogue>, traits));
        kernels.Add(key with { Epilogue = GemmEpilogue.Bias }, new(Gemm.Run<TFormat, TTile, TStages, TWarp, OneMatrix, BiasEpilogue>, traits));
        kernels.Add(key with { Epilogue = GemmEpilogue.Residual }, new(Gemm.Run<TFormat, TTile, TStages, TWarp, OneMatrix, ResidualEpilogue>, traits));
        kernels.Add(key with { Epilogue = GemmEpilogue.BiasResidual }, new(Gemm.Run<TFormat, TTile, TStages, TWarp, OneMatrix, BiasResidualEpilogue>, traits));
    }

    // A part has as many warps as a tile.
    private static void AddInParts<TFormat, TTile, TStages, TWarp, TPart, TPartStages, TPartWarp>(Dictionary<Key, KernelDefinition<LinearArgs>> kernels, WeightFormat format, GemmTile tile)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
        where TPart : struct, IGemmTile
        where TPartStages : struct, IGemmStages
        where TPartWarp : struct, IGemmWarp<TPartWarp>
    {
        KernelTraits traits = Traits<TFormat, TTile, TStages, TWarp>();
        int shared = Math.Max(GemmSizes<TFormat, TTile, TStages, TWarp>.SharedBytes, GemmSizes<TFormat, TPart, TPartStages, TPartWarp>.SharedBytes);
        Infos.Add((format, tile), new GemmTileInfo(TTile.M, TTile.N, traits.MaxThreads, shared, TTile.M * TTile.N / (TPart.M * TPart.N)));
        var key = new Key(format, tile);
        kernels.Add(key, new(Gemm.RunInParts<TFormat, TTile, TStages, TWarp, TPart, TPartStages, TPartWarp, PlainEpilogue>, traits));
        kernels.Add(key with { Epilogue = GemmEpilogue.Bias }, new(Gemm.RunInParts<TFormat, TTile, TStages, TWarp, TPart, TPartStages, TPartWarp, BiasEpilogue>, traits));
        kernels.Add(key with { Epilogue = GemmEpilogue.Residual }, new(Gemm.RunInParts<TFormat, TTile, TStages, TWarp, TPart, TPartStages, TPartWarp, ResidualEpilogue>, traits));
        kernels.Add(key with { Epilogue = GemmEpilogue.BiasResidual }, new(Gemm.RunInParts<TFormat, TTile, TStages, TWarp, TPart, TPartStages, TPartWarp, BiasResidualEpilogue>, traits));
    }

    private static KernelTraits Traits<TFormat, TTile, TStages, TWarp>()
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp> =>
        new(1 << GemmSizes<TFormat, TTile, TStages, TWarp>.ThreadsShift, NeedsWarp32: true, BlocksPerMultiprocessor: Blocks<TFormat, TTile>());

    // Left to itself the compiler spills two to four words of these for a block more than shared memory has room for, on some architectures (docs/decisions/0003).
    private static int Blocks<TFormat, TTile>() => (typeof(TFormat).Name, typeof(TTile).Name) is
        (nameof(TiledBf16) or nameof(TiledInt4), nameof(Tile64x64x64)) or (nameof(TiledInt4Zero), nameof(Tile32x64x128)) ? 3 : 0;
}
