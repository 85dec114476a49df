using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// <see cref="SkinnyGemm"/> for large matrices on Hopper (sm_90a): at most 16 rows of x, which lie in shared memory as products take them, and weights of four bits that the copy engine brings, a ring a warp.
/// </summary>
/// <remarks>
/// A block has some tiles of 32 rows of W and all of x, which it arranges once: then a chunk costs a warp nothing but its weights' decoding, a 16-byte load a step and tile of x, and the products. The block's
/// chunks, tile after tile, are divided evenly among its warps: each has a run of them, and none waits for another before the end. A tile that a run ends within is finished by the warp that began it, which
/// adds the other runs' pieces in their order. All of it follows from N, K, the format and the device, so a row of x has the same bits for every M of 1..16.
/// </remarks>
internal static class HopperSkinnyGemm
{
    public const int Warps = 12, Threads = 32 * Warps;

    /// <summary>Rows of W of a tile.</summary>
    public const int Rows = 32;

    /// <summary>Bytes of a row that a warp multiplies at once.</summary>
    public const int ChunkBytes = 128;

    // A stage's codes, and what is stored beside the weights for them: 16 bytes a row.
    private const int StageBytes = Rows * ChunkBytes, AsideBytes = 16 * Rows, BarrierBytes = 8, MostStages = 3, BarriersOfWarp = 4;

    /// <summary>Sums of a warp's tile and eight rows of x.</summary>
    internal const int SumsBytes = Rows * SkinnyGemm.Columns * sizeof(float);

    /// <summary>Codes of a chunk.</summary>
    public const int ChunkCodes = 2 * ChunkBytes;

    /// <summary>Dynamic shared memory of a block for so many tiles of x and columns, whole chunks.</summary>
    public static int SharedBytes(int tiles, int columns) => Inputs(tiles) + (columns * tiles * SkinnyGemm.Columns * sizeof(ushort));

    // Of nine rows and more, x takes what the third would.
    private static int Stages(int tiles) => tiles == 1 ? MostStages : MostStages - 1;

    private static int Aside(int tiles) => Warps * Stages(tiles) * StageBytes;

    private static int Pieces(int tiles) => Aside(tiles) + (Warps * Stages(tiles) * AsideBytes);

    private static int Barriers(int tiles) => Pieces(tiles) + (Warps * tiles * SumsBytes);

