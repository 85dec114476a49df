using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>The experts that a batch chose, in ascending order, and whose they are: in shared memory.</summary>
internal struct ExpertTable
{
    /// <summary>[Count] ids.</summary>
    public ArrayView<int> Experts;

    /// <summary>[pairs].</summary>
    public ArrayView<float> Weights;

    /// <summary>[pairs] as routed; −1 for an expert that does not exist.</summary>
    public ArrayView<int> Ids;

    /// <summary>[pairs] the id where no earlier pair has it, else more than any.</summary>
    public ArrayView<int> Firsts;

    /// <summary>[Count, tokens] the pair, or −1.</summary>
    public ArrayView<int> Pairs;

    /// <summary>[1].</summary>
    public ArrayView<int> Count;

    /// <summary>The pair of a token with an expert, or −1.</summary>
    public readonly int PairOf(ExpertArgs a, int rank, int token) => token < a.Tokens ? Pairs[(rank * a.Tokens) + token] : -1;

    /// <summary>The expert of a rank; past the last one the last one, without any the first of the stack.</summary>
    public readonly int ExpertOf(int rank)
    {
        int last = Count[0] - 1;
        return last < 0 ? 0 : Experts[IntrinsicMath.Min(rank, last)];
    }

    /// <summary>The table of one token in the order in which the launch before announces its experts. Called by the whole block, which may use it afterwards.</summary>
    public readonly void Await(ExpertArgs a)
    {
        if (Group.IdxX < 32)
        {
            int expert = RouterSums.Await(a.Router, a.TopK);
            if (Group.IdxX < a.TopK)
            {
                Experts[Group.IdxX] = expert;
                Pairs[Group.IdxX] = Group.IdxX;
            }
            if (Group.IdxX == 0)
                Count[0] = a.TopK;
        }
        Group.Barrier(); // the table is complete before it is read
    }

    /// <summary>Called by the whole block, which may use it afterwards.</summary>
    public readonly void Fill(ExpertArgs a)
    {
        int pairs = a.Tokens * a.TopK;
        if (Group.IdxX == 0)
            Count[0] = 0;
        ArrayView<uint> experts = a.Experts.Cast<uint>();
        for (int p = Group.IdxX; p < pairs; p += Group.DimX)
        {
            int id = (int)Mem.LoadL2Word(ref experts[p]);
            Ids[p] = id >= 0 && id < a.ExpertCount ? id : -1;
        }
        for (int i = Group.IdxX; i < pairs * a.Tokens; i += Group.DimX)
            Pairs[i] = -1;
        Group.Barrier(); // ids are there before they are compared, the table is empty before it is filled
        for (int p = Group.IdxX; p < pairs; p += Group.DimX)
            Firsts[p] = Ids[p] >= 0 && IsFirst(p) ? Ids[p] : int.MaxValue;
        Group.Barrier(); // first occurrences are known before they are counted
        for (int p = Group.IdxX; p < pairs; p += Group.DimX)
        {
            int id = Ids[p];
            if (id < 0)
                continue;
            int rank = 0;
            for (int q = 0; q < pairs; q++)
                rank += Firsts[q] < id ? 1 : 0;
            Experts[rank] = id; // every pair of an expert writes the same
            Pairs[(rank * a.Tokens) + (p / a.TopK)] = p;
            Atomic.Max(ref Count[0], rank + 1); // integers: the order does not matter
        }
        Group.Barrier(); // the table is complete before it is read
    }

    /// <summary>The weight of a thread's first pair, after waiting: the launch before may have made it. Requested before it is needed, to be waited for together with the rows.</summary>
    public readonly uint RequestWeight(ExpertArgs a) => Group.IdxX < a.Tokens * a.TopK ? Mem.LoadL2Word(ref a.PairWeights.Cast<uint>()[Group.IdxX]) : 0;

    /// <summary>All pairs' weights, of which a thread has its first.</summary>
    public readonly void StoreWeights(ExpertArgs a, uint first)
    {
        int pairs = a.Tokens * a.TopK;
        if (Group.IdxX < pairs)
            Weights[Group.IdxX] = Interop.IntAsFloat(first);
        for (int p = Group.IdxX + Group.DimX; p < pairs; p += Group.DimX)
            Weights[p] = Interop.IntAsFloat(Mem.LoadL2Word(ref a.PairWeights.Cast<uint>()[p]));
    }

    private readonly bool IsFirst(int pair)
    {
        // Without a way out of the loop, loads do not wait for each other.
        int own = Ids[pair], earlier = 0;
        for (int q = 0; q < pair; q++)
            earlier += Ids[q] == own ? 1 : 0;
        return earlier == 0;
    }
}
