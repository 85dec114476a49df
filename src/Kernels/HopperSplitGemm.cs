using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// <see cref="HopperMixedGemm"/> for 17 to 64 rows of x, K spread over teams of a block and over blocks (sm_90a).
/// </summary>
/// <remarks>
/// A block has 128 rows of W, all of x and a part of K. Two teams of two warpgroups take its steps of 128 columns in turn, so that each of the multiprocessor's schedulers has four
/// warps to decode for the tensor cores where <see cref="HopperMixedGemm"/> has two. A thread of each team starts its copies: a warp more would leave every thread a quarter fewer registers. Sums of teams are added in shared memory, in
/// their order, and sums of parts in theirs by the last block of a tile to be done, as in <see cref="SplitGemm"/>.
/// </remarks>
internal static class HopperSplitGemm
{
    public const int Threads = Teams * TeamThreads;

    // Stages are a team's own.
    private const int Teams = 2, TeamThreads = 2 * Warpgroup.Threads;
    private const int CodeBytes = HopperMixedGemm.TileColumns * HopperMixedGemm.RowBytes;

    /// <summary>Dynamic shared memory of a block.</summary>
    public static int SharedBytes<TWidth>()
        where TWidth : struct, IMixedWidth => Barriers<TWidth>() + (2 * BarrierBytes<TWidth>());

    // "Full" of all stages, as "empty" behind them.
    private static int BarrierBytes<TWidth>()
        where TWidth : struct, IMixedWidth => Teams * Stages<TWidth>() * HopperGemm.BarrierBytes;

    // As many as fit.
    private static int Stages<TWidth>()
        where TWidth : struct, IMixedWidth => TWidth.Rows > 32 ? 3 : 4;

    // A stage: x's columns 0 to 63 of the step, its columns 64 to 127, the codes.
    private static int HalfBytes<TWidth>()
        where TWidth : struct, IMixedWidth => TWidth.Rows * HopperMixedGemm.RowBytes;

    private static int StageBytes<TWidth>()
        where TWidth : struct, IMixedWidth => (2 * HalfBytes<TWidth>()) + CodeBytes;

    private static int Barriers<TWidth>()
        where TWidth : struct, IMixedWidth => Teams * Stages<TWidth>() * StageBytes<TWidth>();

    public static void Run<TOutput, TWidth>(HopperMixedArgs a)
        where TOutput : struct, IMixedOutput
        where TWidth : struct, IMixedWidth
    {
        Wgmma.Declare();
        WgmmaMixed.Declare();
        uint shared = SharedWindow.Open(ref SharedMemory.GetDynamic<byte>()[0]), full = shared + (uint)Barriers<TWidth>();
        if (Group.IdxX == 0)
        {
            for (int i = 0; i < Teams * Stages<TWidth>(); i++)
            {
                Mbarrier.Initialize(full + (uint)(i * HopperGemm.BarrierBytes), 1);
                Mbarrier.Initialize(full + (uint)((i * HopperGemm.BarrierBytes) + BarrierBytes<TWidth>()), TeamThreads / 32);
            }
            Mbarrier.FenceInitialized();
        }
        // No copy starts and nobody waits before the barriers exist.
        Block.Barrier();
        // A number that the compiler knows to be the same in all lanes, as all that follows from it: addresses of operands need no register of each thread.
        int team = (int)WarpOps.Shuffle((uint)Group.IdxX >> 8, 0);
        int first = Grid.IdxY * a.PartSteps, steps = IntrinsicMath.Min(a.Steps - first, a.PartSteps);
        GridDependency.Release();
        Multiply<TWidth>(a, shared + (uint)(team * Stages<TWidth>() * StageBytes<TWidth>()), full + (uint)(team * Stages<TWidth>() * HopperGemm.BarrierBytes), team, (first, steps));
        // What is stored now, the launches before may still read or write.
        GridDependency.Wait();
        // All stages have been read: sums take their place.
        Block.Barrier();
        HopperSplitSums.Add<TOutput, TWidth>(a, shared);
    }

    // The first stages, by one thread of the team.
    private static void Start<TWidth>(HopperMixedArgs a, uint stages, uint full, int team, (int First, int Count) steps)
        where TWidth : struct, IMixedWidth
    {
        // Weights are no output of the launch before.
        for (int i = 0; i < Stages<TWidth>() && team + (i * Teams) < steps.Count; i++)
            Weights<TWidth>(a, stages + (uint)(i * StageBytes<TWidth>()), full + (uint)(i * HopperGemm.BarrierBytes), steps.First + team + (i * Teams));
        GridDependency.Wait();
        for (int i = 0; i < Stages<TWidth>() && team + (i * Teams) < steps.Count; i++)
            Inputs<TWidth>(a, stages + (uint)(i * StageBytes<TWidth>()), full + (uint)(i * HopperGemm.BarrierBytes), steps.First + team + (i * Teams));
    }

    private static void Weights<TWidth>(HopperMixedArgs a, uint stage, uint arrived, int step)
        where TWidth : struct, IMixedWidth
    {
        Mbarrier.ArriveExpecting(arrived, StageBytes<TWidth>());
        Tma.Load(a.Weight, HopperMixedArgs.WeightMap, stage + (uint)(2 * HalfBytes<TWidth>()), step * HopperMixedGemm.StepColumns, Grid.IdxX * HopperMixedGemm.TileColumns, arrived);
    }

