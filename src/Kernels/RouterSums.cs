using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;
using ILGPU.Algorithms;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>A token's routing from the sums that <see cref="TileLinear"/> left, made by one warp of a block.</summary>
internal struct RouterArgs
{
    /// <summary>[Experts] logits before the norm's factor, in units of 2⁻³².</summary>
    public ArrayView<long> Sums;

    /// <summary>[Experts] float32: the logits, for whoever looks at them.</summary>
    public ArrayView<float> Logits;

    /// <summary>[copies, Experts] float32 in place of sums, as <see cref="RouterPosts"/> makes them: each says by itself whether it is there. Empty where there are sums.</summary>
    public ArrayView<uint> Posts;

    /// <summary>[TopK] 1 + the chosen expert, as soon as that is known; zero before.</summary>
    public ArrayView<uint> Announced;

    public int Normalize;
}

/// <summary>One warp's choice. Lane j has the sum of the j-th chosen expert, and the sums of the experts j, 32 + j, 64 + j and 96 + j.</summary>
internal struct RouterChoice
{
    public float Sum0, Sum1, Sum2, Sum3;
    public float Chosen;
    public float Largest;
    public int ChosenExpert;

    /// <summary>The expert of the last round: the same in all lanes.</summary>
    public int LastExpert;
}

/// <summary>A lane's four sums in descending order, ties to the lower index: keys of the order of floats, and which of the four they are, two bits each from the lowest.</summary>
internal struct RouterRanks
{
    public uint Key0, Key1, Key2, Key3;
    public uint Places;
}

/// <summary>
/// The k experts with the largest sums, ties to the lowest index: each lane sorts four sums, then in each round the warp takes the largest of the lanes' first. The norm's factor, which is
/// positive, does not change who they are; their weights need it. Lanes read neighbours: all blocks ask for the same few lines at once, and each line is asked for once a block.
/// </summary>
internal static class RouterSums
{
    public const int MostExperts = 128;

    /// <summary>Numbers behind the sums, where the choice is announced.</summary>
    private const int AnnouncedLongs = Router.MaxTopK / 2;

    // The announcing block runs or has ended when anyone asks, so a few round trips are enough; whoever finds nothing after so many chooses by itself.
    private const int Patience = 100_000;

    /// <summary>Length of the sums of so many experts with what stands behind them.</summary>
    public static int Length(int experts) => experts + AnnouncedLongs;

    /// <summary>The sums, every 32nd a lane. All lanes take part.</summary>
    public static RouterChoice Load(RouterArgs a)
    {
        int lane = Group.IdxX & 31;
        RouterChoice choice = default;
        choice.Sum0 = Sum(a, lane);
        choice.Sum1 = Sum(a, lane + 32);
        choice.Sum2 = Sum(a, lane + 64);
        choice.Sum3 = Sum(a, lane + 96);
        return choice;
    }

    /// <summary>The choice of k experts; lane j keeps the j-th. All lanes take part.</summary>
    public static RouterChoice Select(RouterArgs a, int k) => Select(Load(a), k);

    /// <summary>The same from loaded sums; fewer rounds than experts are chosen find the first of them.</summary>
    public static RouterChoice Select(RouterChoice choice, int rounds)
    {
        int lane = Group.IdxX & 31;
        RouterRanks ranks = Rank(choice);
        for (int j = 0; j < rounds; j++)
        {
            uint largest = WarpOps.MaxUInt(ranks.Key0);
            // Counted from the last, so that of equal keys the lowest index wins.
            uint place = (uint)(MostExperts - lane) - (32 * (ranks.Places & 3));
            uint winner = WarpOps.MaxUInt(ranks.Key0 == largest ? place : 0);
            int expert = MostExperts - (int)winner;
            bool own = place == winner & ranks.Key0 == largest;
            ranks.Key0 = own ? ranks.Key1 : ranks.Key0;
            ranks.Key1 = own ? ranks.Key2 : ranks.Key1;
            ranks.Key2 = own ? ranks.Key3 : ranks.Key2;
            ranks.Key3 = own ? 0 : ranks.Key3;
            ranks.Places = own ? ranks.Places >> 2 : ranks.Places;
            float value = Value(largest);
            choice.Largest = j == 0 ? value : choice.Largest;
            choice.Chosen = lane == j ? value : choice.Chosen;
            choice.ChosenExpert = lane == j ? expert : choice.ChosenExpert;
            choice.LastExpert = expert;
        }
        return choice;
    }

