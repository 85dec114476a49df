using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>One token's experts in the order in which they were chosen, and their weights: in shared memory.</summary>
internal struct ExpertTable
{
    /// <summary>[TopK] ids.</summary>
    public ArrayView<int> Experts;

    /// <summary>[TopK].</summary>
    public ArrayView<float> Weights;

    /// <summary>Ids as the launch before announces them. Called by the whole block, which may use them afterwards.</summary>
    public readonly void Await(ExpertArgs a)
    {
        if (Group.IdxX < 32)
        {
            int expert = RouterSums.Await(a.Router, a.TopK);
            if (Group.IdxX < a.TopK)
                Experts[Group.IdxX] = expert;
        }
        Block.Barrier(); // the table is complete before it is read
    }

    /// <summary>The weight of a thread's pair, after waiting: the launch before makes it. Requested before it is needed, to be waited for together with the rows.</summary>
    public readonly uint RequestWeight(ExpertArgs a) => Group.IdxX < a.TopK ? Mem.LoadL2Word(ref a.PairWeights.Cast<uint>()[Group.IdxX]) : 0;

    /// <summary>All weights, one a thread.</summary>
    public readonly void StoreWeights(ExpertArgs a, uint weight)
    {
        if (Group.IdxX < a.TopK)
            Weights[Group.IdxX] = Interop.IntAsFloat(weight);
    }
}