    // Rows that x does not have are zeros.
    private static void Inputs<TWidth>(HopperMixedArgs a, uint stage, uint arrived, int step)
        where TWidth : struct, IMixedWidth
    {
        int k = step * HopperMixedGemm.StepColumns;
        Tma.Load(a.Input, HopperMixedArgs.InputMap, stage, k, 0, arrived);
        Tma.Load(a.Input, HopperMixedArgs.InputMap, stage + (uint)HalfBytes<TWidth>(), k + (HopperMixedGemm.StepColumns / 2), 0, arrived);
    }

    // The sum of one warpgroup's steps, left in the totals of Wgmma. Order of work as in HopperMixedGemm, but codes are requested when those of the quarter before are decoded.
    private static void Multiply<TWidth>(HopperMixedArgs a, uint stages, uint full, int team, (int First, int Count) steps)
        where TWidth : struct, IMixedWidth
    {
        // Quarter steps of x are 64 bytes apart; a descriptor counts 16.
        const uint QuarterStep = 4;
        int half = (int)WarpOps.Shuffle((uint)Group.IdxX >> 7, 0) & 1;
        bool copies = (Group.IdxX & (TeamThreads - 1)) == 0;
        Wgmma.Clear();
        if (team >= steps.Count)
            return;
        if (copies)
            Start<TWidth>(a, stages, full, team, steps);
        uint lane = WgmmaMixed.LaneAddress(stages + (uint)((2 * HalfBytes<TWidth>()) + (half * HopperMixedGemm.WarpgroupColumns * HopperMixedGemm.RowBytes)));
        long scales = Scales(a, half);
        HopperRing ring = default;
        float scale = Scale(a, scales, steps.First + team);
        Mbarrier.Wait(full, 0);
        WgmmaMixed.Load0(lane);
        WgmmaMixed.DecodeEvenByMultiplying();
        WgmmaMixed.Load1(lane);
        for (int step = team; step < steps.Count; step += Teams)
        {
            uint codes = lane + (uint)(ring.Stage * StageBytes<TWidth>()), lower = (stages >> 4) + (uint)(ring.Stage * (StageBytes<TWidth>() / 16)), upper = lower + (uint)(HalfBytes<TWidth>() / 16);
            Wgmma.Fence();
            TWidth.Even(Wgmma.DescriptorOfWord(lower), 0);
            Wgmma.Commit();
            WgmmaMixed.DecodeOddByMultiplying();
            WgmmaMixed.Load2(codes);
            Wgmma.Fence();
            TWidth.Odd(Wgmma.DescriptorOfWord(lower + QuarterStep), 1);
            Wgmma.Commit();
            // The even registers have been read.
            Wgmma.Wait(1);
            WgmmaMixed.DecodeEvenByMultiplying();
            WgmmaMixed.Load3(codes);
            Wgmma.Fence();
            TWidth.Even(Wgmma.DescriptorOfWord(upper), 1);
            Wgmma.Commit();
            // The stage of the step before is filled again: by now the whole team has read it.
            if (copies && step > team && step + ((Stages<TWidth>() - 1) * Teams) < steps.Count)
                Fill<TWidth>(a, stages, full, ring.Before(Stages<TWidth>()), steps.First + step + ((Stages<TWidth>() - 1) * Teams));
            Wgmma.Wait(1);
            WgmmaMixed.DecodeOddByMultiplying();
            Wgmma.Fence();
            TWidth.Odd(Wgmma.DescriptorOfWord(upper + QuarterStep), 1);
            Wgmma.Commit();
            uint empty = full + (uint)((ring.Stage * HopperGemm.BarrierBytes) + BarrierBytes<TWidth>());
            // After the last step this stage again: it has landed, and what is decoded is not used.
            bool more = step + Teams < steps.Count;
            float nextScale = Scale(a, scales, steps.First + (more ? step + Teams : step));
            if (more)
                ring.Advance(Stages<TWidth>());
            codes = lane + (uint)(ring.Stage * StageBytes<TWidth>());
            Mbarrier.Wait(full + (uint)(ring.Stage * HopperGemm.BarrierBytes), ring.Parity);
            WgmmaMixed.Load0(codes);
            Wgmma.Wait(1);
            WgmmaMixed.DecodeEvenByMultiplying();
            WgmmaMixed.Load1(codes);
            Wgmma.Wait(0);
            // Every warp has read the stage.
            if (Warp.LaneIdx == 0)
                Mbarrier.Arrive(empty);
            if (TWidth.Rows > 32)
                Wgmma.Promote0(scale, scale);
            else
                Wgmma.PromoteHalf(scale);
            scale = nextScale;
        }
    }

    private static void Fill<TWidth>(HopperMixedArgs a, uint stages, uint full, HopperRing ring, int step)
        where TWidth : struct, IMixedWidth
    {
        uint stage = stages + (uint)(ring.Stage * StageBytes<TWidth>()), arrived = full + (uint)(ring.Stage * HopperGemm.BarrierBytes);
        Mbarrier.Wait(arrived + (uint)BarrierBytes<TWidth>(), ring.Parity);
        Weights<TWidth>(a, stage, arrived, step);
        Inputs<TWidth>(a, stage, arrived, step);
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
