using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;
using ILGPU.Algorithms;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Router and choice of <see cref="HopperExperts"/>: an expert's logit a block, then the choice of all by one warp of each.</summary>
internal static class HopperExpertRouting
{
    private const float Limit = 2147483648f;

    // Columns of a thread of the block.
    private const int ThreadBytes = 8;

    /// <summary>A thread's weights of the block's expert. Blocks beyond the last expert have none, and repeat it.</summary>
    public static U2 LoadRow(HopperExpertsArgs a) => LoadRow(a, IntrinsicMath.Min(Grid.IdxX, a.ExpertCount - 1), Group.IdxX);

    private static U2 LoadRow(HopperExpertsArgs a, int expert, int thread) => Mem.LoadRelaxed2From(a.Router + ((long)expert * HopperExperts.Hidden * sizeof(ushort)) + (thread * ThreadBytes));

    /// <summary>A warp's part of a logit: 128 columns, four a lane. In all lanes.</summary>
    public static float Dot(HopperExpertsArgs a, U2 row, int thread)
    {
        U2 x = Mem.LoadRelaxed2From(a.X + (thread * ThreadBytes));
        float sum = Fast.Fma(Bf16.High(row.X), Bf16.High(x.X), Bf16.Low(row.X) * Bf16.Low(x.X));
        return WarpOps.Sum(Fast.Fma(Bf16.High(row.Y), Bf16.High(x.Y), Fast.Fma(Bf16.Low(row.Y), Bf16.Low(x.Y), sum)));
    }

    /// <summary>Posts the block's logit, waits for all and finds the chosen up to one rank: the block's own tiles need no others. By the first warp.</summary>
    public static RouterRanks Choose(HopperExpertsArgs a, HopperExpertBlock block, int last)
    {
        if (Grid.IdxX < a.ExpertCount)
            Post(a, block, Grid.IdxX, block.Parts[block.Lane & (HopperExperts.Warps - 1)]);
        RouterChoice logits = Await(a, block);
        block.Logits[block.Lane] = logits.Sum0;
        block.Logits[block.Lane + 32] = logits.Sum1;
        block.Logits[block.Lane + 64] = logits.Sum2;
        block.Logits[block.Lane + 96] = logits.Sum3;
        RouterRanks ranks = RouterRanks.Of(logits);
        for (int rank = 0; rank <= last; rank++)
            ranks.Take(block.Experts, block.Sums, rank);
        return ranks;
    }

    /// <summary>The others, while the first tiles are on their way.</summary>
    public static void ChooseRest(HopperExpertsArgs a, HopperExpertBlock block, RouterRanks ranks, int first)
    {
        for (int rank = first; rank < a.TopK; rank++)
            ranks.Take(block.Experts, block.Sums, rank);
    }

    // A logit from its 16 parts, one a lane and again: within what sums can hold, no NaN, which would be larger than all, and not zero.
    private static void Post(HopperExpertsArgs a, HopperExpertBlock block, int expert, float part)
    {
        part += WarpOps.ShuffleXor(part, 1);
        part += WarpOps.ShuffleXor(part, 2);
        part += WarpOps.ShuffleXor(part, 4);
        part += WarpOps.ShuffleXor(part, 8);
        float logit = part >= -Limit ? IntrinsicMath.Min(part, Limit) : -Limit;
        if (block.Lane < HopperExpertState.Copies)
            Mem.StoreRelaxedTo(HopperExpertState.Logits(a, block.Set) + (((block.Lane * HopperExpertState.MostExperts) + expert) * sizeof(uint)), Interop.FloatAsInt(logit) | 1);
    }

    private static RouterChoice Await(HopperExpertsArgs a, HopperExpertBlock block)
    {
        long words = HopperExpertState.Logits(a, block.Set) + ((((Grid.IdxX & (HopperExpertState.Copies - 1)) * HopperExpertState.MostExperts) + block.Lane) * sizeof(uint));
        for (int i = 0; i < a.Patience; i++)
        {
            RouterChoice logits = Load(a, block, words);
            if (WarpOps.Any(IsMissing(logits) ? 1u : 0u) == 0)
                return logits;
        }
        for (int expert = 0; expert < a.ExpertCount; expert++)
            PostMissing(a, block, expert);
        // This warp's own stores.
        WarpOps.Barrier();
        return Load(a, block, words);
    }