    private static int Inputs(int tiles) => Barriers(tiles) + (Warps * BarriersOfWarp * BarrierBytes);

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
        warp.Barriers = window + (uint)(Barriers(TTiles.Count) + (warp.Index * BarriersOfWarp * BarrierBytes));
        warp.Inputs = window + (uint)Inputs(TTiles.Count);
        warp.Pieces = window + (uint)Pieces(TTiles.Count);
        warp.Aside = shared.SubView(Aside(TTiles.Count) + (warp.Index * Stages(TTiles.Count) * AsideBytes), Stages(TTiles.Count) * AsideBytes).Cast<uint>();
        if (warp.Lane == 0)
        {
            for (int i = 0; i < Stages(TTiles.Count); i++)
                Mbarrier.Initialize(warp.Barriers + (uint)(i * BarrierBytes), 1);
            Mbarrier.FenceInitialized();
        }
        WarpOps.Barrier();
        HopperSkinnyRun first = default;
        first.Enter(a, warp.Index);
        HopperSkinnyRun next = first;
        // Weights are no output of the launch before.
        for (int i = 0; i < Stages(TTiles.Count); i++)
        {
            Request<TFormat>(a, warp, next, i);
            next.Advance(a.Chunks);
        }
        GridDependency.Release();
        GridDependency.Wait();
        HopperSkinnyInputs.Arrange<TFormat, TInput, TTiles>(a, warp);
        // All of x is there before it is multiplied.
        Block.Barrier();
        SkinnyAccumulators sums = default;
        int open = Multiply<TFormat, TInput, TOutput, TTiles>(a, warp, first, next, ref sums);
        // All pieces are there before they are added.
        Block.Barrier();
        if (open >= 0)
            HopperSkinnySums.Finish<TFormat, TInput, TOutput, TTiles>(a, warp, open, sums);
    }

    // The warp's run of chunks. Gives the tile that it has begun and not ended, whose sums are left, or −1.
    private static int Multiply<TFormat, TInput, TOutput, TTiles>(HopperSkinnyArgs a, HopperSkinnyWarp warp, HopperSkinnyRun unit, HopperSkinnyRun next, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TOutput : struct, ISkinnyOutput
        where TTiles : struct, ITiles
    {
        HopperRing ring = default;
        bool begun = unit.Chunk == 0, pending = false;
        HopperSkinnyOperands operands = HopperSkinnyProducts.LoadAhead<TFormat>(a, warp, unit);
        while (unit.Number < unit.End)
        {
            Mbarrier.Wait(warp.Barriers + (uint)(ring.Stage * BarrierBytes), ring.Parity);
            // All copies but those of the other stages.
            if (TTiles.Count == 1)
                CpAsync.Wait(2);
            else
                CpAsync.Wait(1);
            // All lanes' copies have landed.
            WarpOps.Barrier();
            HopperSkinnyProducts.LoadAside<TFormat>(warp, ring.Stage * AsideBytes / sizeof(uint), ref operands);
            HopperSkinnyCodes codes = HopperSkinnyProducts.LoadCodes<TFormat>(warp, ring.Stage * StageBytes);
            HopperSkinnyRun following = unit;
            following.Advance(a.Chunks);
            HopperSkinnyOperands ahead = HopperSkinnyProducts.LoadAhead<TFormat>(a, warp, following);
            uint x = warp.Inputs + HopperSkinnyInputs.Offset<TTiles>(unit.Chunk, warp.Lane);
            SkinnyAccumulators parts = HopperSkinnyProducts.MultiplyUntilLoaded<TFormat, TTiles>(x, codes, operands, ref sums);
            // Part of every loaded word has been multiplied, so all of them are there, in all lanes: the stage is filled again. A load that has only been issued may read what the copy engine brings.
            WarpOps.Barrier();
            Request<TFormat>(a, warp, next, ring.Stage);
            next.Advance(a.Chunks);
            HopperSkinnyProducts.MultiplyRest<TFormat, TTiles>(x, codes, operands, parts, ref sums);
            operands = ahead;
            pending = true;
            if (unit.Chunk == a.Chunks - 1)
            {
                if (begun)
                    HopperSkinnySums.Emit<TFormat, TInput, TOutput, TTiles>(a, warp, unit.Tile, sums);
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
        return pending & begun ? unit.Tile : -1;
    }

    // Asks for a chunk, or for nothing behind the run's end.
    private static void Request<TFormat>(HopperSkinnyArgs a, HopperSkinnyWarp warp, HopperSkinnyRun unit, int stage)
        where TFormat : struct, IStreamedFormat
    {
        if (unit.Number < unit.End)
        {
            if (warp.Lane == 0)
            {
                uint arrived = warp.Barriers + (uint)(stage * BarrierBytes);
                Mbarrier.ArriveExpecting(arrived, StageBytes);
                Tma.Load(a.Weight, HopperSkinnyArgs.WeightMap, warp.Ring + (uint)(stage * StageBytes), unit.Chunk * ChunkBytes, unit.Tile * Rows, arrived);
            }
            HopperSkinnyProducts.RequestAside<TFormat>(a, warp, unit, stage * AsideBytes / sizeof(uint));
        }
        CpAsync.Commit();
    }
}

/// <summary>Where a warp of <see cref="HopperSkinnyGemm"/> finds things.</summary>
internal struct HopperSkinnyWarp
{
    public int Index, Lane;

    /// <summary>Addresses of the warp's stages and barriers, of all warps' pieces, and of x.</summary>
    public uint Ring, Barriers, Pieces, Inputs;

    /// <summary>What is stored beside the warp's stages.</summary>
    public ArrayView<uint> Aside;
}

/// <summary>A warp's place in its run of its block's chunks: tiles of the block one after the other, all chunks of each.</summary>
internal struct HopperSkinnyRun
{
    /// <summary>The tile, its chunk, the chunk's number in the block, and the number behind the run's last.</summary>
    public int Tile, Chunk, Number, End;

    /// <summary>The block's first tile.</summary>
    public static int FirstTile(HopperSkinnyArgs a) => Bound(a, Grid.IdxX);

    /// <summary>The number of the first chunk of a warp's run.</summary>
    public static int FirstNumber(HopperSkinnyArgs a, int warp) => (int)((long)(Bound(a, Grid.IdxX + 1) - FirstTile(a)) * a.Chunks * warp / HopperSkinnyGemm.Warps);

    /// <summary>Goes to the beginning of a warp's run.</summary>
    public void Enter(HopperSkinnyArgs a, int warp)
    {
        Number = FirstNumber(a, warp);
        End = FirstNumber(a, warp + 1);
        int tile = Number / a.Chunks;
        Tile = FirstTile(a) + tile;
        Chunk = Number - (tile * a.Chunks);
    }

    /// <summary>The next chunk.</summary>
    public void Advance(int chunks)
    {
        Number++;
        Chunk++;
        if (Chunk == chunks)
        {
            Chunk = 0;
            Tile++;
        }
    }

    private static int Bound(HopperSkinnyArgs a, int block) => (int)((long)a.Tiles * block / Grid.DimX);
}
