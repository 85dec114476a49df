using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// <see cref="HopperMixedGemm"/> for 17 to 128 rows of x, K spread over teams of a block and over blocks (sm_90a).
/// </summary>
/// <remarks>
/// A block has 128 or 64 rows of W, all of x, or 64 rows of it, and a part of K. Its teams, two of two warpgroups or four of one (<see cref="IHopperTeams"/>), take its steps of 128 columns in turn, so that
/// each of the multiprocessor's schedulers has four warps to decode for the tensor cores where <see cref="HopperMixedGemm"/> has two. A thread of each team starts its copies: a warp more would leave every thread a quarter fewer registers. Sums of teams are added in shared memory, in
/// a fixed order (of four in pairs), and sums of parts in theirs by the last block of a tile to be done, as in <see cref="SplitGemm"/>.
/// </remarks>
internal static class HopperSplitGemm
{
    /// <summary>Warpgroups of a block.</summary>
    public const int Warpgroups = 4;

    public const int Threads = Warpgroups * Warpgroup.Threads;

    public static void Run<TOutput, TTeams, TWidth>(HopperMixedArgs a)
        where TOutput : struct, IMixedOutput
        where TTeams : struct, IHopperTeams
        where TWidth : struct, IMixedWidth
    {
        Wgmma.Declare();
        WgmmaMixed.Declare();
        uint shared = SharedWindow.Open(ref SharedMemory.GetDynamic<byte>()[0]), full = shared + (uint)HopperSplitSizes<TTeams, TWidth>.Barriers;
        if (Group.IdxX == 0)
        {
            // The first copies do not wait for their maps then.
            Tma.Prefetch(a.Weight, HopperMixedArgs.WeightMap);
            Tma.Prefetch(a.Input, HopperMixedArgs.InputMap);
            for (int i = 0; i < TTeams.Count * HopperSplitSizes<TTeams, TWidth>.Stages; i++)
            {
                Mbarrier.Initialize(full + (uint)(i * HopperGemm.BarrierBytes), 1);
                Mbarrier.Initialize(full + (uint)((i * HopperGemm.BarrierBytes) + HopperSplitSizes<TTeams, TWidth>.BarrierBytes), TTeams.Threads / 32);
            }
            Mbarrier.FenceInitialized();
        }
        // No copy starts and nobody waits before the barriers exist.
        Block.Barrier();
        // A number that the compiler knows to be the same in all lanes, as all that follows from it: addresses of operands need no register of each thread.
        int team = (int)WarpOps.Shuffle((uint)(Group.IdxX / TTeams.Threads), 0);
        int first = Grid.IdxY * a.PartSteps, steps = IntrinsicMath.Min(a.Steps - first, a.PartSteps);
        GridDependency.Release();
        Multiply<TTeams, TWidth>(a, shared + (uint)(team * HopperSplitSizes<TTeams, TWidth>.Stages * HopperSplitSizes<TTeams, TWidth>.StageBytes), full + (uint)(team * HopperSplitSizes<TTeams, TWidth>.Stages * HopperGemm.BarrierBytes), team, (first, steps));
        // What is stored now, the launches before may still read or write.
        GridDependency.Wait();
        // All stages have been read: sums take their place.
        Block.Barrier();
        HopperSplitSums.Add<TOutput, TTeams, TWidth>(a, shared);
    }

    // The first stages, by one thread of the team. Copies come in about the order in which they are asked for, so x of the first stages before the weights of the last.
    private static void Start<TTeams, TWidth>(HopperMixedArgs a, uint stages, uint full, int team, (int First, int Count) steps)
        where TTeams : struct, IHopperTeams
        where TWidth : struct, IMixedWidth
    {
        int count = IntrinsicMath.Min(HopperSplitSizes<TTeams, TWidth>.Stages, (steps.Count - team + TTeams.Count - 1) / TTeams.Count), early = IntrinsicMath.Min(count, a.EarlyStages);
        // Weights are no output of the launch before.
        for (int i = 0; i < early; i++)
            Weights<TTeams, TWidth>(a, Stage<TTeams, TWidth>(stages, i), full + (uint)(i * HopperGemm.BarrierBytes), steps.First + team + (i * TTeams.Count));
        GridDependency.Wait();
        for (int i = 0; i < early; i++)
            Inputs<TTeams, TWidth>(a, Stage<TTeams, TWidth>(stages, i), full + (uint)(i * HopperGemm.BarrierBytes), steps.First + team + (i * TTeams.Count));
        for (int i = early; i < count; i++)
        {
            Weights<TTeams, TWidth>(a, Stage<TTeams, TWidth>(stages, i), full + (uint)(i * HopperGemm.BarrierBytes), steps.First + team + (i * TTeams.Count));
            Inputs<TTeams, TWidth>(a, Stage<TTeams, TWidth>(stages, i), full + (uint)(i * HopperGemm.BarrierBytes), steps.First + team + (i * TTeams.Count));
        }
    }

