using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// <see cref="HopperMixedGemm"/> for 17 to 64 rows of x, K spread over teams of a block and over blocks (sm_90a).
/// </summary>
/// <remarks>
/// A block has 128 rows of W, all of x and a part of K. Two teams of two warpgroups take its steps of 128 columns in turn, so that each of the multiprocessor's schedulers has four
/// warps to decode for the tensor cores where <see cref="HopperMixedGemm"/> has two; one more warp keeps the copy engine busy. Sums of teams are added in shared memory, in
/// their order, and sums of parts in theirs by the last block of a tile to be done, as in <see cref="SplitGemm"/>.
/// </remarks>
internal static class HopperSplitGemm
{
    /// <summary>Most rows of x.</summary>
    public const int Rows = 64;

    public const int Multipliers = 4 * Warpgroup.Threads, Threads = Multipliers + 32;

    private const int Teams = 2, TeamWarps = 8, Stages = 6;

    // A stage: x's columns 0 to 63 of the step, its columns 64 to 127, the codes.
    private const int HalfBytes = Rows * HopperMixedGemm.RowBytes, CodeBytes = HopperMixedGemm.TileColumns * HopperMixedGemm.RowBytes, StageBytes = (2 * HalfBytes) + CodeBytes;
    private const int Barriers = Stages * StageBytes;

    /// <summary>Dynamic shared memory of a block.</summary>
    public const int SharedBytes = Barriers + (2 * Stages * HopperGemm.BarrierBytes);

    public static void Run<TOutput>(HopperMixedArgs a)
        where TOutput : struct, IMixedOutput
    {
        Wgmma.Declare();
        WgmmaMixed.Declare();
        uint shared = SharedWindow.Open(ref SharedMemory.GetDynamic<byte>()[0]);
        uint full = shared + Barriers, empty = full + (Stages * HopperGemm.BarrierBytes);
        if (Group.IdxX == 0)
        {
            for (int i = 0; i < Stages; i++)
            {
                Mbarrier.Initialize(full + (uint)(i * HopperGemm.BarrierBytes), 1);
                Mbarrier.Initialize(empty + (uint)(i * HopperGemm.BarrierBytes), TeamWarps);
            }
            Mbarrier.FenceInitialized();
        }
        // No copy starts and nobody waits before the barriers exist.
        Group.Barrier();
        int first = Grid.IdxY * a.PartSteps, steps = IntrinsicMath.Min(a.Steps - first, a.PartSteps);
        GridDependency.Release();
        if (Group.IdxX < Multipliers)
            Consume(a, shared, (full, empty), first, steps);
        else if (Group.IdxX == Multipliers)
            Produce(a, shared, (full, empty), first, steps);
        // What is stored now, the launches before may still read or write.
        GridDependency.Wait();
        // All stages have been read: sums take their place.
        Group.Barrier();
        HopperSplitSums.Add<TOutput>(a, shared);
    }

    private static void Produce(HopperMixedArgs a, uint shared, (uint Full, uint Empty) barriers, int first, int steps)
    {
        int copies = (a.M + HopperMixedGemm.CopiedRows - 1) / HopperMixedGemm.CopiedRows, bytes = CodeBytes + (copies * 2 * HopperMixedGemm.CopiedRows * HopperMixedGemm.RowBytes);
        int ahead = IntrinsicMath.Min(steps, Stages);
        // Weights are no output of the launch before.
        for (int step = 0; step < ahead; step++)
            Weights(a, shared + (uint)(step * StageBytes), barriers.Full + (uint)(step * HopperGemm.BarrierBytes), first + step, bytes);
        GridDependency.Wait();
        for (int step = 0; step < ahead; step++)
            Inputs(a, shared + (uint)(step * StageBytes), barriers.Full + (uint)(step * HopperGemm.BarrierBytes), first + step, copies);
        HopperRing ring = default;
        for (int step = ahead; step < steps; step++)
        {
            uint stage = shared + (uint)(ring.Stage * StageBytes), arrived = barriers.Full + (uint)(ring.Stage * HopperGemm.BarrierBytes);
            // The stage's last products are done.
            Mbarrier.Wait(barriers.Empty + (uint)(ring.Stage * HopperGemm.BarrierBytes), ring.Parity);
            Weights(a, stage, arrived, first + step, bytes);
            Inputs(a, stage, arrived, first + step, copies);
            ring.Advance(Stages);
        }
    }

