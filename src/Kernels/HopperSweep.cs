using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// <see cref="SkinnyGemm"/> for codes of four bits in large matrices on Hopper (sm_90a): at most 16 rows of x, a chunk of which a warp loads once for half of its block's rows of W, and weights that the copy engine brings, a ring a warp.
/// </summary>
/// <remarks>
/// A block a multiprocessor, with an equal share of the rows of W. Pairs of its warps take turns along K, 64 bytes of each row at a time (a chunk), and sweep over the share with a chunk's inputs in registers, 32 rows (a tile)
/// at a time; <see cref="SkinnyGemm"/>'s warps load them anew for each tile, which at 16 rows of x is more work for L1 than the weights. A warp of a pair has the share's first tiles, the other its last ones; of an odd number the middle one
/// is now the one's, now the other's, so that all warps have the same to do and no scheduler waits for another. A warp's sums of its tiles lie in shared memory, 16 bytes a lane, which nobody else touches until the end: then
/// they are added in warp order. The order of sums depends on N, K, the format and the device, so a row of x has the same bits for every M of 1..16.
/// </remarks>
internal static class HopperSweep
{
    public const int MostWarps = 16;

    /// <summary>Shares of blocks begin at multiples of so many rows.</summary>
    public const int ShareRows = 8;

    // Of a warp's ring.
    private const int Stages = 2;

    /// <summary>A unit's codes in a stage.</summary>
    public const int StageBytes = SkinnyGemm.Rows * SkinnyGemm.ChunkBytes;

    private const int BarrierBytes = 8;

    /// <summary>Dynamic shared memory of a block: stages of its warps, and their sums in so many tiles of W, of which a warp has half, and of x.</summary>
    public static int SharedBytes(int warps, int tiles, int inputTiles) => Sums(warps, inputTiles) + HopperSweepSums.SharedBytes(tiles, inputTiles);

    private static int Aside(int warps) => warps * Stages * StageBytes;

    private static int Barriers(int warps, int inputTiles) => Aside(warps) + (warps * Stages * HopperSweepAside.StageBytes(inputTiles));

    private static int Sums(int warps, int inputTiles) => Barriers(warps, inputTiles) + (warps * Stages * BarrierBytes);

    public static void Run<TFormat, TInput, TOutput, TTiles>(HopperSkinnyArgs a)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TOutput : struct, ISkinnyOutput
        where TTiles : struct, ITiles
    {
        int lane = Group.IdxX & 31, warp = Group.IdxX >> 5, warps = Group.DimX >> 5;
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        uint window = SharedWindow.Open(ref shared[0]);
        int aside = Aside(warps) + (warp * Stages * HopperSweepAside.StageBytes(TTiles.Count));
        HopperSweepPlace place = HopperSweepPlace.Locate<TFormat, TInput>(a, lane, warp, warps);
        place.Ring = window + (uint)(warp * Stages * StageBytes);
        place.AsideRing = window + (uint)aside;
        place.Aside = shared.SubView(aside, Stages * HopperSweepAside.StageBytes(TTiles.Count)).Cast<uint>();
        place.Barriers = window + (uint)(Barriers(warps, TTiles.Count) + (warp * Stages * BarrierBytes));
        place.Sums = window + (uint)Sums(warps, TTiles.Count);
        place.OwnSums = HopperSweepSums.FirstOwn<TTiles>(place, place.Sums, lane);
        if (lane == 0)
        {
            for (int i = 0; i < Stages; i++)
                Mbarrier.Initialize(place.Barriers + (uint)(i * BarrierBytes), 1);
            Mbarrier.FenceInitialized();
        }
        WarpOps.Barrier();
        // Weights are no output of the launch before. Codes of x come sooner if less is asked for before them.
        HopperSweepWindow units = HopperSweepWindow.Of<TFormat, TTiles>(a, place, 0);
        Request<TFormat, TTiles>(a, place, units, Find<TFormat, TTiles>(a, place, ref units, 0), 0);
        if (!TInput.AreCodes)
            Request<TFormat, TTiles>(a, place, units, Find<TFormat, TTiles>(a, place, ref units, 1), 1);
        HopperSweepSums.Clear<TTiles>(place);
        GridDependency.Release();
        GridDependency.Wait();
        HopperSweepTurn first = HopperSweepTurn.First(place);
        SkinnyInputs x = default;
        if (TTiles.Count == 1)
            x = HopperSweepLoads.Inputs<TInput>(place, place.Input0, first.Chunk);
        if (TInput.AreCodes)
            Request<TFormat, TTiles>(a, place, units, Find<TFormat, TTiles>(a, place, ref units, 1), 1);
        Multiply<TFormat, TInput, TTiles>(a, place, units, first, x);
        // All warps' sums are there before they are added.
        Block.Barrier();
        HopperSweepSums.Add<TFormat, TInput, TOutput, TTiles>(a, place);
    }