    private static uint Stage<TTeams, TWidth>(uint stages, int number)
        where TTeams : struct, IHopperTeams
        where TWidth : struct, IMixedWidth => stages + (uint)(number * HopperSplitSizes<TTeams, TWidth>.StageBytes);

    private static void Weights<TTeams, TWidth>(HopperMixedArgs a, uint stage, uint arrived, int step)
        where TTeams : struct, IHopperTeams
        where TWidth : struct, IMixedWidth
    {
        Mbarrier.ArriveExpecting(arrived, HopperSplitSizes<TTeams, TWidth>.StageBytes);
        Tma.Load(a.Weight, HopperMixedArgs.WeightMap, stage + (uint)(2 * HopperSplitSizes<TTeams, TWidth>.HalfBytes), step * HopperMixedGemm.StepColumns, Grid.IdxX * TTeams.Columns, arrived);
    }

    // Rows that x does not have are zeros.
    private static void Inputs<TTeams, TWidth>(HopperMixedArgs a, uint stage, uint arrived, int step)
        where TTeams : struct, IHopperTeams
        where TWidth : struct, IMixedWidth
    {
        int k = step * HopperMixedGemm.StepColumns, row = Grid.IdxZ * TWidth.Rows;
        Tma.Load(a.Input, HopperMixedArgs.InputMap, stage, k, row, arrived);
        Tma.Load(a.Input, HopperMixedArgs.InputMap, stage + (uint)HopperSplitSizes<TTeams, TWidth>.HalfBytes, k + (HopperMixedGemm.StepColumns / 2), row, arrived);
    }

