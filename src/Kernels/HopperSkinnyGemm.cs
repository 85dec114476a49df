using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// <see cref="SkinnyGemm"/> for large matrices on Hopper (sm_90a): at most 16 rows of x, which lie in shared memory as products take them, and weights that the copy engine brings, a ring a warp.
/// </summary>
/// <remarks>
/// A block has a part of K and some tiles of 32 rows of W. Its part of x is arranged once, so that a chunk costs a warp nothing but its weights' decoding, a 16-byte load a step and tile of x, and the
/// products. The block's chunks, tile after tile, are divided evenly among its warps: each has a run of them, and no warp waits for another before the end. A tile that a run ends within is finished by
/// the warp that began it, which adds the other runs' pieces in their order; parts of K are added by the last block of a column of blocks to be done, in their order. All of it follows from N, K, the format and
/// the device, so a row of x has the same bits for every M of 1..16.
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

    /// <summary>Dynamic shared memory of a block whose part has so many columns.</summary>
    public static int SharedBytes(int tiles, int columns) => Inputs(tiles) + (columns * tiles * SkinnyGemm.Columns * sizeof(ushort));

    private static int Stages(int tiles) => tiles == 1 ? 3 : 2;

    private static int Aside(int tiles) => Warps * Stages(tiles) * StageBytes;

    private static int Pieces(int tiles) => Aside(tiles) + (Warps * Stages(tiles) * AsideBytes);

    private static int Barriers(int tiles) => Pieces(tiles) + (Warps * tiles * SumsBytes);

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
        warp.Locate(a);
        if (warp.Lane == 0)
        {
            for (int i = 0; i < Stages(TTiles.Count); i++)
                Mbarrier.Initialize(warp.Barriers + (uint)(i * BarrierBytes), 1);
            Mbarrier.FenceInitialized();
        }
        WarpOps.Barrier();
        // Weights are no output of the launch before.
        HopperSkinnyUnit next = warp.First;
        for (int i = 0; i < Stages(TTiles.Count); i++)
        {
            Request<TFormat>(a, warp, next, i);
            next.Advance(warp.Chunks);
        }
        GridDependency.Release();
        GridDependency.Wait();
        HopperSkinnyInputs.Arrange<TFormat, TInput, TTiles>(a, warp);
        // All of x is there before it is multiplied.
        Group.Barrier();
        SkinnyAccumulators sums = default;
        int open = Multiply<TFormat, TOutput, TInput, TTiles>(a, warp, next, ref sums);
        // All pieces are there before they are added.
        Group.Barrier();
        if (open >= 0)
            HopperSkinnySums.Finish<TFormat, TInput, TOutput, TTiles>(a, warp, open, sums);
        if (Grid.DimY > 1)
            HopperSkinnySums.AddParts<TFormat, TInput, TOutput, TTiles>(a, warp, shared);
    }

    // The warp's run of chunks. Gives the tile that it has begun and not ended, whose sums are left, or −1.
    private static int Multiply<TFormat, TOutput, TInput, TTiles>(HopperSkinnyArgs a, HopperSkinnyWarp warp, HopperSkinnyUnit next, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TOutput : struct, ISkinnyOutput
        where TTiles : struct, ITiles
    {
        HopperSkinnyUnit unit = warp.First;
        HopperRing ring = default;
        bool begun = unit.Chunk == 0;
        HopperSkinnyOperands operands = HopperSkinnyProducts.LoadAhead<TFormat>(a, warp, unit);
        while (unit.Number < warp.End)
        {
            Mbarrier.Wait(warp.Barriers + (uint)(ring.Stage * BarrierBytes), ring.Parity);
            if (HasAside<TFormat>())
            {
                if (TTiles.Count == 1)
                    CpAsync.Wait(2);
                else
                    CpAsync.Wait(1);
                // All lanes' copies have landed.
                WarpOps.Barrier();
                HopperSkinnyProducts.LoadAside<TFormat>(warp, ring.Stage * AsideBytes / sizeof(uint), ref operands);
            }
            HopperSkinnyCodes codes = HopperSkinnyProducts.LoadCodes<TFormat>(warp, ring.Stage * StageBytes);
            // All lanes have read the stage: it is filled again.
            WarpOps.Barrier();
            Request<TFormat>(a, warp, next, ring.Stage);
            next.Advance(warp.Chunks);
            HopperSkinnyUnit following = unit;
            following.Advance(warp.Chunks);
            HopperSkinnyOperands ahead = HopperSkinnyProducts.LoadAhead<TFormat>(a, warp, following);
            HopperSkinnyProducts.Multiply<TFormat, TTiles>(warp.Inputs + HopperSkinnyInputs.Offset<TFormat, TTiles>(unit.Chunk, warp.Lane), codes, operands, ref sums);
            operands = ahead;
            if (unit.Chunk == warp.Chunks - 1)
            {
                if (begun)
                    HopperSkinnySums.Emit<TFormat, TInput, TOutput, TTiles>(a, warp, unit.Tile, sums);
                else
                    HopperSkinnySums.Keep<TTiles>(warp, sums);
                begun = true;
                sums = default;
            }
            unit = following;
            ring.Advance(Stages(TTiles.Count));
        }
        if (unit.Chunk == 0 || warp.First.Number >= warp.End)
            return -1;
        if (begun)
            return unit.Tile;
        HopperSkinnySums.Keep<TTiles>(warp, sums);
        return -1;
    }

    private static bool HasAside<TFormat>()
        where TFormat : struct, IStreamedFormat => TFormat.HasGroupScales || TFormat.HasRowScales;

    // Asks for a chunk, or for nothing behind the run's end.
    private static void Request<TFormat>(HopperSkinnyArgs a, HopperSkinnyWarp warp, HopperSkinnyUnit unit, int stage)
        where TFormat : struct, IStreamedFormat
    {
        if (unit.Number < warp.End)
        {
            if (warp.Lane == 0)
            {
                uint arrived = warp.Barriers + (uint)(stage * BarrierBytes);
                Mbarrier.ArriveExpecting(arrived, StageBytes);
                Tma.Load(a.Weight, HopperSkinnyArgs.WeightMap, warp.Ring + (uint)(stage * StageBytes), (warp.FirstChunk + unit.Chunk) * ChunkBytes, unit.Tile * Rows, arrived);
            }
            if (HasAside<TFormat>())
                HopperSkinnyProducts.RequestAside<TFormat>(a, warp, unit, stage * AsideBytes / sizeof(uint));
        }
        if (HasAside<TFormat>())
            CpAsync.Commit();
    }
}