    private static void Weights(HopperMixedArgs a, uint stage, uint arrived, int step, int bytes)
    {
        Mbarrier.ArriveExpecting(arrived, bytes);
        Tma.Load(a.Weight, HopperMixedArgs.WeightMap, stage + (2 * HalfBytes), step * HopperMixedGemm.StepColumns, Grid.IdxX * HopperMixedGemm.TileColumns, arrived);
    }

    private static void Inputs(HopperMixedArgs a, uint stage, uint arrived, int step, int copies)
    {
        int k = step * HopperMixedGemm.StepColumns;
        for (int i = 0; i < copies; i++)
        {
            uint rows = stage + (uint)(i * HopperMixedGemm.CopiedRows * HopperMixedGemm.RowBytes);
            Tma.Load(a.Input, HopperMixedArgs.InputMap, rows, k, i * HopperMixedGemm.CopiedRows, arrived);
            Tma.Load(a.Input, HopperMixedArgs.InputMap, rows + HalfBytes, k + (HopperMixedGemm.StepColumns / 2), i * HopperMixedGemm.CopiedRows, arrived);
        }
    }

    // The sum of one warpgroup's steps, left in the totals of Wgmma; order of work as in HopperMixedGemm.
    private static void Consume(HopperMixedArgs a, uint shared, (uint Full, uint Empty) barriers, int first, int steps)
    {
        // Quarter steps of x are 64 bytes apart; a descriptor counts 16.
        const ulong QuarterStep = 4;
        int warpgroup = Group.IdxX >> 7, team = warpgroup >> 1, half = warpgroup & 1;
        Wgmma.Clear();
        if (team >= steps)
            return;
        uint lane = WgmmaMixed.LaneAddress(shared + (uint)((2 * HalfBytes) + (half * HopperMixedGemm.WarpgroupColumns * HopperMixedGemm.RowBytes)));
        // A tile's columns beyond W are not stored and take the last block's scales.
        int row = IntrinsicMath.Min((Grid.IdxX * HopperMixedGemm.TileColumns) + (half * HopperMixedGemm.WarpgroupColumns), a.N - 1) >> a.WeightRowShift;
        long scales = a.WeightScales + ((long)row * a.WeightScaleColumns * sizeof(float));
        HopperRing ring = default;
        ring.Stage = team;
        float scale = Scale(a, scales, first + team);
        Mbarrier.Wait(barriers.Full + (uint)(ring.Stage * HopperGemm.BarrierBytes), ring.Parity);
        WgmmaMixed.Load0(lane + (uint)(ring.Stage * StageBytes));
        WgmmaMixed.DecodeEven();
        for (int step = team; step < steps; step += Teams)
        {
            int current = ring.Stage;
            uint stage = (uint)(current * StageBytes), codes = lane + stage;
            ulong lower = Wgmma.Descriptor(shared + stage), upper = Wgmma.Descriptor(shared + stage + HalfBytes);
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
            Wgmma.Wait(1);
            WgmmaMixed.DecodeOdd();
            Wgmma.Fence();
            WgmmaMixed.MultiplyOddN64(upper + QuarterStep, 1);
            Wgmma.Commit();
            // After the last step this stage again: it has landed, and what is decoded is not used.
            bool more = step + Teams < steps;
            uint parity = ring.Parity;
            ring.Advance(Stages);
            ring.Advance(Stages);
            int next = more ? ring.Stage : current;
            parity = more ? ring.Parity : parity;
            float nextScale = Scale(a, scales, first + (more ? step + Teams : step));
            Mbarrier.Wait(barriers.Full + (uint)(next * HopperGemm.BarrierBytes), parity);
            WgmmaMixed.Load0(lane + (uint)(next * StageBytes));
            Wgmma.Wait(1);
            WgmmaMixed.DecodeEven();
            Wgmma.Wait(0);
            // Every warp has read the stage.
            if (Warp.LaneIdx == 0)
                Mbarrier.Arrive(barriers.Empty + (uint)(current * HopperGemm.BarrierBytes));
            Wgmma.Promote0(scale, scale);
            scale = nextScale;
        }
    }

    private static float Scale(HopperMixedArgs a, long scales, int step) =>
        Mem.LoadReadOnlyFloat(scales + (((long)(step * HopperMixedGemm.StepColumns) >> a.WeightColumnShift) * sizeof(float)));
}