    // The sum of one warpgroup's steps, left in the totals of Wgmma. Order of work as in HopperMixedGemm, but codes are requested as soon as those of the quarter before are decoded.
    private static void Multiply<TTeams, TWidth>(HopperMixedArgs a, uint stages, uint full, int team, (int First, int Count) steps)
        where TTeams : struct, IHopperTeams
        where TWidth : struct, IMixedWidth
    {
        // Quarter steps of x are 64 bytes apart; a descriptor counts 16.
        const uint QuarterStep = 4;
        int half = TTeams.Columns > HopperMixedGemm.WarpgroupColumns ? (int)WarpOps.Shuffle((uint)Group.IdxX >> 7, 0) & 1 : 0;
        bool copies = (Group.IdxX & (TTeams.Threads - 1)) == 0;
        Wgmma.Clear();
        if (team >= steps.Count)
            return;
        if (copies)
            Start<TTeams, TWidth>(a, stages, full, team, steps);
        uint lane = WgmmaMixed.LaneAddress(stages + (uint)((2 * HopperSplitSizes<TTeams, TWidth>.HalfBytes) + (half * HopperMixedGemm.WarpgroupColumns * HopperMixedGemm.RowBytes)));
        long scales = Scales<TTeams>(a, half);
        HopperRing ring = default;
        float scale = HopperMixedGemm.Scale(a, scales, steps.First + team);
        Mbarrier.Wait(full, 0);
        WgmmaMixed.Load0(lane);
        WgmmaMixed.DecodeEven();
        WgmmaMixed.Load1(lane);
        for (int step = team; step < steps.Count; step += TTeams.Count)
        {
            uint codes = lane + (uint)(ring.Stage * HopperSplitSizes<TTeams, TWidth>.StageBytes), lower = (stages >> 4) + (uint)(ring.Stage * (HopperSplitSizes<TTeams, TWidth>.StageBytes / 16)), upper = lower + (uint)(HopperSplitSizes<TTeams, TWidth>.HalfBytes / 16);
            Wgmma.Fence();
            TWidth.Even(Wgmma.DescriptorOfWord(lower), 0);
            Wgmma.Commit();
            WgmmaMixed.DecodeOdd();
            WgmmaMixed.Load2(codes);
            Wgmma.Fence();
            TWidth.Odd(Wgmma.DescriptorOfWord(lower + QuarterStep), 1);
            Wgmma.Commit();
            // The stage of the step before is filled again: by now the whole team has read it, or is about to.
            if (HopperSplitSizes<TTeams, TWidth>.FillsAStepLater && copies && step > team && step + ((HopperSplitSizes<TTeams, TWidth>.Stages - 1) * TTeams.Count) < steps.Count)
                Fill<TTeams, TWidth>(a, stages, full, ring.Before(HopperSplitSizes<TTeams, TWidth>.Stages), steps.First + step + ((HopperSplitSizes<TTeams, TWidth>.Stages - 1) * TTeams.Count));
            // The even registers have been read.
            Wgmma.Wait(1);
            WgmmaMixed.DecodeEven();
            WgmmaMixed.Load3(codes);
            Wgmma.Fence();
            TWidth.Even(Wgmma.DescriptorOfWord(upper), 1);
            Wgmma.Commit();
            Wgmma.Wait(1);
            WgmmaMixed.DecodeOdd();
            Wgmma.Fence();
            TWidth.Odd(Wgmma.DescriptorOfWord(upper + QuarterStep), 1);
            Wgmma.Commit();
            uint empty = full + (uint)((ring.Stage * HopperGemm.BarrierBytes) + HopperSplitSizes<TTeams, TWidth>.BarrierBytes);
            HopperRing current = ring;
            // After the last step this stage again: it has landed, and what is decoded is not used.
            bool more = step + TTeams.Count < steps.Count;
            float nextScale = HopperMixedGemm.Scale(a, scales, steps.First + (more ? step + TTeams.Count : step));
            if (more)
                ring.Advance(HopperSplitSizes<TTeams, TWidth>.Stages);
            codes = lane + (uint)(ring.Stage * HopperSplitSizes<TTeams, TWidth>.StageBytes);
            Mbarrier.Wait(full + (uint)(ring.Stage * HopperGemm.BarrierBytes), ring.Parity);
            WgmmaMixed.Load0(codes);
            Wgmma.Wait(1);
            WgmmaMixed.DecodeEven();
            WgmmaMixed.Load1(codes);
            Wgmma.Wait(0);
            // Every warp has read the stage.
            if (Warp.LaneIdx == 0)
                Mbarrier.Arrive(empty);
            // Of two stages this one already, so that its copies have the time of a step.
            if (!HopperSplitSizes<TTeams, TWidth>.FillsAStepLater && copies && step + (HopperSplitSizes<TTeams, TWidth>.Stages * TTeams.Count) < steps.Count)
                Fill<TTeams, TWidth>(a, stages, full, current, steps.First + step + (HopperSplitSizes<TTeams, TWidth>.Stages * TTeams.Count));
            if (TWidth.Rows > 32)
                Wgmma.Promote0(scale, scale);
            else
                Wgmma.PromoteHalf(scale);
            scale = nextScale;
        }
    }

    private static void Fill<TTeams, TWidth>(HopperMixedArgs a, uint stages, uint full, HopperRing ring, int step)
        where TTeams : struct, IHopperTeams
        where TWidth : struct, IMixedWidth
    {
        uint stage = Stage<TTeams, TWidth>(stages, ring.Stage), arrived = full + (uint)(ring.Stage * HopperGemm.BarrierBytes);
        Mbarrier.Wait(arrived + (uint)HopperSplitSizes<TTeams, TWidth>.BarrierBytes, ring.Parity);
        Weights<TTeams, TWidth>(a, stage, arrived, step);
        Inputs<TTeams, TWidth>(a, stage, arrived, step);
    }

    // A warpgroup's multipliers. A tile's columns beyond W are not stored and take the last block's.
    private static long Scales<TTeams>(HopperMixedArgs a, int half)
        where TTeams : struct, IHopperTeams
    {
        int row = IntrinsicMath.Min((Grid.IdxX * TTeams.Columns) + (half * HopperMixedGemm.WarpgroupColumns), a.N - 1) >> a.WeightRowShift;
        return a.WeightScales + ((long)row * a.WeightScaleColumns * sizeof(float));
    }
}
