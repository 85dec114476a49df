using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// <see cref="HopperMixedGemm"/> for 17 to 64 rows of x, K spread over teams of a block and over blocks (sm_90a).
/// </summary>
/// <remarks>
/// A block has 128 rows of W, all of x and a part of K. Teams of two warpgroups take its steps of 128 columns in turn, so that each of the multiprocessor's schedulers has four or six
/// warps to decode for the tensor cores where <see cref="HopperMixedGemm"/> has two. A thread of each team starts its copies: a warp more would leave every thread a quarter fewer registers. Sums of teams are added in shared memory, in
/// their order, and sums of parts in theirs by the last block of a tile to be done, as in <see cref="SplitGemm"/>.
/// </remarks>
internal static class HopperSplitGemm
{
    private const int TeamThreads = 2 * Warpgroup.Threads, CodeBytes = HopperMixedGemm.TileColumns * HopperMixedGemm.RowBytes;

    /// <summary>Threads of a block.</summary>
    public static int Threads<TTile>()
        where TTile : struct, IHopperSplitTile => TTile.Teams * TeamThreads;

    /// <summary>Dynamic shared memory of a block.</summary>
    public static int SharedBytes<TTile>()
        where TTile : struct, IHopperSplitTile => Barriers<TTile>() + (2 * BarrierBytes<TTile>());

    // "Full" of all stages, as "empty" behind them.
    private static int BarrierBytes<TTile>()
        where TTile : struct, IHopperSplitTile => TTile.Teams * TTile.Stages * HopperGemm.BarrierBytes;

    // Stages are a team's own. A stage: x's columns 0 to 63 of the step, its columns 64 to 127, the codes.
    private static int HalfBytes<TTile>()
        where TTile : struct, IHopperSplitTile => TTile.Rows * HopperMixedGemm.RowBytes;

    private static int StageBytes<TTile>()
        where TTile : struct, IHopperSplitTile => (2 * HalfBytes<TTile>()) + CodeBytes;

    private static int Barriers<TTile>()
        where TTile : struct, IHopperSplitTile => TTile.Teams * TTile.Stages * StageBytes<TTile>();

    public static void Run<TOutput, TTile, TCodes>(HopperMixedArgs a)
        where TOutput : struct, IMixedOutput
        where TTile : struct, IHopperSplitTile
        where TCodes : struct, ISplitCodes
    {
        Wgmma.Declare();
        WgmmaMixed.Declare();
        uint shared = SharedWindow.Open(ref SharedMemory.GetDynamic<byte>()[0]), full = shared + (uint)Barriers<TTile>();
        if (Group.IdxX == 0)
        {
            for (int i = 0; i < TTile.Teams * TTile.Stages; i++)
            {
                Mbarrier.Initialize(full + (uint)(i * HopperGemm.BarrierBytes), 1);
                Mbarrier.Initialize(full + (uint)((i * HopperGemm.BarrierBytes) + BarrierBytes<TTile>()), TeamThreads / 32);
            }
            Mbarrier.FenceInitialized();
        }
        // No copy starts and nobody waits before the barriers exist.
        Group.Barrier();
        // A number that the compiler knows to be the same in all lanes, as all that follows from it: addresses of operands need no register of each thread.
        int team = (int)WarpOps.Shuffle((uint)Group.IdxX >> 8, 0);
        int first = Grid.IdxY * a.PartSteps, steps = IntrinsicMath.Min(a.Steps - first, a.PartSteps);
        GridDependency.Release();
        Multiply<TTile, TCodes>(a, shared + (uint)(team * TTile.Stages * StageBytes<TTile>()), full + (uint)(team * TTile.Stages * HopperGemm.BarrierBytes), team, (first, steps));
        // What is stored now, the launches before may still read or write.
        GridDependency.Wait();
        // All stages have been read: sums take their place.
        Group.Barrier();
        HopperSplitSums.Add<TOutput, TTile>(a, shared);
    }

