using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// The arg-max of a row of logits over many blocks, for tokens drawn at temperature 0 without a penalty: what <see cref="Sampler"/> gives then, which
/// needs one block to read a whole vocabulary. A logit and its index make one integer whose order is that of the logits, ties to the lowest
/// index, so the largest is found by integer maxima in any order.
/// </summary>
internal static class GreedySampler
{
    internal struct Args
    {
        /// <summary>[Vocabulary] float32.</summary>
        public ArrayView<float> Logits;

        /// <summary>[1]: the largest key so far; zero between draws.</summary>
        public ArrayView<ulong> Best;

        /// <summary>As in <see cref="Sampler.Args"/>.</summary>
        public ArrayView<byte> Seen;

        /// <summary>As in <see cref="Sampler.Args"/>.</summary>
        public ArrayView<long> Counter;

        /// <summary>As in <see cref="Sampler.Args"/>.</summary>
        public ArrayView<int> Token;
    }

    /// <summary>Any number of blocks.</summary>
    public static void RunFind(Args a)
    {
        ArrayView<float> values = SharedMemory.Allocate<float>(BlockOps.MaxWarps);
        ArrayView<int> indices = SharedMemory.Allocate<int>(BlockOps.MaxWarps);
        GridDependency.Release();
        GridDependency.Wait();
        Find(a.Logits, a.Best, values, indices);
    }

    /// <summary>The largest key of a row, over the blocks along x. All threads of the block must call.</summary>
    public static void Find(ArrayView<float> logits, ArrayView<ulong> best, ArrayView<float> values, ArrayView<int> indices)
    {
        float value = float.NegativeInfinity;
        int index = int.MaxValue;
        for (int i = (Grid.IdxX * Group.DimX) + Group.IdxX; i < logits.Length; i += Grid.DimX * Group.DimX)
        {
            float logit = logits[i];
            logit = logit > float.MaxValue ? float.MaxValue : logit;
            // NaN is not larger than anything.
            bool better = logit > value;
            value = better ? logit : value;
            index = better ? i : index;
        }
        ArgMaxResult largest = BlockOps.ArgMax(value, index, values, indices);
        if (Group.IdxX == 0 && largest.Index != int.MaxValue)
            Atomic.Max(ref best[0], Key(largest)); // integers: the order does not matter
    }

    /// <summary>One thread: the token, and what follows a draw.</summary>
    public static void RunTake(Args a)
    {
        GridDependency.Release();
        GridDependency.Wait();
        if (Grid.IdxX > 0 || Group.IdxX > 0)
            return;
        ulong best = a.Best[0];
        int token = TokenOf(best);
        a.Best[0] = 0;
        a.Token[0] = token;
        a.Seen[token] = 1;
        a.Counter[0] = a.Counter[0] + 1;
    }

    /// <summary>The token of a key. A row without a number above −∞ has no key: token 0.</summary>
    public static int TokenOf(ulong best) => best == 0 ? 0 : (int)(~(uint)(best & 0xFFFFFFFFul) & 0x7FFFFFFFu);

    // The bits of a float in the order of its value; BlockOps has made −0 of either sign the same.
    private static ulong Key(ArgMaxResult best)
    {
        uint bits = Interop.FloatAsInt(best.Value);
        uint ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
        return ((ulong)ordered << 32) | ~(uint)best.Index;
    }
}