/// <summary>A chunk of a block: of which tile, which of its chunks, and which of all.</summary>
internal struct HopperSkinnyUnit
{
    public int Tile, Chunk, Number;

    /// <summary>The next one.</summary>
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
}

/// <summary>Where a warp of <see cref="HopperSkinnyGemm"/> finds things, and its run of chunks.</summary>
internal struct HopperSkinnyWarp
{
    public int Index, Lane;

    /// <summary>Addresses of the warp's stages and barriers, of all warps' pieces, and of x.</summary>
    public uint Ring, Barriers, Pieces, Inputs;

    /// <summary>What is stored beside the warp's stages.</summary>
    public ArrayView<uint> Aside;

    /// <summary>The block's first tile and the one behind its last.</summary>
    public int FirstTile, EndTile;

    /// <summary>The part's first chunk, and how many it has.</summary>
    public int FirstChunk, Chunks;

    /// <summary>The run's first chunk, and the number behind its last.</summary>
    public HopperSkinnyUnit First;

    public int End;

    /// <summary>Finds the run.</summary>
    public void Locate(HopperSkinnyArgs a)
    {
        FirstTile = (int)((long)a.Tiles * Grid.IdxX / Grid.DimX);
        EndTile = (int)((long)a.Tiles * (Grid.IdxX + 1) / Grid.DimX);
        FirstChunk = Grid.IdxY * a.PartChunks;
        Chunks = IntrinsicMath.Min(a.PartChunks, a.Chunks - FirstChunk);
        First.Number = RunOf(Index);
        First.Tile = FirstTile + (First.Number / Chunks);
        First.Chunk = First.Number - ((First.Tile - FirstTile) * Chunks);
        End = RunOf(Index + 1);
    }

    /// <summary>The number of a warp's first chunk.</summary>
    public readonly int RunOf(int warp) => (int)((long)(EndTile - FirstTile) * Chunks * warp / HopperSkinnyGemm.Warps);
}