    // The first stages, by one thread of the team.
    private static void Start<TTile>(HopperMixedArgs a, uint stages, uint full, int team, (int First, int Count) steps)
        where TTile : struct, IHopperSplitTile
    {
        // Weights are no output of the launch before.
        for (int i = 0; i < TTile.Stages && team + (i * TTile.Teams) < steps.Count; i++)
            Weights<TTile>(a, stages + (uint)(i * StageBytes<TTile>()), full + (uint)(i * HopperGemm.BarrierBytes), steps.First + team + (i * TTile.Teams));
        GridDependency.Wait();
        for (int i = 0; i < TTile.Stages && team + (i * TTile.Teams) < steps.Count; i++)
            Inputs<TTile>(a, stages + (uint)(i * StageBytes<TTile>()), full + (uint)(i * HopperGemm.BarrierBytes), steps.First + team + (i * TTile.Teams));
    }

    private static void Weights<TTile>(HopperMixedArgs a, uint stage, uint arrived, int step)
        where TTile : struct, IHopperSplitTile
    {
        Mbarrier.ArriveExpecting(arrived, StageBytes<TTile>());
        Tma.Load(a.Weight, HopperMixedArgs.WeightMap, stage + (uint)(2 * HalfBytes<TTile>()), step * HopperMixedGemm.StepColumns, Grid.IdxX * HopperMixedGemm.TileColumns, arrived);
    }

    // Rows that x does not have are zeros.
    private static void Inputs<TTile>(HopperMixedArgs a, uint stage, uint arrived, int step)
        where TTile : struct, IHopperSplitTile
    {
        int k = step * HopperMixedGemm.StepColumns;
        Tma.Load(a.Input, HopperMixedArgs.InputMap, stage, k, 0, arrived);
        Tma.Load(a.Input, HopperMixedArgs.InputMap, stage + (uint)HalfBytes<TTile>(), k + (HopperMixedGemm.StepColumns / 2), 0, arrived);
    }