    // A warp's turns. Of one tile of x the inputs are a turn ahead.
    private static void Multiply<TFormat, TInput, TTiles>(HopperSkinnyArgs a, HopperSweepPlace place, HopperSweepWindow units, HopperSweepTurn turn, SkinnyInputs next)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        int unit = 0;
        while (turn.Chunk < place.Chunks)
        {
            HopperSweepTurn following = turn;
            following.Advance(place);
            SkinnyInputTiles x = default;
            uint own = place.OwnSums + (uint)(turn.FirstTile * HopperSweepSums.SlotBytes<TTiles>());
            int tile = turn.FirstTile;
            if (TTiles.Count == 1)
            {
                x.Tile0 = HopperSweepLoads.Decode<TFormat, TInput>(next);
                next = HopperSweepLoads.Inputs<TInput>(place, place.Input0, following.Chunk);
            }
            else
            {
                SkinnyInputs first = HopperSweepLoads.Inputs<TInput>(place, place.Input0, turn.Chunk), second = HopperSweepLoads.Inputs<TInput>(place, place.Input1, turn.Chunk);
                (uint Aside, uint Zeros) from = Find<TFormat, TTiles>(a, place, ref units, unit + 1);
                SkinnyChunk w = Load<TFormat, TTiles>(a, place, turn.Chunk, tile, unit);
                Refill<TFormat, TTiles>(a, place, units, from, unit);
                x.Tile0 = HopperSweepLoads.Decode<TFormat, TInput>(first);
                x.Tile1 = HopperSweepLoads.Decode<TFormat, TInput>(second);
                own = Multiply<TFormat, TTiles>(w, x, own);
                tile++;
                unit++;
            }
            for (; tile < turn.EndTile; tile++)
            {
                (uint Aside, uint Zeros) from = Find<TFormat, TTiles>(a, place, ref units, unit + 1 + (2 - TTiles.Count));
                SkinnyChunk w = Load<TFormat, TTiles>(a, place, turn.Chunk, tile, unit);
                if (TTiles.Count == 2)
                    Refill<TFormat, TTiles>(a, place, units, from, unit);
                own = Multiply<TFormat, TTiles>(w, x, own);
                if (TTiles.Count == 1)
                {
                    // What has been multiplied and stored was there, in all lanes: the stage is filled again. A load that has only been issued might read what the copy engine brings next.
                    WarpOps.Barrier();
                    Request<TFormat, TTiles>(a, place, units, from, unit + 2);
                }
                unit++;
            }
            turn = following;
        }
    }

    // A unit's weights, when they are there.
    private static SkinnyChunk Load<TFormat, TTiles>(HopperSkinnyArgs a, HopperSweepPlace place, int chunk, int tile, int unit)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        int stage = unit & 1;
        Mbarrier.Wait(place.Barriers + (uint)(stage * BarrierBytes), (uint)(unit >> 1) & 1);
        // With two tiles of x the next unit has not been asked for yet.
        if (TTiles.Count == 1)
            CpAsync.Wait(1);
        else if (HopperSweepAside.AreCopied<TFormat, TTiles>())
            CpAsync.Wait(0);
        // All lanes' copies have landed, and none needs the other stage any more: what it had has been multiplied and stored. A load that has only been issued might read what the copy engine brings next.
        WarpOps.Barrier();
        return HopperSweepLoads.Stage<TFormat, TTiles>(a, place, chunk, tile, stage);
    }

    // Gives where the next tile's sums are.
    private static uint Multiply<TFormat, TTiles>(SkinnyChunk w, SkinnyInputTiles x, uint own)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        uint next = own + (uint)HopperSweepSums.SlotBytes<TTiles>();
        SkinnyAccumulators sums = HopperSweepSums.Load<TTiles>(own);
        SkinnyProducts.Multiply<TFormat, StreamedArrangedInputs, TTiles>(w, x, ref sums);
        HopperSweepSums.Store<TTiles>(next - (uint)HopperSweepSums.SlotBytes<TTiles>(), sums);
        return next;
    }

    // While a unit's weights are loaded the other stage is filled with the next one's; at first both are.
    private static void Refill<TFormat, TTiles>(HopperSkinnyArgs a, HopperSweepPlace place, HopperSweepWindow units, (uint Aside, uint Zeros) from, int unit)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        if (unit > 0)
            Request<TFormat, TTiles>(a, place, units, from, unit + 1);
    }

    // Where what is stored beside a unit's codes lies; early, since whoever knows it is another lane.
    private static (uint Aside, uint Zeros) Find<TFormat, TTiles>(HopperSkinnyArgs a, HopperSweepPlace place, ref HopperSweepWindow units, int unit)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        int at = unit & (HopperSweepWindow.Units - 1);
        if (at == 0 && unit > 0)
            units = HopperSweepWindow.Of<TFormat, TTiles>(a, place, unit);
        return (HopperSweepAside.AreMapped(TTiles.Count) ? 0 : WarpOps.Shuffle(units.Multiplier, at), TFormat.HasZeroPoints ? WarpOps.Shuffle(units.Zeros, at) : 0);
    }

    // Asks for a unit, or for nothing behind the last.
    private static void Request<TFormat, TTiles>(HopperSkinnyArgs a, HopperSweepPlace place, HopperSweepWindow units, (uint Aside, uint Zeros) from, int unit)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        if (unit < place.Units)
        {
            int stage = unit & 1;
            // The lane that knows where it lies.
            if ((Group.IdxX & 31) == (unit & (HopperSweepWindow.Units - 1)))
            {
                uint arrived = place.Barriers + (uint)(stage * BarrierBytes);
                Mbarrier.ArriveExpecting(arrived, StageBytes + (HopperSweepAside.AreMapped(TTiles.Count) ? HopperSweepAside.MappedBytes : 0));
                Tma.Load(a.Weight, HopperSkinnyArgs.WeightMap, place.Ring + (uint)(stage * StageBytes), units.Column, units.Row, arrived);
                if (HopperSweepAside.AreMapped(TTiles.Count))
                    Tma.Load(a.Multipliers, HopperSkinnyArgs.MultiplierMap, place.AsideRing + (uint)(stage * HopperSweepAside.StageBytes(TTiles.Count)), (int)units.Multiplier, units.Row, arrived);
            }
            HopperSweepAside.Copy<TFormat, TTiles>(place, from, stage);
        }
        if (HopperSweepAside.AreCopied<TFormat, TTiles>())
            CpAsync.Commit();
    }
}
