using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// A Mixture-of-Experts layer of one token whose state is normed, in one launch on Hopper (sm_90): router, choice, gate and up, silu(gate) · up, down, and r += Σ_j p[j] · Wdown(expert of j) · a[j]. FP8
/// weights with block scales (W8A16), a hidden size of 2,048, at most 128 experts.
/// </summary>
/// <remarks>
/// 128 blocks of 16 warps, one a multiprocessor. A block has one expert's logit, <see cref="HopperExpertsArgs.Turns"/> tiles of 16 gate rows and the 16 up rows beside them, then 16 columns of the residual stream. A warp has 128 columns
/// of K of each tile, then as many items of down: 16 rows and 128 columns of one expert. It asks the copy engine for its own weights, the next as soon as the last are there, so that the memory never waits for products, and
/// down's are on their way while activations are. Logits and activations go from block to block through words that say themselves whether they are there (<see cref="HopperExpertState"/>). A block that has
/// waited for long computes what is missing itself, with the same bits: no block needs another one to run. All orders of addition are fixed.
/// </remarks>
internal static class HopperExperts
{
    /// <summary>The only hidden size: 16 warps with a block of 128 columns each.</summary>
    public const int Hidden = Warps * BlockColumns;

    public const int Blocks = Hidden / TileRows, Threads = 32 * Warps, MostTopK = 16, MostTurns = 3;

    internal const int Warps = 16, BlockColumns = 128, TileRows = 16, BarrierBytes = 8;

    // A slot is 16 rows of 128 columns. Of a warp: gate and up of three tiles, later down's items in the first of them, and its notes.
    internal const int SlotBytes = TileRows * BlockColumns, NotesSlot = 2 * MostTurns, WarpBytes = (NotesSlot + 1) * SlotBytes;

    // Notes: sums of the tiles' 32 rows, of down's 16, and the inputs of down's items.
    internal const int DownSums = 512, DownInputs = 1024, InputBytes = 2 * BlockColumns;

    private const int BarriersOfWarp = 2 * MostTurns, Barriers = Warps * WarpBytes, Parts = Barriers + (Warps * BarriersOfWarp * BarrierBytes);
    private const int Chosen = Parts + (Warps * sizeof(float)), Weights = Chosen + (2 * MostTopK * sizeof(int)), Logits = Weights + (MostTopK * sizeof(float)), Flags = Logits + (HopperExpertState.MostExperts * sizeof(float));

    /// <summary>Dynamic shared memory of a block.</summary>
    public const int SharedBytes = Flags + 16;

    public static void Run<TTurns>(HopperExpertsArgs a)
        where TTurns : struct, ITileTurns
    {
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        HopperExpertBlock block = Place(shared, SharedWindow.Open(ref shared[0]));
        Prepare(a, block);
        GridDependency.Release();
        U2 row = HopperExpertRouting.LoadRow(a);
        GridDependency.Wait();
        // Asked for before all else, and added to only later: 128 blocks want this word.
        uint count = Mem.LoadRelaxedFromIf(a.State, Group.IdxX == 0 ? 1u : 0u);
        HopperExpertInputs x = HopperExpertInputs.LoadState(a, block);
        uint old = Mem.LoadRelaxedFrom(a.Residual + (((Grid.IdxX * TileRows) + (block.Lane & (TileRows - 1))) * sizeof(float)));
        float part = HopperExpertRouting.Dot(a, row, Group.IdxX);
        if (block.Lane == 0)
            block.Parts[block.Warp] = part;
        if (Group.IdxX == 0)
        {
            block.Flags[0] = HopperExpertState.Set(count);
            block.Flags[1] = 0;
        }
        Block.Barrier(); // parts of the logit and the set are there before they are used
        block.Set = block.Flags[0];
        RouterRanks ranks = default;
        int own = HopperExpertTiles.TileRank(a, (Grid.IdxX * TTurns.Count) + TTurns.Count - 1);
        if (block.Warp == 0)
            ranks = HopperExpertRouting.Choose(a, block, own);
        Block.Barrier(); // the experts of the block's own tiles are known
        if (block.Lane == 0)
            HopperExpertTiles.RequestGateUp(a, block, Grid.IdxX * TTurns.Count, 0, 0);
        float scales = HopperExpertTiles.LoadGateUpScales(a, block);
        if (block.Warp == 0)
            HopperExpertRouting.ChooseRest(a, block, ranks, own + 1);
        Block.Barrier(); // all chosen experts are known, long before the first tile is there
        float downScales = HopperExpertTiles.LoadDownScales(a, block);
        HopperExpertState.Leave(a, block.Set ^ 1);
        GateUp<TTurns>(a, block, x.Arrange(), scales);
        Block.Barrier(); // all warps' sums are there before they are added
        if (block.Warp < TTurns.Count)
            HopperExpertTiles.Activate(a, block, block.Warp, (Grid.IdxX * a.Turns) + block.Warp);
        bool complete = Down<TTurns>(a, block, downScales);
        if (!complete & block.Lane == 0)
            block.Flags[1] = 1;
        Block.Barrier(); // all warps' sums are there before they are added
        if (block.Flags[1] != 0)
            HopperExpertRecovery.Run<TTurns>(a, block, complete, downScales);
        if (block.Warp == 0)
            HopperExpertTiles.Store(a, block, Interop.IntAsFloat(old));
    }