    // The sum of one warpgroup's steps, left in the totals of Wgmma; order of work as in HopperMixedGemm.
    private static void Multiply<TTile, TCodes>(HopperMixedArgs a, uint stages, uint full, int team, (int First, int Count) steps)
        where TTile : struct, IHopperSplitTile
        where TCodes : struct, ISplitCodes
    {
        // Quarter steps of x are 64 bytes apart; a descriptor counts 16.
        const uint QuarterStep = 4;
        int half = (int)WarpOps.Shuffle((uint)Group.IdxX >> 7, 0) & 1;
        bool copies = (Group.IdxX & (TeamThreads - 1)) == 0;
        Wgmma.Clear();
        if (team >= steps.Count)
            return;
        if (copies)
            Start<TTile>(a, stages, full, team, steps);
        uint lane = WgmmaMixed.LaneAddress(stages + (uint)((2 * HalfBytes<TTile>()) + (half * HopperMixedGemm.WarpgroupColumns * HopperMixedGemm.RowBytes)));
        long scales = Scales(a, half);
        HopperRing ring = default;
        float scale = Scale(a, scales, steps.First + team);
        Mbarrier.Wait(full, 0);
        WgmmaMixed.Load0(lane);
        DecodeEven<TCodes>();
        if (TCodes.LoadsEarly)
            WgmmaMixed.Load1(lane);
        for (int step = team; step < steps.Count; step += TTile.Teams)
        {
            uint codes = lane + (uint)(ring.Stage * StageBytes<TTile>()), lower = (stages >> 4) + (uint)(ring.Stage * (StageBytes<TTile>() / 16)), upper = lower + (uint)(HalfBytes<TTile>() / 16);
            Wgmma.Fence();
            TTile.Even(Wgmma.DescriptorOfWord(lower), 0);
            Wgmma.Commit();
            if (!TCodes.LoadsEarly)
                WgmmaMixed.Load1(codes);
            DecodeOdd<TCodes>();
            if (TCodes.LoadsEarly)
                WgmmaMixed.Load2(codes);
            Wgmma.Fence();
            TTile.Odd(Wgmma.DescriptorOfWord(lower + QuarterStep), 1);
            Wgmma.Commit();
            if (!TCodes.LoadsEarly)
                WgmmaMixed.Load2(codes);
            // The even registers have been read.
            Wgmma.Wait(1);
            DecodeEven<TCodes>();
            if (TCodes.LoadsEarly)
                WgmmaMixed.Load3(codes);
            Wgmma.Fence();
            TTile.Even(Wgmma.DescriptorOfWord(upper), 1);
            Wgmma.Commit();
            if (!TCodes.LoadsEarly)
                WgmmaMixed.Load3(codes);
            // The stage of the step before is filled again: by now the whole team has read it.
            if (copies && step > team && step + ((TTile.Stages - 1) * TTile.Teams) < steps.Count)
                Fill<TTile>(a, stages, full, ring.Before(TTile.Stages), steps.First + step + ((TTile.Stages - 1) * TTile.Teams));
            Wgmma.Wait(1);
            DecodeOdd<TCodes>();
            Wgmma.Fence();
            TTile.Odd(Wgmma.DescriptorOfWord(upper + QuarterStep), 1);
            Wgmma.Commit();
            uint empty = full + (uint)((ring.Stage * HopperGemm.BarrierBytes) + BarrierBytes<TTile>());
            // After the last step this stage again: it has landed, and what is decoded is not used.
            bool more = step + TTile.Teams < steps.Count;
            float nextScale = Scale(a, scales, steps.First + (more ? step + TTile.Teams : step));
            if (more)
                ring.Advance(TTile.Stages);
            codes = lane + (uint)(ring.Stage * StageBytes<TTile>());
            Mbarrier.Wait(full + (uint)(ring.Stage * HopperGemm.BarrierBytes), ring.Parity);
            WgmmaMixed.Load0(codes);
            Wgmma.Wait(1);
            DecodeEven<TCodes>();
            if (TCodes.LoadsEarly)
                WgmmaMixed.Load1(codes);
            Wgmma.Wait(0);
            // Every warp has read the stage.
            if (Warp.LaneIdx == 0)
                Mbarrier.Arrive(empty);
            if (TTile.Rows > 32)
                Wgmma.Promote0(scale, scale);
            else
                Wgmma.PromoteHalf(scale);
            scale = nextScale;
        }
    }

    private static void DecodeEven<TCodes>()
        where TCodes : struct, ISplitCodes
    {
        if (TCodes.Multiplies)
            WgmmaMixed.DecodeEvenByMultiplying();
        else
            WgmmaMixed.DecodeEven();
    }

    private static void DecodeOdd<TCodes>()
        where TCodes : struct, ISplitCodes
    {
        if (TCodes.Multiplies)
            WgmmaMixed.DecodeOddByMultiplying();
        else
            WgmmaMixed.DecodeOdd();
    }

    private static void Fill<TTile>(HopperMixedArgs a, uint stages, uint full, HopperRing ring, int step)
        where TTile : struct, IHopperSplitTile
    {
        uint stage = stages + (uint)(ring.Stage * StageBytes<TTile>()), arrived = full + (uint)(ring.Stage * HopperGemm.BarrierBytes);
        Mbarrier.Wait(arrived + (uint)BarrierBytes<TTile>(), ring.Parity);
        Weights<TTile>(a, stage, arrived, step);
        Inputs<TTile>(a, stage, arrived, step);
    }

    // A warpgroup's multipliers. A tile's columns beyond W are not stored and take the last block's.
    private static long Scales(HopperMixedArgs a, int half)
    {
        int row = IntrinsicMath.Min((Grid.IdxX * HopperMixedGemm.TileColumns) + (half * HopperMixedGemm.WarpgroupColumns), a.N - 1) >> a.WeightRowShift;
        return a.WeightScales + ((long)row * a.WeightScaleColumns * sizeof(float));
    }

    private static float Scale(HopperMixedArgs a, long scales, int step) =>
        Mem.LoadReadOnlyFloat(scales + (((long)(step * HopperMixedGemm.StepColumns) >> a.WeightColumnShift) * sizeof(float)));
}