    /// <summary>The lane's four in order.</summary>
    public static RouterRanks Rank(RouterChoice choice)
    {
        RouterRanks ranks = default;
        (ranks.Key0, ranks.Key1, ranks.Key2, ranks.Key3) = (Key(choice.Sum0), Key(choice.Sum1), Key(choice.Sum2), Key(choice.Sum3));
        uint p0 = 0, p1 = 1, p2 = 2, p3 = 3;
        // A network for four; places decide between equal keys.
        Sort(ref ranks.Key0, ref p0, ref ranks.Key1, ref p1);
        Sort(ref ranks.Key2, ref p2, ref ranks.Key3, ref p3);
        Sort(ref ranks.Key0, ref p0, ref ranks.Key2, ref p2);
        Sort(ref ranks.Key1, ref p1, ref ranks.Key3, ref p3);
        Sort(ref ranks.Key1, ref p1, ref ranks.Key2, ref p2);
        ranks.Places = p0 | (p1 << 2) | (p2 << 4) | (p3 << 6);
        return ranks;
    }

    /// <summary>The lane that has the next one writes it down: the largest first, of equal ones the lowest index.</summary>
    public static void Take(ref RouterRanks ranks, ArrayView<int> experts, ArrayView<float> sums, int rank)
    {
        int lane = Group.IdxX & 31;
        uint largest = WarpOps.MaxUInt(ranks.Key0), holders = WarpOps.Ballot(ranks.Key0 == largest ? 1u : 0u);
        bool own = ranks.Key0 == largest;
        if ((holders & (holders - 1)) != 0)
        {
            uint place = (uint)(MostExperts - lane) - (32 * (ranks.Places & 3));
            own &= place == WarpOps.MaxUInt(own ? place : 0);
        }
        if (own)
        {
            experts[rank] = lane + (int)(32 * (ranks.Places & 3));
            sums[rank] = Value(largest);
        }
        ranks.Key0 = own ? ranks.Key1 : ranks.Key0;
        ranks.Key1 = own ? ranks.Key2 : ranks.Key1;
        ranks.Key2 = own ? ranks.Key3 : ranks.Key2;
        ranks.Key3 = own ? 0 : ranks.Key3;
        ranks.Places = own ? ranks.Places >> 2 : ranks.Places;
    }

    // The larger first; of equal keys the one with the lower place.
    private static void Sort(ref uint key0, ref uint place0, ref uint key1, ref uint place1)
    {
        bool swap = key1 > key0 | (key1 == key0 & place1 < place0);
        uint key = swap ? key1 : key0, place = swap ? place1 : place0;
        key1 = swap ? key0 : key1;
        place1 = swap ? place0 : place1;
        key0 = key;
        place0 = place;
    }

    // Unsigned numbers in the order of floats: sums are no NaN and no −0, and no key is 0.
    private static uint Key(float sum)
    {
        uint bits = Interop.FloatAsInt(sum);
        return bits ^ ((uint)((int)bits >> 31) | 0x80000000u);
    }

    public static float Value(uint key) => Interop.IntAsFloat(key ^ ((uint)((int)~key >> 31) | 0x80000000u));

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

    /// <summary>Tells the launch after this one, which may have begun, who is chosen. By one warp of the grid.</summary>
    public static void Announce(RouterArgs a, RouterChoice choice, int k)
    {
        if ((Group.IdxX & 31) < k)
            Mem.StoreRelaxed(ref a.Announced[Group.IdxX & 31], (uint)choice.ChosenExpert + 1);
    }

    /// <summary>Lane j's chosen expert, as the launch before announces it. All lanes of a warp take part.</summary>
    public static int Await(RouterArgs a, int k)
    {
        int lane = Group.IdxX & 31;
        uint found = 0;
        for (int i = 0; i < Patience; i++)
        {
            found = lane < k ? Mem.LoadRelaxed(ref a.Announced[lane]) : 1;
            if (WarpOps.Any(found == 0 ? 1u : 0u) == 0)
                return (int)found - 1;
        }
        if (a.Posts.Length == 0)
            return Select(a, k).ChosenExpert;
        // Who posted logits did so for the launch before only; that one announces in any case.
        GridDependency.Wait();
        return lane < k ? (int)Mem.LoadRelaxed(ref a.Announced[lane]) - 1 : 0;
    }

