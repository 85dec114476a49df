using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>The sums of <see cref="HopperSweep"/> in shared memory: [tile of a warp][warp][half of a tile, of each tile of x][lane] 16 bytes.</summary>
internal static class HopperSweepSums
{
    private const int Lanes = 32, LaneBytes = 16, HalfBytes = Lanes * LaneBytes;

    /// <summary>Dynamic shared memory of a block: sums of as many warps as there may be in so many tiles of W, of which a warp has half, and of x.</summary>
    public static int SharedBytes(int tiles, int inputTiles) => HopperSweep.MostWarps * Slots(tiles) * inputTiles * 2 * HalfBytes;

    // Tiles whose sums a warp has.
    private static int Slots(int tiles) => (tiles + 1) >> 1;

    private static int WarpBytes<TTiles>()
        where TTiles : struct, ITiles => 2 * TTiles.Count * HalfBytes;

    /// <summary>From a warp's tile's sums to its next one's.</summary>
    public static int SlotBytes<TTiles>()
        where TTiles : struct, ITiles => HopperSweep.MostWarps * WarpBytes<TTiles>();

    /// <summary>Where the first warp's lane's are; the second of a pair counts its tiles from the first that it may have.</summary>
    public static uint FirstOwn<TTiles>(HopperSweepPlace place, uint shared, int lane)
        where TTiles : struct, ITiles =>
        shared + (uint)((((place.Side * place.Pairs) + place.Pair) * WarpBytes<TTiles>()) + (lane * LaneBytes) - (place.Side * (place.Tiles >> 1) * SlotBytes<TTiles>()));

    public static void Clear<TTiles>(HopperSweepPlace place)
        where TTiles : struct, ITiles
    {
        int first = place.Side * (place.Tiles >> 1);
        for (int slot = 0; slot < Slots(place.Tiles); slot++)
            Store<TTiles>(place.OwnSums + (uint)((first + slot) * SlotBytes<TTiles>()), default);
    }

    public static SkinnyAccumulators Load<TTiles>(uint at)
        where TTiles : struct, ITiles
    {
        SkinnyAccumulators sums = default;
        sums.Upper0 = Load(at);
        sums.Lower0 = Load(at + HalfBytes);
        if (TTiles.Count == 2)
        {
            sums.Upper1 = Load(at + (2 * HalfBytes));
            sums.Lower1 = Load(at + (3 * HalfBytes));
        }
        return sums;
    }

    public static void Store<TTiles>(uint at, SkinnyAccumulators sums)
        where TTiles : struct, ITiles
    {
        SharedWindow.Store(at, Float32Output.Bits(sums.Upper0));
        SharedWindow.Store(at + HalfBytes, Float32Output.Bits(sums.Lower0));
        if (TTiles.Count == 2)
        {
            SharedWindow.Store(at + (2 * HalfBytes), Float32Output.Bits(sums.Upper1));
            SharedWindow.Store(at + (3 * HalfBytes), Float32Output.Bits(sums.Lower1));
        }
    }

    /// <summary>Adds what the warps have, in their order, and stores it; a thread a lane's sums of half a tile: its rows g and g + 8, and two rows of x.</summary>
    public static void Add<TFormat, TInput, TOutput, TTiles>(HopperSkinnyArgs a, HopperSweepPlace place)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TOutput : struct, ISkinnyOutput
        where TTiles : struct, ITiles
    {
        const int Halves = 2;
        int parts = Halves * TTiles.Count;
        for (int i = Group.IdxX; i < place.Tiles * parts * Lanes; i += Group.DimX)
        {
            int lane = i & (Lanes - 1), tile = i / (parts * Lanes), part = (i >> 5) & (parts - 1);
            int row = place.TileRow(tile) + ((part & 1) * SkinnyGemm.Rows / Halves) + (lane >> 2), m = ((part >> 1) * SkinnyGemm.Columns) + (2 * (lane & 3));
            if (m >= a.M)
                continue;
            F4 sum = Sum<TTiles>(place, tile, (part * HalfBytes) + (lane * LaneBytes));
            // Rows of the tile before are that one's.
            int own = tile * SkinnyGemm.Rows;
            if (row >= own)
                Store<TFormat, TInput, TOutput>(a, place, m, row, sum.X, sum.Y);
            if (row + 8 >= own)
                Store<TFormat, TInput, TOutput>(a, place, m, row + 8, sum.Z, sum.W);
        }
    }

    // The middle one of an odd number of tiles is in both warps of a pair.
    private static F4 Sum<TTiles>(HopperSweepPlace place, int tile, int within)
        where TTiles : struct, ITiles
    {
        int half = place.Tiles >> 1, side = tile < half ? 0 : 1, warp = WarpBytes<TTiles>();
        bool isMiddle = (place.Tiles & 1) != 0 && tile == half;
        uint from = place.Sums + (uint)(((tile - (side * half)) * SlotBytes<TTiles>()) + (side * place.Pairs * warp) + within);
        F4 sum = default;
        if (isMiddle)
            sum = Sum(sum, place.Sums + (uint)((half * SlotBytes<TTiles>()) + within), place.Pairs, warp);
        return Sum(sum, from, place.Pairs, warp);
    }

    private static F4 Sum(F4 sum, uint from, int count, int step)
    {
        for (int i = 0; i < count; i++)
        {
            F4 other = Load(from + (uint)(i * step));
            sum.X += other.X;
            sum.Y += other.Y;
            sum.Z += other.Z;
            sum.W += other.W;
        }
        return sum;
    }

    // Two rows of x.
    private static void Store<TFormat, TInput, TOutput>(HopperSkinnyArgs a, HopperSweepPlace place, int m, int row, float first, float second)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TOutput : struct, ISkinnyOutput
    {
        long at = (m * a.OutputStride) + place.FirstRow + row;
        float scale = TFormat.HasGroupScales ? Mem.LoadReadOnlyFloat(a.Scales) * (TInput.AreCodes ? TFormat.Correction * TFormat.Correction : TFormat.Correction) : 1f;
        TOutput.Store(a.Output, at, Finish<TFormat, TInput>(a, first, m, scale));
        if (m + 1 < a.M)
            TOutput.Store(a.Output, at + a.OutputStride, Finish<TFormat, TInput>(a, second, m + 1, scale));
    }

    private static float Finish<TFormat, TInput>(HopperSkinnyArgs a, float sum, int m, float weightScale)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        sum = SkinnySums.Finish<TFormat, TInput>(sum, weightScale);
        return TInput.HasRowScales ? Fast.Mul(sum, Interop.IntAsFloat(Mem.LoadRelaxedFrom(a.InputScales + ((long)m * sizeof(float))))) : sum;
    }

    private static F4 Load(uint address) => Float32Output.Values(SharedWindow.Load(address));
}
