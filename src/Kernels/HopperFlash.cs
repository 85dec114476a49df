using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of <see cref="HopperFlash"/>. Plain bytes, as <see cref="HopperArgs"/>.</summary>
internal struct HopperFlashArgs
{
    /// <summary>Distance of each map from the start of the arguments, for the copy instructions.</summary>
    public const int KeyMap = 0, ValueMap = 128;

    /// <summary>[KvHeads · Capacity, 128] BF16, tiles of 64 columns × 128 positions.</summary>
    public TensorMap Keys;

    /// <summary>As Keys.</summary>
    public TensorMap Values;

    /// <summary>Address of the values.</summary>
    public long ValueAddress;

    /// <summary>Address of [Tokens, QueryHeads, 128] BF16.</summary>
    public long Query;

    /// <summary>As Query.</summary>
    public long Output;

    /// <summary>Address of the position of the first token, int32.</summary>
    public long Position;

    public int Tokens;
    public int QueryHeads;
    public int KvHeads;
    public int GroupSize;
    public int Capacity;

    /// <summary>What scores are multiplied by, times log₂ e.</summary>
    public float Scale;
}

/// <summary>What a block of <see cref="HopperFlash"/> does: the same for all of its threads.</summary>
internal struct HopperFlashBlock
{
    public FlashTokens Tokens;
    public FlashSpan Span;
    public int KvHead;

    /// <summary>Tiles of positions; at least one.</summary>
    public int Tiles;

    /// <summary>The first tile that not all rows see in full.</summary>
    public int FirstEdge;

    public static HopperFlashBlock Of(HopperFlashArgs a)
    {
        HopperFlashBlock block;
        block.Tokens.First = (int)Interop.FloatAsInt(Mem.LoadReadOnlyFloat(a.Position));
        block.Tokens.Tokens = a.Tokens;
        block.Tokens.QueryHeads = a.QueryHeads;
        block.Tokens.GroupSize = a.GroupSize;
        block.Tokens.Capacity = a.Capacity;
        block.KvHead = Grid.IdxX % a.KvHeads;
        // Those with the most tiles first.
        block.Span = FlashSpan.Of(block.Tokens, ((Grid.DimX / a.KvHeads) - 1 - (Grid.IdxX / a.KvHeads)) * HopperFlash.BlockRows, HopperFlash.BlockRows);
        block.Tiles = IntrinsicMath.Max((block.Span.End + HopperFlash.TilePositions - 1) >> HopperFlash.TileShift, 1);
        block.FirstEdge = block.Span.AllSee >> HopperFlash.TileShift;
        return block;
    }
}

/// <summary>
/// <see cref="FlashAttention"/> at the speed of Hopper's tensor cores (sm_90a), heads of 128 columns, after FlashAttention-3.
/// </summary>
/// <remarks>
/// Rows, tiles, masks and the order of blocks are those of <see cref="FlashAttention"/>; a tile has 128 positions. As in <see cref="HopperGemm"/> a block is three warpgroups
/// with a job each: one thread of the first asks the copy engine for keys and values, the other two take 64 rows each. A warpgroup requests the scores of the next
/// tile and the sums of this one together, and turns scores into weights while the tensor cores work on the sums; the two warpgroups take
/// turns in requesting, so that one's products cover the other's exponentials (<see cref="HopperFlashSums"/>). Idle warps of the first warpgroup clean the values that not all
/// rows see before they are multiplied (<see cref="HopperFlashEdges"/>).
/// </remarks>
internal static class HopperFlash
{
    public const int Threads = 3 * Warpgroup.Threads;

    public const int HeadDim = 128, WarpgroupRows = 64, BlockRows = Multipliers * WarpgroupRows;

    /// <summary>Positions of a tile, and log2 of them.</summary>
    public const int TilePositions = 1 << TileShift, TileShift = 7;

    /// <summary>Bytes of 64 columns of a tile, and of 64 rows' queries or outputs.</summary>
    public const int SlabBytes = TilePositions * RowBytes, QuerySlabBytes = WarpgroupRows * RowBytes;

    /// <summary>Bytes of a row that shared memory keeps together.</summary>
    public const int RowBytes = 128;

    private const int Multipliers = 2, Stages = 2, TileBytes = 2 * SlabBytes, ProducerRegisters = 40, MultiplierRegisters = 232;

    private const int Queries = 0, Keys = Multipliers * 2 * QuerySlabBytes, Values = Keys + (Stages * TileBytes), Barriers = Values + (Stages * TileBytes);
    private const int FoundMark = Barriers + (6 * Stages * HopperGemm.BarrierBytes);

    /// <summary>Dynamic shared memory of a block.</summary>
    public const int SharedBytes = FoundMark + 16;

    /// <summary>Where a warpgroup's queries, a stage's keys and its values lie.</summary>
    public static uint QueryPlace(int warpgroup) => (uint)(Queries + (warpgroup * 2 * QuerySlabBytes));

