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
    /// <summary>Most rows of x.</summary>
    public const int Rows = 64;

    public const int Threads = Teams * TeamThreads;

    // Stages are a team's own.
    private const int Teams = 2, TeamThreads = 2 * Warpgroup.Threads, Stages = 3;

    // A stage: x's columns 0 to 63 of the step, its columns 64 to 127, the codes.
    private const int HalfBytes = Rows * HopperMixedGemm.RowBytes, CodeBytes = HopperMixedGemm.TileColumns * HopperMixedGemm.RowBytes, StageBytes = (2 * HalfBytes) + CodeBytes;
    private const int Barriers = Teams * Stages * StageBytes;

    /// <summary>Dynamic shared memory of a block.</summary>
    public const int SharedBytes = Barriers + (2 * Teams * Stages * HopperGemm.BarrierBytes);

    public static void Run<TOutput>(HopperMixedArgs a)
        where TOutput : struct, IMixedOutput
    {
        Wgmma.Declare();
        WgmmaMixed.Declare();
        uint shared = SharedWindow.Open(ref SharedMemory.GetDynamic<byte>()[0]);
        uint full = shared + Barriers, empty = full + (Teams * Stages * HopperGemm.BarrierBytes);
        if (Group.IdxX == 0)
        {
            for (int i = 0; i < Teams * Stages; i++)
            {
                Mbarrier.Initialize(full + (uint)(i * HopperGemm.BarrierBytes), 1);
                Mbarrier.Initialize(empty + (uint)(i * HopperGemm.BarrierBytes), TeamThreads / 32);
            }
            Mbarrier.FenceInitialized();
        }
        // No copy starts and nobody waits before the barriers exist.
        Group.Barrier();
        int first = Grid.IdxY * a.PartSteps, steps = IntrinsicMath.Min(a.Steps - first, a.PartSteps), team = Group.IdxX >> 8;
        uint ringBarriers = (uint)(team * Stages * HopperGemm.BarrierBytes);
        GridDependency.Release();
        Multiply(a, shared + (uint)(team * Stages * StageBytes), (full + ringBarriers, empty + ringBarriers), team, (first, steps));
        // What is stored now, the launches before may still read or write.
        GridDependency.Wait();
        // All stages have been read: sums take their place.
        Group.Barrier();
        HopperSplitSums.Add<TOutput>(a, shared);
    }

    // The first stages, by one thread of the team.
    private static void Start(HopperMixedArgs a, uint stages, uint full, int team, (int First, int Count) steps)
    {
        // Weights are no output of the launch before.
        for (int i = 0; i < Stages && team + (i * Teams) < steps.Count; i++)
            Weights(a, stages + (uint)(i * StageBytes), full + (uint)(i * HopperGemm.BarrierBytes), steps.First + team + (i * Teams));
        GridDependency.Wait();
        for (int i = 0; i < Stages && team + (i * Teams) < steps.Count; i++)
            Inputs(a, stages + (uint)(i * StageBytes), full + (uint)(i * HopperGemm.BarrierBytes), steps.First + team + (i * Teams));
    }

    private static void Weights(HopperMixedArgs a, uint stage, uint arrived, int step)
    {
        int copies = (a.M + HopperMixedGemm.CopiedRows - 1) / HopperMixedGemm.CopiedRows;
        Mbarrier.ArriveExpecting(arrived, CodeBytes + (copies * 2 * HopperMixedGemm.CopiedRows * HopperMixedGemm.RowBytes));
        Tma.Load(a.Weight, HopperMixedArgs.WeightMap, stage + (2 * HalfBytes), step * HopperMixedGemm.StepColumns, Grid.IdxX * HopperMixedGemm.TileColumns, arrived);
    }

    private static void Inputs(HopperMixedArgs a, uint stage, uint arrived, int step)
    {
        int k = step * HopperMixedGemm.StepColumns;
        for (int row = 0; row < a.M; row += HopperMixedGemm.CopiedRows)
        {
            uint rows = stage + (uint)(row * HopperMixedGemm.RowBytes);
            Tma.Load(a.Input, HopperMixedArgs.InputMap, rows, k, row, arrived);
            Tma.Load(a.Input, HopperMixedArgs.InputMap, rows + HalfBytes, k + (HopperMixedGemm.StepColumns / 2), row, arrived);
        }
    }

    // The sum of one warpgroup's steps, left in the totals of Wgmma; order of work as in HopperMixedGemm.
    private static void Multiply(HopperMixedArgs a, uint stages, (uint Full, uint Empty) barriers, int team, (int First, int Count) steps)
    {
        // Quarter steps of x are 64 bytes apart; a descriptor counts 16.
        const ulong QuarterStep = 4;
        (int half, bool copies) = ((Group.IdxX >> 7) & 1, (Group.IdxX & (TeamThreads - 1)) == 0);
        Wgmma.Clear();
        if (team >= steps.Count)
            return;
        if (copies)
            Start(a, stages, barriers.Full, team, steps);
        uint lane = WgmmaMixed.LaneAddress(stages + (uint)((2 * HalfBytes) + (half * HopperMixedGemm.WarpgroupColumns * HopperMixedGemm.RowBytes)));
        long scales = Scales(a, half);
        HopperRing ring = default, before = default;
        float scale = Scale(a, scales, steps.First + team);
        LoadFirst(lane, barriers.Full, 0, 0);
        WgmmaMixed.DecodeEven();
        for (int step = team; step < steps.Count; step += Teams)
        {
            uint stage = (uint)(ring.Stage * StageBytes), codes = lane + stage;
            ulong lower = Wgmma.Descriptor(stages + stage), upper = Wgmma.Descriptor(stages + stage + HalfBytes);
            Wgmma.Fence();
            WgmmaMixed.MultiplyEvenN64(lower, 0);
            Wgmma.Commit();
            WgmmaMixed.Load1(codes);
            WgmmaMixed.DecodeOdd();
            Wgmma.Fence();
            WgmmaMixed.MultiplyOddN64(lower + QuarterStep, 1);
            Wgmma.Commit();
            WgmmaMixed.Load2(codes);
            // The even registers have been read.
            Wgmma.Wait(1);
            WgmmaMixed.DecodeEven();
            Wgmma.Fence();
            WgmmaMixed.MultiplyEvenN64(upper, 1);
            Wgmma.Commit();
            WgmmaMixed.Load3(codes);
            // The stage of the step before is filled again: by now the whole team has read it.
            if (copies && step > team && step + ((Stages - 1) * Teams) < steps.Count)
                Fill(a, stages, barriers, before, steps.First + step + ((Stages - 1) * Teams));
            Wgmma.Wait(1);
            WgmmaMixed.DecodeOdd();
            Wgmma.Fence();
            WgmmaMixed.MultiplyOddN64(upper + QuarterStep, 1);
            Wgmma.Commit();
            before = ring;
            ring.Advance(Stages);
            // After the last step this stage again: it has landed, and what is decoded is not used.
            bool more = step + Teams < steps.Count;
            float nextScale = Scale(a, scales, steps.First + (more ? step + Teams : step));
            LoadFirst(lane, barriers.Full, more ? ring.Stage : before.Stage, more ? ring.Parity : before.Parity);
            Wgmma.Wait(1);
            WgmmaMixed.DecodeEven();
            Wgmma.Wait(0);
            // Every warp has read the stage.
            if (Warp.LaneIdx == 0)
                Mbarrier.Arrive(barriers.Empty + (uint)(before.Stage * HopperGemm.BarrierBytes));
            Wgmma.Promote0(scale, scale);
            scale = nextScale;
        }
    }

    private static void Fill(HopperMixedArgs a, uint stages, (uint Full, uint Empty) barriers, HopperRing ring, int step)
    {
        uint stage = stages + (uint)(ring.Stage * StageBytes), barrier = (uint)(ring.Stage * HopperGemm.BarrierBytes);
        Mbarrier.Wait(barriers.Empty + barrier, ring.Parity);
        Weights(a, stage, barriers.Full + barrier, step);
        Inputs(a, stage, barriers.Full + barrier, step);
    }

    // The first quarter of a stage, when it has landed.
    private static void LoadFirst(uint lane, uint full, int stage, uint parity)
    {
        Mbarrier.Wait(full + (uint)(stage * HopperGemm.BarrierBytes), parity);
        WgmmaMixed.Load0(lane + (uint)(stage * StageBytes));
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
