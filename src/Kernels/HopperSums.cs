using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>The sum along K of one warpgroup's tile of <see cref="HopperGemm"/>, left in the totals of <see cref="Wgmma"/>.</summary>
internal static class HopperSums
{
    /// <summary>Meeting points at which the warpgroups wait for their turns: this one and the next.</summary>
    public const uint FirstTurn = 3;

    // Half of a step's bytes; a descriptor counts 16.
    private const ulong HalfStep = HopperGemm.StepBytes / 2 / 16;

    /// <summary>One sum over all of K. While a step is multiplied, the step before it is given back.</summary>
    public static void Plain<TProduct, TCluster>(HopperArgs a, (uint A, uint B) operands, uint full, uint empty, ref HopperRing ring)
        where TProduct : struct, IHopperProduct
        where TCluster : struct, IClusterSize
    {
        int before = 0;
        for (int step = 0; step < a.Steps; step++)
        {
            uint stage = (uint)(ring.Stage * HopperGemm.StageBytes<TProduct>());
            Mbarrier.Wait(full + (uint)(ring.Stage * HopperGemm.BarrierBytes), ring.Parity);
            Wgmma.Fence();
            TProduct.Multiply(Wgmma.Descriptor(operands.A + stage), Wgmma.Descriptor(operands.B + stage), (uint)step);
            Wgmma.Commit();
            // All but the products just begun are done.
            Wgmma.Wait(1);
            if (step > 0)
                Release<TCluster>(empty, before);
            before = ring.Stage;
            ring.Advance<TProduct>();
        }
        Wgmma.Wait(0);
        Release<TCluster>(empty, before);
    }

    /// <summary>
    /// A sum a step, scaled and added to the totals, while the other warpgroup multiplies: products of the two begin in turns, or both would multiply at half the speed and then
    /// both add.
    /// </summary>
    public static void Scaled<TProduct, TCluster>(HopperArgs a, HopperTile place, (uint A, uint B) operands, uint full, uint empty, ref HopperRing ring)
        where TProduct : struct, IHopperProduct
        where TCluster : struct, IClusterSize
    {
        uint turn = FirstTurn + (uint)(Group.IdxX >> 7) - 1, others = (2 * FirstTurn) + 1 - turn;
        HopperScales scales = HopperScales.At(a, place);
        Wgmma.Clear();
        scales.Load(0);
        for (int step = 0; step < a.Steps; step++)
        {
            uint stage = (uint)(ring.Stage * HopperGemm.StageBytes<TProduct>());
            ulong x = Wgmma.Descriptor(operands.A + stage), w = Wgmma.Descriptor(operands.B + stage);
            Mbarrier.Wait(full + (uint)(ring.Stage * HopperGemm.BarrierBytes), ring.Parity);
            Warpgroup.AwaitTurn(turn);
            Wgmma.Fence();
            TProduct.Multiply(x, w, 0);
            if (!TProduct.YieldsAtOnce)
                Wgmma.Commit();
            TProduct.Multiply(x + HalfStep, w + HalfStep, 1);
            Wgmma.Commit();
            if (TProduct.YieldsAtOnce)
                Warpgroup.GiveTurn(others);
            // Scales are fetched a step ahead of the products that they belong to.
            HopperScales current = scales;
            scales.Load(IntrinsicMath.Min(step + 1, a.Steps - 1));
            if (!TProduct.YieldsAtOnce)
            {
                Wgmma.Wait(1);
                Warpgroup.GiveTurn(others);
            }
            Wgmma.Wait(0);
            Release<TCluster>(empty, ring.Stage);
            current.Promote<TProduct>();
            ring.Advance<TProduct>();
        }
    }

    // Every warp has read the stage: one arrival a warp, at the barriers of all blocks whose copies fill it.
    private static void Release<TCluster>(uint empty, int stage)
        where TCluster : struct, IClusterSize
    {
        uint barrier = empty + (uint)(stage * HopperGemm.BarrierBytes);
        if (TCluster.Count > 1)
        {
            if (Warp.LaneIdx < TCluster.Count)
                Mbarrier.ArriveAt(barrier, Warp.LaneIdx);
        }
        else if (Warp.LaneIdx == 0)
        {
            Mbarrier.Arrive(barrier);
        }
    }
}
