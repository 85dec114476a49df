using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>The sum along K of one warpgroup's tile of <see cref="HopperGemm"/>, left in the totals of <see cref="Wgmma"/>.</summary>
internal static class HopperSums
{
    private const int ScaleColumnsShift = 7;

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

    /// <summary>A sum a step, scaled and added to the totals. The other warpgroup multiplies meanwhile.</summary>
    public static void Scaled<TProduct, TCluster>(HopperArgs a, HopperTile place, (uint A, uint B) operands, uint full, uint empty, ref HopperRing ring)
        where TProduct : struct, IHopperProduct
        where TCluster : struct, IClusterSize
    {
        int row = place.Row + (((Group.IdxX >> 5) & 3) * 16) + (Warp.LaneIdx >> 2);
        long upper = Row(a, row), lower = Row(a, row + 8);
        Wgmma.Clear();
        // Scales are fetched a step ahead of the products that they belong to.
        float upperScale = Mem.LoadReadOnlyFloat(upper), lowerScale = Mem.LoadReadOnlyFloat(lower);
        HopperWeightScales weights = WeightScales<TProduct>(a, place.Column, 0);
        for (int step = 0; step < a.Steps; step++)
        {
            uint stage = (uint)(ring.Stage * HopperGemm.StageBytes<TProduct>());
            Mbarrier.Wait(full + (uint)(ring.Stage * HopperGemm.BarrierBytes), ring.Parity);
            Wgmma.Fence();
            TProduct.Multiply(Wgmma.Descriptor(operands.A + stage), Wgmma.Descriptor(operands.B + stage), 0);
            Wgmma.Commit();
            int next = IntrinsicMath.Min(step + 1, a.Steps - 1);
            float nextUpper = Mem.LoadReadOnlyFloat(upper + (next * sizeof(float))), nextLower = Mem.LoadReadOnlyFloat(lower + (next * sizeof(float)));
            HopperWeightScales nextWeights = WeightScales<TProduct>(a, place.Column, next);
            Wgmma.Wait(0);
            Release<TCluster>(empty, ring.Stage);
            Wgmma.Promote0(upperScale * weights.First, lowerScale * weights.First);
            Wgmma.Promote1(upperScale * weights.Second, lowerScale * weights.Second);
            if (TProduct.Columns > 128)
                Wgmma.Promote2(upperScale * weights.Third, lowerScale * weights.Third);
            upperScale = nextUpper;
            lowerScale = nextLower;
            weights = nextWeights;
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

    // Rows beyond x have zeros as operands and the last row's scales.
    private static long Row(HopperArgs a, int row) =>
        a.InputScales + ((long)IntrinsicMath.Min(row, a.M - 1) * a.InputScaleColumns * sizeof(float));

    // A tile's first columns may lie in one block of W and its last in another; a block's edge is never within 64 columns. What lies
    // beyond W is not stored and takes the scales of the last block.
    private static HopperWeightScales WeightScales<TProduct>(HopperArgs a, int column, int step)
        where TProduct : struct, IHopperProduct
    {
        HopperWeightScales scales;
        scales.First = WeightScale(a, column, step);
        scales.Second = TProduct.Columns > 128 ? WeightScale(a, column + 64, step) : scales.First;
        scales.Third = TProduct.Columns > 128 ? WeightScale(a, column + 128, step) : 0;
        return scales;
    }

    private static float WeightScale(HopperArgs a, int column, int step) =>
        Mem.LoadReadOnlyFloat(a.WeightScales + ((((long)(IntrinsicMath.Min(column, a.N - 1) >> a.WeightRowShift) * a.WeightScaleColumns) + ((step << ScaleColumnsShift) >> a.WeightColumnShift)) * sizeof(float)));

    // The multipliers of 64 columns of y each.
    private struct HopperWeightScales
    {
        public float First, Second, Third;
    }
}