    private static void Prepare(HopperExpertsArgs a, HopperExpertBlock block)
    {
        if (block.Lane == 0)
        {
            for (int i = 0; i < BarriersOfWarp; i++)
                Mbarrier.Initialize(block.Barrier(i), 1);
            if (block.Warp == 0)
            {
                Tma.Prefetch(a.GateUp, HopperExpertsArgs.GateUpMap);
                Tma.Prefetch(a.Down, HopperExpertsArgs.DownMap);
            }
            Mbarrier.FenceInitialized();
        }
    }

    // The block's tiles; the last one's copies are followed by down's.
    private static void GateUp<TTurns>(HopperExpertsArgs a, HopperExpertBlock block, HopperExpertInputs x, float scales)
        where TTurns : struct, ITileTurns
    {
        for (int i = 0; i < TTurns.Count; i++)
        {
            Mbarrier.Wait(block.Barrier(i), 0);
            if (block.Lane == 0)
            {
                if (i + 1 < TTurns.Count)
                    HopperExpertTiles.RequestGateUp(a, block, (Grid.IdxX * a.Turns) + i + 1, 2 * (i + 1), i + 1);
                else
                    for (int j = 0; j < TTurns.Count; j++)
                        HopperExpertTiles.RequestDown(a, block, j, HopperExpertTiles.DownSlot<TTurns>(j));
            }
            if (i == (TTurns.Count > 1 ? 1 : 0) & block.Warp == 0)
                HopperExpertRouting.Finish(a, block);
            HopperExpertTiles.MultiplyGateUp(block, 2 * i, i, x, scales);
            // The next copies into these slots find everybody done with them.
            WarpOps.Barrier();
        }
    }

    // The warp's items of down. False where an activation does not come.
    private static bool Down<TTurns>(HopperExpertsArgs a, HopperExpertBlock block, float scales)
        where TTurns : struct, ITileTurns
    {
        HopperExpertSums sums = default;
        for (int j = 0; j < TTurns.Count; j++)
        {
            if (!HopperExpertTiles.AwaitInputs(a, block, j, a.Patience))
                return false;
            Mbarrier.Wait(block.Barrier(MostTurns + j), 0);
            sums = HopperExpertTiles.MultiplyDown(a, block, j, HopperExpertTiles.DownSlot<TTurns>(j), scales, sums);
        }
        HopperExpertTiles.Publish(block, DownSums, sums);
        return true;
    }

    // What a block has in shared memory.
    private static HopperExpertBlock Place(ArrayView<byte> shared, uint window)
    {
        HopperExpertBlock block = default;
        block.Warp = Group.IdxX >> 5;
        block.Lane = Group.IdxX & 31;
        block.Own = window + (uint)(block.Warp * WarpBytes);
        block.Barriers = window + (uint)(Barriers + (block.Warp * BarriersOfWarp * BarrierBytes));
        block.Notes = shared.SubView((block.Warp * WarpBytes) + (NotesSlot * SlotBytes), SlotBytes).Cast<float>();
        block.Slots = shared.SubView(0, Warps * WarpBytes).Cast<float>();
        block.Parts = shared.SubView(Parts, Warps * sizeof(float)).Cast<float>();
        block.Experts = shared.SubView(Chosen, MostTopK * sizeof(int)).Cast<int>();
        block.Sums = shared.SubView(Chosen + (MostTopK * sizeof(int)), MostTopK * sizeof(float)).Cast<float>();
        block.Weights = shared.SubView(Weights, MostTopK * sizeof(float)).Cast<float>();
        block.Logits = shared.SubView(Logits, HopperExpertState.MostExperts * sizeof(float)).Cast<float>();
        block.Flags = shared.SubView(Flags, 16).Cast<int>();
        return block;
    }
}
