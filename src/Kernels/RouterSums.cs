using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;
using ILGPU.Algorithms;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>A token's routing from the sums that <see cref="TileLinear"/> left, made by every warp that needs it.</summary>
internal struct RouterArgs
{
    /// <summary>[Experts] logits before the norm's factor, in units of 2⁻³².</summary>
    public ArrayView<long> Sums;

    /// <summary>[Experts] float32: the logits, for whoever looks at them.</summary>
    public ArrayView<float> Logits;

    public int Normalize;
}

/// <summary>One warp's choice. Lane j has the sum of the j-th chosen expert.</summary>
internal struct RouterChoice
{
    public float Sum0, Sum1, Sum2, Sum3;
    public float Chosen;
    public float Largest;
    public int ChosenExpert;

    /// <summary>The k-th expert, in all lanes.</summary>
    public int LastExpert;
}

/// <summary>
/// The k experts with the largest sums, ties to the lowest index: k rounds of arg-max over a warp, four sums a lane. The norm's factor, which is
/// positive, does not change who they are; their weights need it.
/// </summary>
internal static class RouterSums
{
    public const int MostExperts = 128;

    /// <summary>The choice of k experts; lane j keeps the j-th. All lanes take part.</summary>
    public static RouterChoice Select(RouterArgs a, int k)
    {
        int lane = Group.IdxX & 31;
        RouterChoice choice = default;
        choice.Sum0 = Sum(a, lane);
        choice.Sum1 = Sum(a, lane + 32);
        choice.Sum2 = Sum(a, lane + 64);
        choice.Sum3 = Sum(a, lane + 96);
        float s0 = choice.Sum0, s1 = choice.Sum1, s2 = choice.Sum2, s3 = choice.Sum3;
        for (int j = 0; j < k; j++)
        {
            // Of equal sums the first: later ones must be larger.
            float value = s0;
            int index = lane;
            index = s1 > value ? lane + 32 : index;
            value = s1 > value ? s1 : value;
            index = s2 > value ? lane + 64 : index;
            value = s2 > value ? s2 : value;
            index = s3 > value ? lane + 96 : index;
            value = s3 > value ? s3 : value;
            ArgMaxResult best = WarpOps.ArgMax(value, index);
            s0 = best.Index == lane ? float.NegativeInfinity : s0;
            s1 = best.Index == lane + 32 ? float.NegativeInfinity : s1;
            s2 = best.Index == lane + 64 ? float.NegativeInfinity : s2;
            s3 = best.Index == lane + 96 ? float.NegativeInfinity : s3;
            choice.Largest = j == 0 ? best.Value : choice.Largest;
            choice.Chosen = lane == j ? best.Value : choice.Chosen;
            choice.ChosenExpert = lane == j ? best.Index : choice.ChosenExpert;
            choice.LastExpert = best.Index;
        }
        return choice;
    }

    /// <summary>The weight of the lane's chosen expert: its softmax over all experts, or over the chosen ones. All lanes take part.</summary>
    public static float Weight(RouterArgs a, RouterChoice choice, int k, float factor)
    {
        float own = XMath.Exp((choice.Chosen - choice.Largest) * factor);
        float mass = (Group.IdxX & 31) < k ? own : 0;
        if (a.Normalize == 0)
            mass = Mass(choice.Sum0, choice, factor) + Mass(choice.Sum1, choice, factor) + Mass(choice.Sum2, choice, factor) + Mass(choice.Sum3, choice, factor);
        return own / WarpOps.Sum(mass);
    }

    /// <summary>The logits, written by one warp.</summary>
    public static void StoreLogits(RouterArgs a, RouterChoice choice, float factor)
    {
        int lane = Group.IdxX & 31;
        Store(a.Logits, lane, choice.Sum0 * factor);
        Store(a.Logits, lane + 32, choice.Sum1 * factor);
        Store(a.Logits, lane + 64, choice.Sum2 * factor);
        Store(a.Logits, lane + 96, choice.Sum3 * factor);
    }

    private static void Store(ArrayView<float> logits, int expert, float value)
    {
        if (expert < logits.Length)
            logits[expert] = value;
    }

    private static float Mass(float sum, RouterChoice choice, float factor) => sum < -float.MaxValue ? 0 : XMath.Exp((sum - choice.Largest) * factor);

    /// <summary>An expert's sum; beyond the last expert −∞, below every sum.</summary>
    public static float Sum(RouterArgs a, int expert)
    {
        if (expert >= a.Sums.Length)
            return float.NegativeInfinity;
        U2 halves = Mem.LoadL2Pair(ref a.Sums.Cast<uint>()[2 * expert]);
        long sum = ((long)halves.Y << 32) | halves.X;
        return (float)sum * TileLinear.RouterUnit;
    }
}