    // What another block would post: the same parts in the same order.
    private static void PostMissing(HopperExpertsArgs a, HopperExpertBlock block, int expert)
    {
        long word = HopperExpertState.Logits(a, block.Set) + ((((Grid.IdxX & (HopperExpertState.Copies - 1)) * HopperExpertState.MostExperts) + expert) * sizeof(uint));
        if (WarpOps.Any(Mem.LoadRelaxedFrom(word) == 0 ? 1u : 0u) == 0)
            return;
        float own = 0;
        for (int warp = 0; warp < HopperExperts.Warps; warp++)
        {
            int thread = (warp * 32) + block.Lane;
            float part = Dot(a, LoadRow(a, expert, thread), thread);
            own = (block.Lane & (HopperExperts.Warps - 1)) == warp ? part : own;
        }
        Post(a, block, expert, own);
    }

    private static RouterChoice Load(HopperExpertsArgs a, HopperExpertBlock block, long words)
    {
        RouterChoice logits = default;
        logits.Sum0 = Load(a, block.Lane, words);
        logits.Sum1 = Load(a, block.Lane + 32, words + (32 * sizeof(uint)));
        logits.Sum2 = Load(a, block.Lane + 64, words + (64 * sizeof(uint)));
        logits.Sum3 = Load(a, block.Lane + 96, words + (96 * sizeof(uint)));
        return logits;
    }

    // Beyond the last expert −∞; the word is there, so that no branch stands between the loads.
    private static float Load(HopperExpertsArgs a, int expert, long word)
    {
        uint loaded = Mem.LoadRelaxedFrom(word);
        return Interop.IntAsFloat(expert < a.ExpertCount ? loaded : 0xFF800000u);
    }

    private static bool IsMissing(RouterChoice logits) =>
        Interop.FloatAsInt(logits.Sum0) == 0 | Interop.FloatAsInt(logits.Sum1) == 0 | Interop.FloatAsInt(logits.Sum2) == 0 | Interop.FloatAsInt(logits.Sum3) == 0;

    /// <summary>The pairs' weights for the block; the first writes the routing. By the first warp, when all are chosen.</summary>
    public static void Finish(HopperExpertsArgs a, HopperExpertBlock block)
    {
        int lane = block.Lane;
        RouterChoice choice = default;
        choice.Sum0 = block.Logits[lane];
        choice.Sum1 = block.Logits[lane + 32];
        choice.Sum2 = block.Logits[lane + 64];
        choice.Sum3 = block.Logits[lane + 96];
        choice.Chosen = block.Sums[IntrinsicMath.Min(lane, a.TopK - 1)];
        choice.Largest = block.Sums[0];
        float weight = RouterSums.Weight(a.Normalize, choice, a.TopK, 1f);
        if (lane < a.TopK)
            block.Weights[lane] = weight;
        if (Grid.IdxX != 0)
            return;
        Store(a, lane, choice.Sum0);
        Store(a, lane + 32, choice.Sum1);
        Store(a, lane + 64, choice.Sum2);
        Store(a, lane + 96, choice.Sum3);
        if (lane < a.TopK)
        {
            Mem.StoreRelaxedTo(a.ChosenExperts + (lane * sizeof(int)), (uint)block.Experts[lane]);
            Mem.StoreRelaxedTo(a.PairWeights + (lane * sizeof(float)), Interop.FloatAsInt(weight));
        }
    }

    private static void Store(HopperExpertsArgs a, int expert, float logit)
    {
        if (expert < a.ExpertCount)
            Mem.StoreRelaxedTo(a.Logits + (expert * sizeof(float)), Interop.FloatAsInt(logit));
    }
}