    public static uint KeyPlace(int tile) => (uint)(Keys + ((tile & 1) * TileBytes));

    public static uint ValuePlace(int tile) => (uint)(Values + ((tile & 1) * TileBytes));

    /// <summary>Barriers of the stage of a tile: keys have landed, values have, values to be cleaned have, they are clean, keys have been read, values have.</summary>
    public static uint KeysFull(int tile) => (uint)(Barriers + ((tile & 1) * HopperGemm.BarrierBytes));

    public static uint ValuesFull(int tile) => KeysFull(tile) + (Stages * HopperGemm.BarrierBytes);

    public static uint EdgesFull(int tile) => KeysFull(tile) + (2 * Stages * HopperGemm.BarrierBytes);

    public static uint EdgesClean(int tile) => KeysFull(tile) + (3 * Stages * HopperGemm.BarrierBytes);

    public static uint KeysEmpty(int tile) => KeysFull(tile) + (4 * Stages * HopperGemm.BarrierBytes);

    public static uint ValuesEmpty(int tile) => KeysFull(tile) + (5 * Stages * HopperGemm.BarrierBytes);

    /// <summary>Which phase of its stage's barriers a tile is.</summary>
    public static uint Parity(int tile) => (uint)(tile >> 1) & 1;

    /// <summary>Where it is noted that values which not all rows see are infinite or NaN.</summary>
    public static uint FoundPlace() => FoundMark;

    public static void Run(HopperFlashArgs a)
    {
        Wgmma.Declare();
        WgmmaFlash.Declare();
        uint shared = SharedWindow.Open(ref SharedMemory.GetDynamic<byte>()[0]);
        if (Group.IdxX == 0)
        {
            for (int i = 0; i < Stages; i++)
            {
                Mbarrier.Initialize(shared + KeysFull(i), 1);
                Mbarrier.Initialize(shared + ValuesFull(i), 1);
                Mbarrier.Initialize(shared + EdgesFull(i), 1);
                Mbarrier.Initialize(shared + EdgesClean(i), HopperFlashEdges.Warps);
                Mbarrier.Initialize(shared + KeysEmpty(i), Multipliers * 4);
                Mbarrier.Initialize(shared + ValuesEmpty(i), Multipliers * 4);
            }
            Mbarrier.FenceInitialized();
            SharedWindow.Store(shared + FoundMark, default);
        }
        // No copy starts and nobody waits before the barriers exist.
        Block.Barrier();
        HopperFlashBlock block = HopperFlashBlock.Of(a);
        if (Group.IdxX < Warpgroup.Threads)
        {
            Warpgroup.GiveRegisters(ProducerRegisters);
            if (Group.IdxX == 0)
                Produce(a, block, shared);
            else if (Group.IdxX >= Warpgroup.Threads - (32 * HopperFlashEdges.Warps))
                HopperFlashEdges.Clean(block, shared);
        }
        else
        {
            Warpgroup.TakeRegisters(MultiplierRegisters);
            HopperFlashSums.Consume(a, block, shared);
        }
    }

    // Keys run a tile ahead of values, in the order in which they are multiplied.
    private static void Produce(HopperFlashArgs a, in HopperFlashBlock block, uint shared)
    {
        int head = block.KvHead * a.Capacity;
        LoadKeys(a, head, 0, shared);
        for (int tile = 0; tile < block.Tiles; tile++)
        {
            if (tile + 1 < block.Tiles)
                LoadKeys(a, head, tile + 1, shared);
            // The stage's last values have been multiplied (at once in the ring's first round).
            Mbarrier.Wait(shared + ValuesEmpty(tile), Parity(tile) ^ 1);
            uint landed = shared + (tile < block.FirstEdge ? ValuesFull(tile) : EdgesFull(tile)), to = shared + ValuePlace(tile);
            Mbarrier.ArriveExpecting(landed, TileBytes);
            Tma.Load(a.Values, HopperFlashArgs.ValueMap, to, 0, head + (tile << TileShift), landed);
            Tma.Load(a.Values, HopperFlashArgs.ValueMap, to + SlabBytes, HeadDim / 2, head + (tile << TileShift), landed);
        }
    }

    private static void LoadKeys(HopperFlashArgs a, int head, int tile, uint shared)
    {
        Mbarrier.Wait(shared + KeysEmpty(tile), Parity(tile) ^ 1);
        uint landed = shared + KeysFull(tile), to = shared + KeyPlace(tile);
        Mbarrier.ArriveExpecting(landed, TileBytes);
        Tma.Load(a.Keys, HopperFlashArgs.KeyMap, to, 0, head + (tile << TileShift), landed);
        Tma.Load(a.Keys, HopperFlashArgs.KeyMap, to + SlabBytes, HeadDim / 2, head + (tile << TileShift), landed);
    }
}
