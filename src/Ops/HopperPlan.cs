using GpuKit.Ilgpu.Kernels;

namespace GpuKit.Ilgpu;

/// <summary>Tiles of <see cref="HopperGemm"/>.</summary>
internal enum HopperTileKind
{
    Bf16N256,
    Bf16N192,
    Bf16N160,
    Bf16N128,
    Bf16N80,
    Bf16N64,
    Fp8N128,
    Fp8N160,
    Fp8N192,
}

/// <summary>How a product is spread over a Hopper card: a pure function of shape and device.</summary>
/// <param name="Kind">Tile.</param>
/// <param name="Clusters">Whether two blocks share W's tile.</param>
/// <param name="RowTiles">Tiles along M, with clusters pairs of them.</param>
/// <param name="ColumnTiles">Tiles along N.</param>
/// <param name="Blocks">Blocks, which take tiles in turn.</param>
internal readonly record struct HopperPlan(HopperTileKind Kind, bool Clusters, int RowTiles, int ColumnTiles, int Blocks)
{
    // The copy engine's multicast, wgmma and the exchange of registers are of this architecture and no other.
    private const int Arch = 90;

    private const int ScaleExtent = 128;

    /// <summary>Whether a tile is of FP8 codes on both sides.</summary>
    public static bool IsFp8(HopperTileKind kind) => kind is HopperTileKind.Fp8N128 or HopperTileKind.Fp8N160 or HopperTileKind.Fp8N192;

    /// <summary>Rows and columns of a tile.</summary>
    public static (int Rows, int Columns) Size(HopperTileKind kind) => kind switch
    {
        HopperTileKind.Bf16N256 => (HopperGemm.TileRows<HopperBf16N256>(), HopperGemm.TileColumns<HopperBf16N256>()),
        HopperTileKind.Bf16N192 => (HopperGemm.TileRows<HopperBf16N192>(), HopperGemm.TileColumns<HopperBf16N192>()),
        HopperTileKind.Bf16N160 => (HopperGemm.TileRows<HopperBf16N160>(), HopperGemm.TileColumns<HopperBf16N160>()),
        HopperTileKind.Bf16N128 => (HopperGemm.TileRows<HopperBf16N128>(), HopperGemm.TileColumns<HopperBf16N128>()),
        HopperTileKind.Bf16N80 => (HopperGemm.TileRows<HopperBf16N80>(), HopperGemm.TileColumns<HopperBf16N80>()),
        HopperTileKind.Bf16N64 => (HopperGemm.TileRows<HopperBf16N64>(), HopperGemm.TileColumns<HopperBf16N64>()),
        HopperTileKind.Fp8N128 => (HopperGemm.TileRows<HopperFp8N128>(), HopperGemm.TileColumns<HopperFp8N128>()),
        HopperTileKind.Fp8N160 => (HopperGemm.TileRows<HopperFp8N160>(), HopperGemm.TileColumns<HopperFp8N160>()),
        _ => (HopperGemm.TileRows<HopperFp8N192>(), HopperGemm.TileColumns<HopperFp8N192>()),
    };

    // Relative time of one step along K of a tile on a multiprocessor that is one of many at work, from docs/results (nanoseconds on an H200).
    private static readonly (HopperTileKind Kind, bool Clusters, int Cost)[] Bf16Tiles =
    [
        (HopperTileKind.Bf16N256, false, 776), (HopperTileKind.Bf16N192, false, 595), (HopperTileKind.Bf16N160, false, 505), (HopperTileKind.Bf16N128, false, 410), (HopperTileKind.Bf16N80, false, 275), (HopperTileKind.Bf16N64, false, 232),
    ];

    private static readonly (HopperTileKind Kind, bool Clusters, int Cost)[] Fp8Tiles =
    [
        (HopperTileKind.Fp8N192, false, 674), (HopperTileKind.Fp8N160, false, 631), (HopperTileKind.Fp8N128, false, 506),
    ];

    // From here on a shared tile of W pays with the widest tile: the rows of x no longer stay in L2.
    private const int ClustersFromRows = 4096;

    /// <summary>
    /// The plan of a product, or null where these kernels cannot run it: another card, rows that are not whole 16-byte words, a format without a
    /// tile, scale blocks narrower than 128 × 128, experts.
    /// </summary>
    public static HopperPlan? Choose(in LinearShape shape, in LinearDevice device)
    {
        if (device.Arch != Arch || !shape.Aligned || shape.Experts > 0)
            return null;
        bool fp8 = shape.Activations == ActivationFormat.Fp8Group128 && shape.Format == WeightFormat.Fp8Block && shape.Block is { Rows: >= ScaleExtent, Columns: >= ScaleExtent };
        if (!fp8 && (shape.Activations is not null || shape.Format != WeightFormat.Bf16))
            return null;
        HopperPlan best = default;
        long least = long.MaxValue;
        foreach ((HopperTileKind kind, bool clusters, int cost) in fp8 ? Fp8Tiles : Bf16Tiles)
        {
            HopperPlan plan = Of(kind, clusters || (kind == HopperTileKind.Bf16N256 && shape.M >= ClustersFromRows), shape.M, shape.N, device.Multiprocessors);
            // Tiles of the multiprocessor that has most of them.
            long turns = ((long)plan.RowTiles * plan.ColumnTiles * (plan.Clusters ? 2 : 1) + plan.Blocks - 1) / plan.Blocks;
            if (turns * cost < least)
                (least, best) = (turns * cost, plan);
        }
        return best;
    }

    /// <summary>The plan with a given tile.</summary>
    public static HopperPlan Of(HopperTileKind kind, bool clusters, int m, int n, int multiprocessors)
    {
        (int tileRows, int tileColumns) = Size(kind);
        int together = clusters ? 2 : 1;
        int rows = Tiles(m, tileRows * together), columns = Tiles(n, tileColumns);
        long wanted = (long)rows * columns * together;
        return new HopperPlan(kind, clusters, rows, columns, (int)Math.Min(wanted, multiprocessors / together * together));
    }

    private static int Tiles(int size, int tile) => (int)(((long)size + tile - 1) / tile);
}
