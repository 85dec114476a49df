using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// What a block of <see cref="HopperExperts"/> does that has waited for others' activations in vain, where not all blocks run at a time: beside other kernels that hold multiprocessors, or on the CPU device, which runs one block after the
/// other. It computes the missing tiles as their blocks would, and posts them.
/// </summary>
internal static class HopperExpertRecovery
{
    // Down's items lie in the first three slots.
    private const int GateSlot = HopperExperts.MostTurns;

    // Of the flags: whether a tile is there, as one thread sees it.
    private const int ThereFlag = 2;

    /// <summary>By the whole block; <paramref name="complete"/> says of a warp whether its sums of down are noted.</summary>
    public static void Run<TTurns>(HopperExpertsArgs a, HopperExpertBlock block, bool complete, float downScales)
        where TTurns : struct, ITileTurns
    {
        int tiles = HopperExperts.Blocks * TTurns.Count;
        HopperExpertInputs x = HopperExpertInputs.LoadState(a, block).Arrange();
        // The first phase of the barrier was that of the block's first tile.
        uint parity = 1;
        for (int tile = 0; tile < tiles; tile++)
        {
            if (Group.IdxX == 0)
                block.Flags[ThereFlag] = IsPosted(a, block, tile) ? 1 : 0;
            Block.Barrier(); // one thread has looked for all
            bool there = block.Flags[ThereFlag] != 0;
            if (!there)
            {
                if (block.Lane == 0)
                    HopperExpertTiles.RequestGateUp(a, block, tile, GateSlot, 0);
                float scales = HopperExpertTiles.LoadScale(a, block, tile, block.Lane & 1);
                Mbarrier.Wait(block.Barrier(0), parity);
                parity ^= 1;
                HopperExpertTiles.MultiplyGateUp(block, GateSlot, 0, x, scales);
            }
            Block.Barrier(); // all warps' sums are there before they are added
            if (!there & block.Warp == 0)
                HopperExpertTiles.Activate(a, block, 0, tile);
            Block.Barrier(); // the flag, slots and notes are free
        }
        if (!complete)
        {
            HopperExpertSums sums = default;
            for (int j = 0; j < TTurns.Count; j++)
            {
                _ = HopperExpertTiles.AwaitInputs(a, block, j, 1);
                Mbarrier.Wait(block.Barrier(HopperExperts.MostTurns + j), 0);
                sums = HopperExpertTiles.MultiplyDown(a, block, j, HopperExpertTiles.DownSlot<TTurns>(j), downScales, sums);
            }
            HopperExpertTiles.Publish(block, HopperExperts.DownSums, sums);
        }
        Block.Barrier(); // all warps' sums are there before they are added
    }

    private static bool IsPosted(HopperExpertsArgs a, HopperExpertBlock block, int tile)
    {
        long words = HopperExpertState.Activated(a, block.Set) + (tile * HopperExperts.TileRows * sizeof(ushort));
        bool posted = true;
        for (int i = 0; i < HopperExperts.TileRows / 2; i++)
            posted &= Mem.LoadRelaxedFrom(words + (i * sizeof(uint))) != 0;
        return posted;
    }
}
