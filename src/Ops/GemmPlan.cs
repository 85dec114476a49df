namespace GpuKit.Ilgpu;

/// <summary>Which tile the pipelined kernel takes: a pure function of shape and device.</summary>
internal static class GemmPlan
{
    /// <summary>Rows up to which a product is bound by reading the weights: the tile is as high as the rows need.</summary>
    public const int ReadBoundRows = 64;

    // Relative cost of an element of y, in percent, of tiles for products that are bound by multiplying, with BF16 weights.
    private static readonly (GemmTile Tile, int Cost)[] Wide =
    [
        (GemmTile.M256N128K64, 100), (GemmTile.M128N256K64, 102), (GemmTile.M128N128K64, 108), (GemmTile.M64N128K64, 135), (GemmTile.M64N64K64, 165),
    ];

    // The same of a part of a tile, in percent of the tile's.
    private const int PartCost = 126;

    // The same where they are decoded.
    private static readonly (GemmTile Tile, int Cost)[] WideCodes =
    [
        (GemmTile.M128N128K64, 100), (GemmTile.M128N256K64, 101), (GemmTile.M256N128K64, 104), (GemmTile.M64N128K64, 135), (GemmTile.M64N64K64, 165),
    ];

    // The same of tiles with codes on both sides. Guesses after the others': no card that multiplies codes has been measured.
    private static readonly (GemmTile Tile, int Cost)[] OfCodes =
    [
        (GemmTile.M128N128K128, 100), (GemmTile.M64N128K128, 115), (GemmTile.M32N64K128, 200),
        (GemmTile.M128N128K256, 100), (GemmTile.M64N128K256, 115), (GemmTile.M32N64K256, 200),
    ];

    // Among experts rows spread: a tile of 128 must be filled more than half on average.
    private const int WideRowsAnExpert = 96;

    public static LinearPlan Choose(in LinearShape shape, in LinearDevice device, bool gated, GemmTile? force)
    {
        GemmTile tile = force ?? ChooseTile(shape, device, gated);
        GemmTileInfo info = GemmKernels.Info(shape.Format, tile);
        long blocks = Blocks(shape, info, gated), rest = Rest(blocks, info, device), grid = blocks + (rest * (info.Parts - 1));
        return new LinearPlan(LinearPath.Gemm, LinearPlan.TileDecoding(shape.Format), true, (int)Math.Min(grid, int.MaxValue), 1, info.Threads, tile, info.SharedBytes, WholeTiles: (int)Math.Min(blocks - rest, int.MaxValue));
    }

    /// <summary>For codes on both sides.</summary>
    public static LinearPlan ChooseCodes(in LinearShape shape, in LinearDevice device, Fp8Decoding? decoding, GemmTile? force)
    {
        GemmTile tile = force ?? Least(OfCodes, shape, device, gated: false, shape.Format == WeightFormat.Nvfp4 ? GemmTile.M64N128K256 : GemmTile.M64N128K128);
        GemmTileInfo info = CodeKernels.Info(tile);
        bool native = shape.Format == WeightFormat.Nvfp4 || MultipliesFp8(device);
        return new LinearPlan(LinearPath.Gemm, decoding ?? (native ? Fp8Decoding.Native : Fp8Decoding.BitMove), true, (int)Math.Min(Blocks(shape, info, false), int.MaxValue), 1, info.Threads, tile, info.SharedBytes);
    }

    /// <summary>Whether <c>mma.sync</c> has FP8 units: Ada and consumer Blackwell. Hopper, which has others, takes the instruction apart and is slow; so, one must assume, does compute capability 10.</summary>
    private static bool MultipliesFp8(in LinearDevice device) => device.Arch is 89 or (>= 120 and < 130) && device.CudaVersion >= NativeCudaVersion;

    // Of PTX 8.4, which has the instruction.
    private const int NativeCudaVersion = 124;

    private static GemmTile ChooseTile(in LinearShape shape, in LinearDevice device, bool gated)
    {
        if (shape.Experts > 0)
            return shape.M / shape.Experts >= WideRowsAnExpert ? GemmTile.M128N128K64 : GemmTile.M64N128K64;
        if (!gated && shape.M <= ReadBoundRows)
        {
            if (shape.M <= 32)
                return shape.M <= 16 ? GemmTile.M16N64K128 : GemmTile.M32N64K128;
            // Every block reads all of x: few wide ones read less, as long as they fill the card.
            return Tiles(shape.N, 128) * 4 >= 3L * device.Multiprocessors ? GemmTile.M64N128K64 : GemmTile.M64N64K64;
        }
        return Least(shape.Format == WeightFormat.Bf16 ? Wide : WideCodes, shape, device, gated, GemmTile.M64N128K64);
    }

    // The last tiles that are taken apart: those too few for all multiprocessors, if each has a part of them at most.
    private static long Rest(long blocks, in GemmTileInfo info, in LinearDevice device)
    {
        long rest = blocks % device.Multiprocessors;
        return rest * info.Parts <= device.Multiprocessors && info.Parts > 1 ? rest : 0;
    }

    // The tile that leaves the busiest multiprocessor least to do: its tensor cores are what runs out.
    private static GemmTile Least((GemmTile Tile, int Cost)[] tiles, in LinearShape shape, in LinearDevice device, bool gated, GemmTile otherwise)
    {
        (GemmTile best, long least) = (otherwise, long.MaxValue);
        bool codes = shape.Activations is not null;
        foreach ((GemmTile tile, int cost) in tiles)
        {
            if (codes ? CodeKernels.FormatOf(tile) != shape.Format : !GemmKernels.Exists(shape.Format, tile, gated ? GemmEpilogue.Gated : GemmEpilogue.Plain))
                continue;
            GemmTileInfo info = codes ? CodeKernels.Info(tile) : GemmKernels.Info(shape.Format, tile);
            if (!info.Fits(device))
                continue;
            long blocks = Blocks(shape, info, gated), rest = Rest(blocks, info, device);
            long turns = (blocks - rest + device.Multiprocessors - 1) / device.Multiprocessors;
            long total = turns * info.M * info.N * cost;
            if (rest > 0)
                total += info.M * info.N * cost * PartCost / (100 * info.Parts);
            if (total < least)
                (least, best) = (total, tile);
        }
        return best;
    }

    // Each expert's rows start a tile of their own: at most one partial tile an expert beyond the full ones.
    private static long Blocks(in LinearShape shape, in GemmTileInfo info, bool gated) =>
        (Tiles(shape.M, info.M) + shape.Experts) * Tiles(gated ? shape.N / 2 : shape.N, info.Columns(gated));

    private static long Tiles(int size, int tile) => ((long)size + tile - 1) / tile;
}
