using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>A lane's four sums in descending order, ties to the lower index: keys of the order of floats, and which of the four they are, two bits each from the lowest. Together the lanes of a warp find the largest of all, one after the other.</summary>
internal struct RouterRanks
{
    public uint Key0, Key1, Key2, Key3;
    public uint Places;

    /// <summary>Of the sums of the experts j, 32 + j, 64 + j and 96 + j in lane j.</summary>
    public static RouterRanks Of(RouterChoice choice)
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

    /// <summary>The place of a lane's first expert, counted from the last: of equal keys the lowest index wins.</summary>
    public readonly uint Place(int lane) => (uint)(RouterSums.MostExperts - lane) - (32 * (Places & 3));

    /// <summary>Goes on to the lane's next where its first is taken.</summary>
    public void Pop(bool taken)
    {
        Key0 = taken ? Key1 : Key0;
        Key1 = taken ? Key2 : Key1;
        Key2 = taken ? Key3 : Key2;
        Key3 = taken ? 0 : Key3;
        Places = taken ? Places >> 2 : Places;
    }

    /// <summary>One round: the lane that has the next expert writes it and its sum down. By a whole warp, ranks in turn from 0.</summary>
    public void Take(ArrayView<int> experts, ArrayView<float> sums, int rank)
    {
        int lane = Group.IdxX & 31;
        uint largest = WarpOps.MaxUInt(Key0), holders = WarpOps.Ballot(Key0 == largest ? 1u : 0u);
        bool own = Key0 == largest;
        // A second reduction, which needs the first, only where several lanes have the largest.
        if ((holders & (holders - 1)) != 0)
        {
            uint place = Place(lane), first = WarpOps.MaxUInt(own ? place : 0);
            own &= place == first;
        }
        if (own)
        {
            experts[rank] = RouterSums.MostExperts - (int)Place(lane);
            sums[rank] = Value(largest);
        }
        Pop(own);
    }

    /// <summary>The sum of a key.</summary>
    public static float Value(uint key) => Interop.IntAsFloat(key ^ ((uint)((int)~key >> 31) | 0x80000000u));

    // Unsigned numbers in the order of floats: sums are no NaN and no −0, and no key is 0.
    private static uint Key(float sum)
    {
        uint bits = Interop.FloatAsInt(sum);
        return bits ^ ((uint)((int)bits >> 31) | 0x80000000u);
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
}
