using GpuKit.Ilgpu.Kernels.Isa;
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

    /// <summary>Room for one index a token.</summary>
    public ArrayView<int> Candidates;

    /// <summary>How many tokens are looked at: the first Count candidates when Listed is 1, the tokens 0..Count − 1 when it is 0.</summary>
    public int Count;
    public int Listed;

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
    public readonly ulong Mass(float logit, int index)
    {
        if (LogitKey(logit, index) < Threshold)
            return 0;
        ulong mass = FixedExp.Of(logit, Max);
        return mass >= Least ? mass : 0;
    }

    /// <summary>The token in a slot 0..Count − 1.</summary>
    public readonly int IndexAt(int slot) => Listed != 0 ? Candidates[slot] : slot;

    /// <summary>
    /// Lists the tokens that are in: after a cut they are few, and every later pass is short. In no particular order, which
    /// nothing depends on. Only once: a second list would overwrite what other threads still read.
    /// </summary>
    public readonly RadixSelect Compacted(ArrayView<int> count)
    {
        if (Group.IdxX == 0)
            count[0] = 0;
        Block.Barrier(); // the zero is written before the first candidate takes its place
        for (int i = Group.IdxX; i < Count; i += Group.DimX)
        {
            if (Mass(Logits[i], i) > 0)
                Candidates[Atomic.Add(ref count[0], 1)] = i;
        }
        Block.Barrier(); // the list is complete before any thread reads it
        RadixSelect few = this;
        few.Listed = 1;
        few.Count = count[0];
        return few;
    }

    /// <summary>Sum of q over the tokens that are in.</summary>
    public readonly ulong Total(ArrayView<ulong> total)
    {
        if (Group.IdxX == 0)
            total[0] = 0;
        Block.Barrier(); // the zero is written before the sums
        ulong sum = 0;
        for (int slot = Group.IdxX; slot < Count; slot += Group.DimX)
        {
            int i = IndexAt(slot);
            sum += Mass(Logits[i], i);
        }
        Atomic.Add(ref total[0], sum);
        Block.Barrier(); // all sums are in before the total is read
        sum = total[0];
        Block.Barrier(); // the total is read before the next one starts from zero
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
            Block.Barrier(); // the bins are empty before they are filled
            Fill(prefix, shift, mode);
            Block.Barrier(); // the bins are full before they are added up
            for (int g = Group.IdxX; g < Groups; g += Group.DimX)
                GroupMasses[g] = SumOfGroup(g);
            Block.Barrier(); // the groups' sums are written before they are searched

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
            Block.Barrier(); // the bins are searched before they are emptied again
        }
        return prefix << shift;
    }

    private readonly void Fill(ulong prefix, int shift, int mode)
    {
        var run = new Run { Prefix = prefix, Shift = shift, Mode = mode };
        int last = Count - 1;
        for (int slot = Group.IdxX; slot < Count; slot += Group.DimX << 2)
        {
            // Four loads in flight: one block has only its own threads to hide the latency behind.
            int second = slot + Group.DimX, third = second + Group.DimX, fourth = third + Group.DimX;
            int i0 = IndexAt(slot), i1 = IndexAt(second < last ? second : last);
            int i2 = IndexAt(third < last ? third : last), i3 = IndexAt(fourth < last ? fourth : last);
            float l0 = Logits[i0], l1 = Logits[i1], l2 = Logits[i2], l3 = Logits[i3];
            run = Add(run, l0, i0);
            if (second <= last)
                run = Add(run, l1, i1);
            if (third <= last)
                run = Add(run, l2, i2);
            if (fourth <= last)
                run = Add(run, l3, i3);
        }
        Flush(run);
    }

    /// <summary>What a thread has added up for one bin: consecutive tokens of a thread often share it.</summary>
    private struct Run
    {
        public ulong Prefix, Mass;
        public int Shift, Mode, Bin, Count;
    }

    private readonly Run Add(Run run, float logit, int index)
    {
        ulong key = LogitKey(logit, index);
        bool inside = key >= Threshold;
        key = run.Mode == MassByIndex ? IndexKey(index) : key;
        // Two shifts: the first pass has no prefix, and a shift by 64 is none.
        if (!inside || ((key >> run.Shift) >> 8) != run.Prefix)
            return run;
        ulong mass = run.Mode == CountByLogit ? 1 : Mass(logit, index);
        if (mass == 0)
            return run;
        int bin = (int)((key >> run.Shift) & 0xFF);
        if (bin != run.Bin)
        {
            Flush(run);
            run.Bin = bin;
            run.Count = 0;
            run.Mass = 0;
        }
        run.Count++;
        run.Mass += mass;
        return run;
    }

    private readonly void Flush(Run run)
    {
        if (run.Count == 0)
            return;
        Atomic.Add(ref Counts[run.Bin], run.Count);
        Atomic.Add(ref Masses[run.Bin], run.Mass);
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
