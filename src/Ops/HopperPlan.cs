using GpuKit.Ilgpu.Kernels;

namespace GpuKit.Ilgpu;

/// <summary>Tiles of <see cref="HopperGemm"/>.</summary>
internal enum HopperTileKind
{
    Bf16N256,
    Bf16N192,
    Bf16N128,
    Bf16N64,
    Fp8N128,
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
    /// <summary>Whether a tile is of FP8 codes on both sides.</summary>
    public static bool IsFp8(HopperTileKind kind) => kind is HopperTileKind.Fp8N128 or HopperTileKind.Fp8N192;

    /// <summary>Rows and columns of a tile.</summary>
    public static (int Rows, int Columns) Size(HopperTileKind kind) => kind switch
    {
        HopperTileKind.Bf16N256 => (HopperGemm.TileRows<HopperBf16N256>(), HopperGemm.TileColumns<HopperBf16N256>()),
        HopperTileKind.Bf16N192 => (HopperGemm.TileRows<HopperBf16N192>(), HopperGemm.TileColumns<HopperBf16N192>()),
        HopperTileKind.Bf16N128 => (HopperGemm.TileRows<HopperBf16N128>(), HopperGemm.TileColumns<HopperBf16N128>()),
        HopperTileKind.Bf16N64 => (HopperGemm.TileRows<HopperBf16N64>(), HopperGemm.TileColumns<HopperBf16N64>()),
        HopperTileKind.Fp8N128 => (HopperGemm.TileRows<HopperFp8N128>(), HopperGemm.TileColumns<HopperFp8N128>()),
        _ => (HopperGemm.TileRows<HopperFp8N192>(), HopperGemm.TileColumns<HopperFp8N192>()),
    };

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