    /// <summary>The logits that the launch before posts, as soon as all are there. All lanes of a warp take part.</summary>
    public static RouterChoice AwaitPosts(RouterArgs a, int copy)
    {
        for (int i = 0; i < Patience; i++)
        {
            RouterChoice choice = LoadPosts(a, copy);
            bool missing = Interop.FloatAsInt(choice.Sum0) == 0 | Interop.FloatAsInt(choice.Sum1) == 0 | Interop.FloatAsInt(choice.Sum2) == 0 | Interop.FloatAsInt(choice.Sum3) == 0;
            if (WarpOps.Any(missing ? 1u : 0u) == 0)
                return choice;
        }
        GridDependency.Wait();
        RouterChoice last = LoadPosts(a, copy);
        last.Sum0 = Posted(last.Sum0);
        last.Sum1 = Posted(last.Sum1);
        last.Sum2 = Posted(last.Sum2);
        last.Sum3 = Posted(last.Sum3);
        return last;
    }

    // What was not posted by the end of the launch is not chosen before anything that was.
    private static float Posted(float logit) => Interop.FloatAsInt(logit) == 0 ? float.NegativeInfinity : logit;

    private static RouterChoice LoadPosts(RouterArgs a, int copy)
    {
        int lane = Group.IdxX & 31, experts = (int)a.Logits.Length;
        long start = (long)copy * experts;
        RouterChoice choice = default;
        choice.Sum0 = Post(a, start, lane, experts);
        choice.Sum1 = Post(a, start, lane + 32, experts);
        choice.Sum2 = Post(a, start, lane + 64, experts);
        choice.Sum3 = Post(a, start, lane + 96, experts);
        return choice;
    }

    // Beyond the last expert −∞, as among sums.
    private static float Post(RouterArgs a, long start, int expert, int experts) =>
        expert < experts ? Interop.IntAsFloat(Mem.LoadRelaxed(ref a.Posts[start + expert])) : float.NegativeInfinity;

    /// <summary>Words of shared memory that hold a warp's choice.</summary>
    public const int ChoiceWords = 7 * 32;

    /// <summary>Puts one warp's choice into shared memory, so that it does not take registers meanwhile.</summary>
    public static void Keep(ArrayView<uint> words, RouterChoice choice)
    {
        int lane = Group.IdxX & 31;
        words[lane] = Interop.FloatAsInt(choice.Sum0);
        words[32 + lane] = Interop.FloatAsInt(choice.Sum1);
        words[64 + lane] = Interop.FloatAsInt(choice.Sum2);
        words[96 + lane] = Interop.FloatAsInt(choice.Sum3);
        words[128 + lane] = Interop.FloatAsInt(choice.Chosen);
        words[160 + lane] = Interop.FloatAsInt(choice.Largest);
        words[192 + lane] = (uint)choice.ChosenExpert;
    }

    /// <summary>What <see cref="Keep"/> put there, read by the same lanes.</summary>
    public static RouterChoice Kept(ArrayView<uint> words)
    {
        int lane = Group.IdxX & 31;
        RouterChoice choice = default;
        choice.Sum0 = Interop.IntAsFloat(words[lane]);
        choice.Sum1 = Interop.IntAsFloat(words[32 + lane]);
        choice.Sum2 = Interop.IntAsFloat(words[64 + lane]);
        choice.Sum3 = Interop.IntAsFloat(words[96 + lane]);
        choice.Chosen = Interop.IntAsFloat(words[128 + lane]);
        choice.Largest = Interop.IntAsFloat(words[160 + lane]);
        choice.ChosenExpert = (int)words[192 + lane];
        return choice;
    }

    /// <summary>Makes the sums zero that the lane has read.</summary>
    public static void Clear(RouterArgs a)
    {
        for (int expert = Group.IdxX & 31; expert < a.Sums.Length; expert += 32)
            a.Sums[expert] = 0;
    }

    private static void Store(ArrayView<float> logits, int expert, float value)
    {
        if (expert < logits.Length)
            logits[expert] = value;
    }

    private static float Mass(float sum, RouterChoice choice, float factor) => sum < -float.MaxValue ? 0 : XMath.Exp((sum - choice.Largest) * factor);

    // Beyond the last expert −∞: below every sum.
    private static float Sum(RouterArgs a, int expert)
    {
        if (expert >= a.Sums.Length)
            return float.NegativeInfinity;
        U2 halves = Mem.LoadL2Pair(ref a.Sums.Cast<uint>()[2 * expert]);
        long sum = ((long)halves.Y << 32) | halves.X;
        return (float)sum * TileLinear.RouterUnit;
    }
}
