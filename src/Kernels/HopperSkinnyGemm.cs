using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// <see cref="SkinnyGemm"/> for large matrices on Hopper (sm_90a): at most 16 rows of x, which lie in shared memory as products take them, and weights that the copy engine brings, a ring a warp.
/// </summary>
/// <remarks>
/// A block has some tiles of 32 rows of W and takes K in phases, as much of x as fits into shared memory, arranged once, so that a chunk costs a warp nothing but its weights' decoding, a 16-byte load a step and tile
/// of x, and the products. A phase's chunks, tile after tile, are divided evenly among the warps: each has a run of them, and none waits for another before the end of the phase, where the copies of the next one's
/// weights are on their way. A tile that a run ends within is finished by the warp that began it, which adds the other runs' pieces in their order, and phases are added in theirs. All of it follows from N, K, the
/// format and the device, so a row of x has the same bits for every M of 1..16.
/// </remarks>
internal static class HopperSkinnyGemm
{
    public const int Warps = 12, Threads = 32 * Warps;

    /// <summary>Rows of W of a tile.</summary>
    public const int Rows = 32;

    /// <summary>Bytes of a row that a warp multiplies at once.</summary>
    public const int ChunkBytes = 128;

    // A stage's codes, and what is stored beside the weights for them: 16 bytes a row.
    private const int StageBytes = Rows * ChunkBytes, AsideBytes = 16 * Rows, BarrierBytes = 8;

    /// <summary>Sums of a warp's tile and eight rows of x.</summary>
    internal const int SumsBytes = Rows * SkinnyGemm.Columns * sizeof(float);

    /// <summary>Codes of a chunk.</summary>
    public static int ChunkCodes(int codesPerWordShift) => (ChunkBytes / 4) << codesPerWordShift;

    /// <summary>Dynamic shared memory of a block whose phases have so many columns.</summary>
    public static int SharedBytes(int tiles, int columns) => Inputs(tiles) + (columns * tiles * SkinnyGemm.Columns * sizeof(ushort));

    private static int Stages(int tiles) => tiles == 1 ? 3 : 2;

    private static int Aside(int tiles) => Warps * Stages(tiles) * StageBytes;

    private static int Pieces(int tiles) => Aside(tiles) + (Warps * Stages(tiles) * AsideBytes);

    private static int Totals(int tiles) => Pieces(tiles) + (Warps * tiles * SumsBytes);

    private static int Barriers(int tiles) => Totals(tiles) + (HopperSkinnyCursor.PhasedTiles * tiles * SumsBytes);

    private static int Inputs(int tiles) => Barriers(tiles) + (Warps * 4 * BarrierBytes);

    public static void Run<TFormat, TInput, TOutput, TTiles>(HopperSkinnyArgs a)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TOutput : struct, ISkinnyOutput
        where TTiles : struct, ITiles
    {
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        uint window = SharedWindow.Open(ref shared[0]);
        HopperSkinnyWarp warp = default;
        warp.Index = Group.IdxX >> 5;
        warp.Lane = Group.IdxX & 31;
        warp.Ring = window + (uint)(warp.Index * Stages(TTiles.Count) * StageBytes);
        warp.Barriers = window + (uint)(Barriers(TTiles.Count) + (warp.Index * 4 * BarrierBytes));
        warp.Inputs = window + (uint)Inputs(TTiles.Count);
        warp.Pieces = window + (uint)Pieces(TTiles.Count);
        warp.Aside = shared.SubView(Aside(TTiles.Count) + (warp.Index * Stages(TTiles.Count) * AsideBytes), Stages(TTiles.Count) * AsideBytes).Cast<uint>();
        warp.Totals = window + (uint)Totals(TTiles.Count);
        if (warp.Lane == 0)
        {
            for (int i = 0; i < Stages(TTiles.Count); i++)
                Mbarrier.Initialize(warp.Barriers + (uint)(i * BarrierBytes), 1);
            Mbarrier.FenceInitialized();
        }
        WarpOps.Barrier();
        HopperSkinnyCursor unit = default, next;
        unit.Enter(a, warp.Index, 0);
        next = unit;
        next.Settle(a, warp.Index);
        // Weights are no output of the launch before.
        for (int i = 0; i < Stages(TTiles.Count); i++)
        {
            Request<TFormat>(a, warp, next, i);
            next.Advance();
            next.Settle(a, warp.Index);
        }
        GridDependency.Release();
        GridDependency.Wait();
        HopperRing ring = default;
        for (int segment = 0; segment < HopperSkinnyCursor.Segments(a); segment++)
        {
            unit.Enter(a, warp.Index, segment);
            HopperSkinnyInputs.Arrange<TFormat, TInput, TTiles>(a, warp, unit);
            // All of x is there before it is multiplied, and what the phase before has added to totals.
            Group.Barrier();
            HopperSkinnyCursor end = unit;
            SkinnyAccumulators sums = default;
            bool open = Multiply<TFormat, TInput, TOutput, TTiles>(a, warp, ref end, ref next, ref ring, ref sums);
            // All pieces are there before they are added, and nobody reads x any more.
            Group.Barrier();
            if (open)
                HopperSkinnySums.Finish<TFormat, TInput, TOutput, TTiles>(a, warp, end, sums);
        }
    }

