using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Finds where a sorted order of tokens reaches a given count or mass, without sorting: eight bits of a 64-bit key a pass,
/// from the top, through a histogram in shared memory. Keys are unique (the index is part of them), so ties have one answer;
/// counts and masses are integers, so the order in which threads add is irrelevant. Called by all threads of one block.
/// </summary>
internal struct RadixSelect
{
    public const int Bins = 256;
    public const int Groups = 16;

    /// <summary>Larger logits first, equal ones by ascending index; each token counts 1.</summary>
    public const int CountByLogit = 0;

    /// <summary>The same order; each token counts its mass.</summary>
    public const int MassByLogit = 1;

    /// <summary>Ascending index; each token counts its mass.</summary>
    public const int MassByIndex = 2;

    public ArrayView<int> Counts;
    public ArrayView<ulong> Masses;
    public ArrayView<ulong> GroupMasses;
    public ArrayView<float> Logits;
    public int Vocabulary;

    /// <summary>The largest logit.</summary>
    public float Max;

    /// <summary>Tokens with a smaller logit key are out.</summary>
    public ulong Threshold;

    /// <summary>Tokens with less mass are out; at least 1.</summary>
    public ulong Least;

    /// <summary>Key of descending logits, then ascending index. Setting the sign bit of positive numbers and inverting negative ones makes the bits of floats ascend with their value.</summary>
    public static ulong LogitKey(float logit, int index)
    {
        uint bits = Interop.FloatAsInt(logit);
        uint ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
        return ((ulong)ordered << 32) | ~(uint)index;
    }

    /// <summary>Key of ascending index.</summary>
    public static ulong IndexKey(int index) => (ulong)~(uint)index << 32;

    /// <summary>q of a token that is still in, otherwise 0.</summary>
    public readonly ulong Mass(int index)
    {
        float logit = Logits[index];
        ulong mass = FixedExp.Of(logit, Max);
        return mass >= Least && LogitKey(logit, index) >= Threshold ? mass : 0;
    }

    /// <summary>Sum of q over the tokens that are in.</summary>
    public readonly ulong Total(ArrayView<ulong> total)
    {
        if (Group.IdxX == 0)
            total[0] = 0;
        Group.Barrier(); // the zero is written before the sums
        ulong sum = 0;
        for (int i = Group.IdxX; i < Vocabulary; i += Group.DimX)
            sum += Mass(i);
        Atomic.Add(ref total[0], sum);
        Group.Barrier(); // all sums are in before the total is read
        sum = total[0];
        Group.Barrier(); // the total is read before the next one starts from zero
        return sum;
    }

    /// <summary>
    /// A key such that the tokens that are in and have at least it are the fewest that reach <paramref name="need"/> in total,
    /// or all when they do not.
    /// </summary>
    public readonly ulong Find(ulong need, int mode)
    {
        ulong prefix = 0;
        // An index key has nothing below bit 32.
        int lowest = mode == MassByIndex ? 32 : 0;
        int shift = 64;
        bool searching = true;
        while (searching)
        {
            shift -= 8;
            for (int b = Group.IdxX; b < Bins; b += Group.DimX)
            {
                Counts[b] = 0;
                Masses[b] = 0;
            }
            Group.Barrier(); // the bins are empty before they are filled
            Fill(prefix, shift, mode);
            Group.Barrier(); // the bins are full before they are added up
            for (int g = Group.IdxX; g < Groups; g += Group.DimX)
                GroupMasses[g] = SumOfGroup(g);
            Group.Barrier(); // the groups' sums are written before they are searched

            // Every thread walks down the same bins and finds the same one.
            int bin = Bins - 1;
            while (bin > 15 && GroupMasses[bin >> 4] < need)
            {
                need -= GroupMasses[bin >> 4];
                bin -= 16;
            }
            while (bin > 0 && Masses[bin] < need)
            {
                need -= Masses[bin];
                bin--;
            }
            prefix = (prefix << 8) | (uint)bin;
            searching = shift > lowest && Counts[bin] > 1 && Masses[bin] != need;
            Group.Barrier(); // the bins are searched before they are emptied again
        }
        return prefix << shift;
    }

    private readonly void Fill(ulong prefix, int shift, int mode)
    {
        // Neighbours of a thread's run often share a bin: they are added up in registers first.
        int bin = 0, count = 0;
        ulong mass = 0;
        for (int i = Group.IdxX; i < Vocabulary; i += Group.DimX)
        {
            ulong key = LogitKey(Logits[i], i);
            bool inside = key >= Threshold;
            key = mode == MassByIndex ? IndexKey(i) : key;
            // Two shifts: the first pass has no prefix, and a shift by 64 is none.
            if (inside && ((key >> shift) >> 8) == prefix)
            {
                ulong own = mode == CountByLogit ? 1 : Mass(i);
                int ownBin = (int)((key >> shift) & 0xFF);
                if (own > 0)
                {
                    if (ownBin != bin)
                    {
                        Flush(bin, count, mass);
                        bin = ownBin;
                        count = 0;
                        mass = 0;
                    }
                    count++;
                    mass += own;
                }
            }
        }
        Flush(bin, count, mass);
    }

    private readonly void Flush(int bin, int count, ulong mass)
    {
        if (count == 0)
            return;
        Atomic.Add(ref Counts[bin], count);
        Atomic.Add(ref Masses[bin], mass);
    }

    private readonly ulong SumOfGroup(int group)
    {
        ulong sum = 0;
        int first = group << 4;
        for (int b = first; b < first + Groups; b++)
            sum += Masses[b];
        return sum;
    }
}
