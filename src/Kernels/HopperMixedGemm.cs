using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// BF16 activations times FP8 weights with block scales (W8A16) on Hopper's tensor cores (sm_90a), for one matrix or one an expert:
/// y[m, n] = Σ_k x[m, k] · scale(n, k) · W[n, k].
/// </summary>
/// <remarks>
/// Warpgroups, ring and barriers are those of <see cref="HopperGemm"/>; what differs is how the operands meet. The tensor cores take one operand from
/// registers: that is W, 64 of its rows a warpgroup, read from shared memory as codes and decoded to BF16 (exactly) while they work on the quarter step before. So decoded
/// weights are never written anywhere, and they are spread over up to 192 rows of x. The result is yᵀ, which is turned when it is stored. Rows of W are
/// the same 64 of a scale block for a whole warpgroup, so a step of 128 columns has one scale: its sum is added to float32 totals with it.
/// The order of summation along K is ascending and does not depend on the other rows, also where two blocks share a tile (<see cref="HopperMixedTurns"/>). Edges are zeros that the copy engine fills in.
/// </remarks>
internal static class HopperMixedGemm
{
    public const int Threads = 3 * Warpgroup.Threads;

    /// <summary>Columns of y of a warpgroup and of a block.</summary>
    public const int WarpgroupColumns = 64, TileColumns = 2 * WarpgroupColumns;

    /// <summary>Most rows of y of a tile, and how many the copy engine moves at once.</summary>
    public const int MostRows = 192, CopiedRows = 32;

    /// <summary>Columns of K of a step, and bytes of a row that shared memory keeps together.</summary>
    public const int StepColumns = 128, RowBytes = 128;

    private const int Stages = 3, Multipliers = 2, ProducerRegisters = 24, MultiplierRegisters = 240;

    // A stage: x's columns 0 to 63 of the step, its columns 64 to 127, the codes.
    private const int HalfBytes = MostRows * RowBytes, CodeBytes = TileColumns * RowBytes, StageBytes = (2 * HalfBytes) + CodeBytes;
    private const int Slabs = Stages * StageBytes, Barriers = Slabs + (Multipliers * HopperMixedStore.Bytes);

    /// <summary>Dynamic shared memory of a block.</summary>
    public const int SharedBytes = Barriers + (2 * Stages * HopperGemm.BarrierBytes);