    // The warp's run of chunks of a phase. Whether it has begun a tile and not ended it, whose sums are left.
    private static bool Multiply<TFormat, TInput, TOutput, TTiles>(HopperSkinnyArgs a, HopperSkinnyWarp warp, ref HopperSkinnyCursor unit, ref HopperSkinnyCursor next, ref HopperRing ring, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TOutput : struct, ISkinnyOutput
        where TTiles : struct, ITiles
    {
        bool begun = unit.Chunk == 0, pending = false;
        HopperSkinnyOperands operands = HopperSkinnyProducts.LoadAhead<TFormat>(a, warp, unit);
        while (unit.Number < unit.End)
        {
            Mbarrier.Wait(warp.Barriers + (uint)(ring.Stage * BarrierBytes), ring.Parity);
            if (HasAside<TFormat>())
            {
                if ((a.X1 & 1) != 0)
                    CpAsync.WaitAll();
                else if (TTiles.Count == 1)
                    CpAsync.Wait(2);
                else
                    CpAsync.Wait(1);
                // All lanes' copies have landed.
                WarpOps.Barrier();
                HopperSkinnyProducts.LoadAside<TFormat>(warp, ring.Stage * AsideBytes / sizeof(uint), ref operands);
            }
            HopperSkinnyCodes codes = HopperSkinnyProducts.LoadCodes<TFormat>(warp, ring.Stage * StageBytes);
            HopperSkinnyCursor following = unit;
            following.Advance();
            HopperSkinnyOperands ahead = HopperSkinnyProducts.LoadAhead<TFormat>(a, warp, following);
            uint x = warp.Inputs + HopperSkinnyInputs.Offset<TFormat, TTiles>(unit.Chunk, warp.Lane);
            SkinnyAccumulators parts = HopperSkinnyProducts.MultiplyFirst<TFormat, TTiles>(x, codes, operands, ref sums);
            // The first words were loaded last and have been used: all lanes have read the stage, and it is filled again.
            WarpOps.Barrier();
            if ((a.X1 & 2) == 0)
                Request<TFormat>(a, warp, next, ring.Stage);
            HopperSkinnyProducts.MultiplySecond<TFormat, TTiles>(x, codes, operands, parts, ref sums);
            if ((a.X1 & 2) != 0)
            {
                if ((a.X1 & 4) != 0)
                    Tma.FenceShared();
                WarpOps.Barrier();
                Request<TFormat>(a, warp, next, ring.Stage);
            }
            next.Advance();
            next.Settle(a, warp.Index);
            operands = ahead;
            pending = true;
            if (unit.Chunk == unit.Chunks - 1)
            {
                if (begun)
                    HopperSkinnySums.Emit<TFormat, TInput, TOutput, TTiles>(a, warp, unit, sums);
                else
                    HopperSkinnySums.Keep<TTiles>(warp, sums);
                begun = true;
                pending = false;
                sums = default;
            }
            unit = following;
            ring.Advance(Stages(TTiles.Count));
        }
        if (pending & !begun)
            HopperSkinnySums.Keep<TTiles>(warp, sums);
        return pending & begun;
    }

    private static bool HasAside<TFormat>()
        where TFormat : struct, IStreamedFormat => TFormat.HasGroupScales || TFormat.HasRowScales;

    // Asks for a chunk, or for nothing behind the run's end.
    private static void Request<TFormat>(HopperSkinnyArgs a, HopperSkinnyWarp warp, HopperSkinnyCursor unit, int stage)
        where TFormat : struct, IStreamedFormat
    {
        if (unit.Number < unit.End)
        {
            if (warp.Lane == 0)
            {
                uint arrived = warp.Barriers + (uint)(stage * BarrierBytes);
                Mbarrier.ArriveExpecting(arrived, StageBytes);
                Tma.Load(a.Weight, HopperSkinnyArgs.WeightMap, warp.Ring + (uint)(stage * StageBytes), (unit.FirstChunk + unit.Chunk) * ChunkBytes, unit.Tile * Rows, arrived);
            }
            if (HasAside<TFormat>())
                HopperSkinnyProducts.RequestAside<TFormat>(a, warp, unit, stage * AsideBytes / sizeof(uint));
        }
        if (HasAside<TFormat>())
            CpAsync.Commit();
    }
}

/// <summary>Where a warp of <see cref="HopperSkinnyGemm"/> finds things.</summary>
internal struct HopperSkinnyWarp
{
    public int Index, Lane;

    /// <summary>Addresses of the warp's stages and barriers, of all warps' pieces, of sums over phases, and of x.</summary>
    public uint Ring, Barriers, Pieces, Totals, Inputs;

    /// <summary>What is stored beside the warp's stages.</summary>
    public ArrayView<uint> Aside;
}
