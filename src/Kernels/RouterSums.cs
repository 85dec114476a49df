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

/// <summary>One warp's choice: each lane's four sums, and in lane j the sum of the j-th chosen expert.</summary>
internal struct RouterChoice
{
    /// <summary>Of the experts 4·lane … 4·lane + 3.</summary>
    public float Sum0, Sum1, Sum2, Sum3;

    public float Chosen;
    public float Largest;
    public int ChosenExpert;
}

/// <summary>A lane's four candidates, the best first: sums as integers of the same order, and whose they are.</summary>
internal struct RouterCandidates
{
    public uint Key0, Key1, Key2, Key3;
    public int Expert0, Expert1, Expert2, Expert3;
}

/// <summary>
/// The k experts with the largest sums, ties to the lowest index. Every lane sorts its four; a round is then an arg-max over the lanes' best and the
/// winner's step to its next. The norm's factor, which is positive, does not change who they are; their weights need it.
/// </summary>
internal static class RouterSums
{
    public const int MostExperts = 128;

    /// <summary>The first k choices; lane j keeps the j-th. All lanes take part.</summary>
    public static RouterChoice Select(RouterArgs a, int k)
    {
        int lane = Group.IdxX & 31;
        RouterChoice choice = Load(a.Sums, 4 * lane);
        RouterCandidates own = Sorted(choice, 4 * lane);
        uint largest = 0, chosen = 0;
        for (int j = 0; j < k; j++)
        {
            uint key = WarpOps.MaxUInt(own.Key0);
            int expert = WarpOps.MinInt(own.Key0 == key ? own.Expert0 : int.MaxValue);
            bool won = own.Expert0 == expert;
            own.Key0 = won ? own.Key1 : own.Key0;
            own.Key1 = won ? own.Key2 : own.Key1;
            own.Key2 = won ? own.Key3 : own.Key2;
            own.Key3 = won ? 0 : own.Key3;
            own.Expert0 = won ? own.Expert1 : own.Expert0;
            own.Expert1 = won ? own.Expert2 : own.Expert1;
            own.Expert2 = won ? own.Expert3 : own.Expert2;
            own.Expert3 = won ? int.MaxValue : own.Expert3;
            largest = j == 0 ? key : largest;
            chosen = lane == j ? key : chosen;
            choice.ChosenExpert = lane == j ? expert : choice.ChosenExpert;
        }
        choice.Largest = FromKey(largest);
        choice.Chosen = lane < k ? FromKey(chosen) : 0;
        return choice;
    }

    // No sum is NaN or −0: they were integers.
    private static uint ToKey(float sum)
    {
        uint bits = Interop.FloatAsInt(sum);
        return bits ^ ((uint)((int)bits >> 31) | 0x80000000u);
    }

    private static float FromKey(uint key) => Interop.IntAsFloat(key ^ ((uint)((int)~key >> 31) | 0x80000000u));

    // A network of five comparisons; of equal sums the lower expert's comes first.
    private static RouterCandidates Sorted(RouterChoice sums, int first)
    {
        RouterCandidates c = default;
        c.Key0 = ToKey(sums.Sum0);
        c.Key1 = ToKey(sums.Sum1);
        c.Key2 = ToKey(sums.Sum2);
        c.Key3 = ToKey(sums.Sum3);
        c.Expert0 = first;
        c.Expert1 = first + 1;
        c.Expert2 = first + 2;
        c.Expert3 = first + 3;
        Order(ref c.Key0, ref c.Expert0, ref c.Key1, ref c.Expert1);
        Order(ref c.Key2, ref c.Expert2, ref c.Key3, ref c.Expert3);
        Order(ref c.Key0, ref c.Expert0, ref c.Key2, ref c.Expert2);
        Order(ref c.Key1, ref c.Expert1, ref c.Key3, ref c.Expert3);
        Order(ref c.Key1, ref c.Expert1, ref c.Key2, ref c.Expert2);
        return c;
    }

    private static void Order(ref uint key0, ref int expert0, ref uint key1, ref int expert1)
    {
        bool swap = (key1 > key0) | ((key1 == key0) & (expert1 < expert0));
        uint key = swap ? key1 : key0;
        int expert = swap ? expert1 : expert0;
        key1 = swap ? key0 : key1;
        expert1 = swap ? expert0 : expert1;
        key0 = key;
        expert0 = expert;
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
        int first = 4 * (Group.IdxX & 31);
        Store(a.Logits, first, choice.Sum0 * factor);
        Store(a.Logits, first + 1, choice.Sum1 * factor);
        Store(a.Logits, first + 2, choice.Sum2 * factor);
        Store(a.Logits, first + 3, choice.Sum3 * factor);
    }

    private static void Store(ArrayView<float> logits, int expert, float value)
    {
        if (expert < logits.Length)
            logits[expert] = value;
    }

    private static float Mass(float sum, RouterChoice choice, float factor) => sum < -float.MaxValue ? 0 : XMath.Exp((sum - choice.Largest) * factor);

    // Every load is of a sum that exists, so that all are requested before the first is waited for; beyond the last expert −∞, below every sum.
    private static RouterChoice Load(ArrayView<long> sums, int first)
    {
        ArrayView<uint> words = sums.Cast<uint>();
        int count = (int)sums.Length, last = count - 1;
        U4 even = default, odd = default;
        if ((count & 3) == 0)
        {
            int at = 2 * IntrinsicMath.Min(first, count - 4);
            even = Mem.LoadL2(ref words[at]);
            odd = Mem.LoadL2(ref words[at + 4]);
        }
        else
        {
            U2 s0 = Mem.LoadL2Pair(ref words[2 * IntrinsicMath.Min(first, last)]), s1 = Mem.LoadL2Pair(ref words[2 * IntrinsicMath.Min(first + 1, last)]);
            U2 s2 = Mem.LoadL2Pair(ref words[2 * IntrinsicMath.Min(first + 2, last)]), s3 = Mem.LoadL2Pair(ref words[2 * IntrinsicMath.Min(first + 3, last)]);
            even = Join(s0, s1);
            odd = Join(s2, s3);
        }
        RouterChoice choice = default;
        choice.Sum0 = first < count ? Sum(even.X, even.Y) : float.NegativeInfinity;
        choice.Sum1 = first + 1 < count ? Sum(even.Z, even.W) : float.NegativeInfinity;
        choice.Sum2 = first + 2 < count ? Sum(odd.X, odd.Y) : float.NegativeInfinity;
        choice.Sum3 = first + 3 < count ? Sum(odd.Z, odd.W) : float.NegativeInfinity;
        return choice;
    }

    private static U4 Join(U2 first, U2 second)
    {
        U4 joined;
        joined.X = first.X;
        joined.Y = first.Y;
        joined.Z = second.X;
        joined.W = second.Y;
        return joined;
    }

    private static float Sum(uint low, uint high) => (float)(((long)high << 32) | low) * TileLinear.RouterUnit;
}