    public static void Run<TOutput, TRows>(HopperMixedArgs a)
        where TOutput : struct, IMixedOutput
        where TRows : struct, IRowMap
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
                Mbarrier.Initialize(empty + (uint)(i * HopperGemm.BarrierBytes), Multipliers * 4);
            }
            Mbarrier.FenceInitialized();
        }
        // No copy starts and nobody waits before the barriers exist.
        Block.Barrier();
        if (Group.IdxX < Warpgroup.Threads)
        {
            Warpgroup.GiveRegisters(ProducerRegisters);
            if (Group.IdxX == 0)
                Produce<TRows>(a, shared, full, empty);
        }
        else
        {
            Warpgroup.TakeRegisters(MultiplierRegisters);
            Consume<TOutput, TRows>(a, shared, full, empty);
        }
    }

    private static void Produce<TRows>(HopperMixedArgs a, uint shared, uint full, uint empty)
        where TRows : struct, IRowMap
    {
        HopperRing ring = default;
        HopperMixedTurns turns = default;
        turns.Start<TRows>(a);
        while (turns.Next<TRows>(a))
        {
            HopperMixedTiles tile = turns.Tile;
            int copies = (tile.Count + CopiedRows - 1) / CopiedRows, weightRow = (tile.Expert * a.N) + tile.Column;
            for (int step = turns.First; step < turns.End; step++)
            {
                uint stage = shared + (uint)(ring.Stage * StageBytes), arrived = full + (uint)(ring.Stage * HopperGemm.BarrierBytes);
                int k = step * StepColumns;
                // The stage's last products are done (at once in the ring's first round).
                Mbarrier.Wait(empty + (uint)(ring.Stage * HopperGemm.BarrierBytes), ring.Parity ^ 1);
                Mbarrier.ArriveExpecting(arrived, CodeBytes + (copies * 2 * CopiedRows * RowBytes));
                Tma.Load(a.Weight, HopperMixedArgs.WeightMap, stage + (2 * HalfBytes), k, weightRow, arrived);
                for (int i = 0; i < copies; i++)
                {
                    uint rows = stage + (uint)(i * CopiedRows * RowBytes);
                    Tma.Load(a.Input, HopperMixedArgs.InputMap, rows, k, tile.First + (i * CopiedRows), arrived);
                    Tma.Load(a.Input, HopperMixedArgs.InputMap, rows + HalfBytes, k + (StepColumns / 2), tile.First + (i * CopiedRows), arrived);
                }
                ring.Advance(Stages);
            }
        }
    }

    private static void Consume<TOutput, TRows>(HopperMixedArgs a, uint shared, uint full, uint empty)
        where TOutput : struct, IMixedOutput
        where TRows : struct, IRowMap
    {
        HopperRing ring = default;
        HopperMixedTurns turns = default;
        int warpgroup = (Group.IdxX >> 7) - 1, slab = 0;
        uint codes = WgmmaMixed.LaneAddress(shared + (uint)((2 * HalfBytes) + (warpgroup * WarpgroupColumns * RowBytes)));
        uint slabs = shared + (uint)(Slabs + (warpgroup * HopperMixedStore.Bytes));
        turns.Start<TRows>(a);
        while (turns.Next<TRows>(a))
        {
            Wgmma.Clear();
            if (!TRows.IsGrouped && turns.IsContinued)
                HopperMixedSharing.TakeOver(a, turns.Tile.Count, warpgroup);
            if (turns.Tile.Count <= MixedRows64.Rows)
                Sum<MixedRows64>(a, turns, warpgroup, (codes, shared), (full, empty), ref ring);
            else if (turns.Tile.Count <= MixedRows128.Rows)
                Sum<MixedRows128>(a, turns, warpgroup, (codes, shared), (full, empty), ref ring);
            else if (turns.Tile.Count <= MixedRows160.Rows)
                Sum<MixedRows160>(a, turns, warpgroup, (codes, shared), (full, empty), ref ring);
            else if (turns.Tile.Count <= MixedRows176.Rows)
                Sum<MixedRows176>(a, turns, warpgroup, (codes, shared), (full, empty), ref ring);
            else
                Sum<MixedRows192>(a, turns, warpgroup, (codes, shared), (full, empty), ref ring);
            if (!TRows.IsGrouped && turns.IsToBeContinued(a))
                HopperMixedSharing.HandOver(a, turns.Tile.Count, warpgroup);
            else
                HopperMixedStore.Tile<TOutput, TRows>(a, turns.Tile, slabs, warpgroup, ref slab);
        }
    }

    // Adds a turn's steps of one warpgroup's tile to the totals of Wgmma. Codes are loaded a quarter of a step before they are decoded, and decoded while the quarter
    // before is multiplied, across steps too.
    private static void Sum<TWidth>(HopperMixedArgs a, in HopperMixedTurns turns, int warpgroup, (uint Codes, uint Inputs) operands, (uint Full, uint Empty) barriers, ref HopperRing ring)
        where TWidth : struct, IMixedWidth
    {
        // Quarter steps of x are 64 bytes apart; a descriptor counts 16.
        const ulong QuarterStep = 4;
        // A tile's columns beyond W are not stored and take the last block's scales.
        int row = IntrinsicMath.Min(turns.Tile.Column + (warpgroup * WarpgroupColumns), a.N - 1) >> a.WeightRowShift;
        long scales = a.WeightScales + ((((long)turns.Tile.Expert * a.ScalesPerExpert) + ((long)row * a.WeightScaleColumns)) * sizeof(float));
        float scale = Scale(a, scales, turns.First);
        Mbarrier.Wait(barriers.Full + (uint)(ring.Stage * HopperGemm.BarrierBytes), ring.Parity);
        WgmmaMixed.Load0(operands.Codes + (uint)(ring.Stage * StageBytes));
        WgmmaMixed.DecodeEven();
        for (int step = turns.First; step < turns.End; step++)
        {
            int current = ring.Stage;
            uint stage = (uint)(current * StageBytes), codes = operands.Codes + stage;
            ulong first = Wgmma.Descriptor(operands.Inputs + stage), second = Wgmma.Descriptor(operands.Inputs + stage + HalfBytes);
            Wgmma.Fence();
            TWidth.Even(first, 0);
            Wgmma.Commit();
            WgmmaMixed.Load1(codes);
            WgmmaMixed.DecodeOdd();
            Wgmma.Fence();
            TWidth.Odd(first + QuarterStep, 1);
            Wgmma.Commit();
            WgmmaMixed.Load2(codes);
            // The even registers have been read.
            Wgmma.Wait(1);
            WgmmaMixed.DecodeEven();
            Wgmma.Fence();
            TWidth.Even(second, 1);
            Wgmma.Commit();
            WgmmaMixed.Load3(codes);
            Wgmma.Wait(1);
            WgmmaMixed.DecodeOdd();
            Wgmma.Fence();
            TWidth.Odd(second + QuarterStep, 1);
            Wgmma.Commit();
            // After the last step this stage again: it has landed, and what is decoded is not used.
            bool more = step + 1 < turns.End;
            uint parity = ring.Parity;
            ring.Advance(Stages);
            int next = more ? ring.Stage : current;
            parity = more ? ring.Parity : parity;
            float nextScale = Scale(a, scales, more ? step + 1 : step);
            Mbarrier.Wait(barriers.Full + (uint)(next * HopperGemm.BarrierBytes), parity);
            WgmmaMixed.Load0(operands.Codes + (uint)(next * StageBytes));
            Wgmma.Wait(1);
            WgmmaMixed.DecodeEven();
            Wgmma.Wait(0);
            // Every warp has read the stage.
            if (Warp.LaneIdx == 0)
                Mbarrier.Arrive(barriers.Empty + (uint)(current * HopperGemm.BarrierBytes));
            Wgmma.Promote0(scale, scale);
            if (TWidth.Rows > 64)
                Wgmma.Promote1(scale, scale);
            if (TWidth.Rows > 128)
                Wgmma.Promote2(scale, scale);
            scale = nextScale;
        }
    }

    /// <summary>The multiplier of a step, of those of a warpgroup's rows of W.</summary>
    public static float Scale(HopperMixedArgs a, long scales, int step) =>
        Mem.LoadReadOnlyFloat(scales + (((long)(step * StepColumns) >> a.WeightColumnShift) * sizeof(float)));
}
