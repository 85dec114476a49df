using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;
using ILGPU.Algorithms;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Chooses experts: p = softmax(logits[t]) over all experts in float32, the k largest with ties to the lowest index, their p
/// (optionally divided by the sum of the chosen ones) as weights. One block a token, grid stride; k rounds of arg-max over
/// logits kept in shared memory. A thread reads and strikes out only logits that it has put there itself, so with up to a
/// few hundred experts one warp does a token without a block barrier: here a block of one, in <see cref="RouterLinear"/> one of several.
/// </summary>
/// <remarks>
/// NaN: a candidate below everything, −∞ included, with p = 0. +∞ counts as the largest finite number. Both keep the
/// rounds well-defined: each finds an index that no earlier one has found.
/// </remarks>
internal static class Router
{
    public const int MaxExperts = 4096;
    public const int MaxTopK = 32;

    internal struct Args
    {
        /// <summary>[Tokens, Experts] float32.</summary>
        public ArrayView<float> Logits;

        /// <summary>[Tokens, TopK].</summary>
        public ArrayView<int> ExpertIds;

        /// <summary>[Tokens, TopK] float32.</summary>
        public ArrayView<float> Weights;

        /// <summary>[Tokens]: negative where there is no token, which gets no expert; empty where all are there.</summary>
        public ArrayView<int> Positions;

        public int Tokens;
        public int Experts;
        public int TopK;
        public int Normalize;
    }

    public static void Run(Args a)
    {
        RouterScratch scratch = default;
        scratch.Logits = SharedMemory.Allocate<float>(MaxExperts);
        scratch.Masses = SharedMemory.Allocate<float>(MaxTopK);
        scratch.Values = SharedMemory.Allocate<float>(BlockOps.MaxWarps);
        scratch.Indices = SharedMemory.Allocate<int>(BlockOps.MaxWarps);
        GridDependency.Release();
        GridDependency.Wait();
        for (long token = Grid.IdxX; token < a.Tokens; token += Grid.DimX)
            Choose<RouterBlock>(a, token, scratch);
    }

    /// <summary>One token's choice, by the threads of a team.</summary>
    public static void Choose<TTeam>(Args a, long token, RouterScratch scratch)
        where TTeam : struct, IRouterTeam
    {
        // The same for the whole team.
        if (a.Positions.Length > 0 && a.Positions[token] < 0)
        {
            ChooseNone<TTeam>(a, token * a.TopK);
            return;
        }
        ArrayView<float> logits = scratch.Logits;
        float max = TTeam.Max(Load<TTeam>(a, token * a.Experts, logits), scratch.Values), sum = 0;
        for (int e = TTeam.Thread; e < a.Experts; e += TTeam.Threads)
            sum += Mass(logits[e], max);
        sum = TTeam.Sum(sum, scratch.Values);

        long first = token * a.TopK;
        float chosen = 0;
        for (int j = 0; j < a.TopK; j++)
        {
            ArgMaxResult best = TakeBest<TTeam>(a.Experts, scratch);
            float mass = Mass(best.Value, max);
            chosen += mass;
            if (TTeam.Thread == 0)
            {
                a.ExpertIds[first + j] = best.Index;
                scratch.Masses[j] = mass;
            }
        }
        float total = a.Normalize != 0 ? chosen : sum;
        if (TTeam.Thread == 0)
        {
            // Nothing but NaN and −∞: no expert has mass.
            for (int j = 0; j < a.TopK; j++)
                a.Weights[first + j] = total > 0 ? scratch.Masses[j] / total : 0;
        }
    }

    private static void ChooseNone<TTeam>(Args a, long first)
        where TTeam : struct, IRouterTeam
    {
        for (int j = TTeam.Thread; j < a.TopK; j += TTeam.Threads)
        {
            a.ExpertIds[first + j] = -1;
            a.Weights[first + j] = 0;
        }
    }

    // e^(l − max); 0 for −∞ and NaN, which stand in shared memory as numbers no larger than the least finite one.
    private static float Mass(float logit, float max) => logit <= -float.MaxValue ? 0 : XMath.Exp(logit - max);

    /// <summary>Copies this thread's logits to shared memory: NaN → −∞, −∞ → least finite, +∞ → largest finite. Returns their maximum.</summary>
    private static float Load<TTeam>(Args a, long first, ArrayView<float> logits)
        where TTeam : struct, IRouterTeam
    {
        // Past L1: blocks of the same launch may have written them. Four at a time: one after the other each would wait for the memory.
        ArrayView<uint> words = a.Logits.Cast<uint>();
        float max = float.NegativeInfinity;
        int step = TTeam.Threads, last = a.Experts - 1;
        for (int e = TTeam.Thread; e < a.Experts; e += 4 * step)
        {
            uint word0 = Mem.LoadL2Word(ref words[first + e]), word1 = Mem.LoadL2Word(ref words[first + IntrinsicMath.Min(e + step, last)]);
            uint word2 = Mem.LoadL2Word(ref words[first + IntrinsicMath.Min(e + (2 * step), last)]), word3 = Mem.LoadL2Word(ref words[first + IntrinsicMath.Min(e + (3 * step), last)]);
            max = Keep(logits, e, last, word0, max);
            max = Keep(logits, e + step, last, word1, max);
            max = Keep(logits, e + (2 * step), last, word2, max);
            max = Keep(logits, e + (3 * step), last, word3, max);
        }
        return max;
    }

    private static float Keep(ArrayView<float> logits, int expert, int last, uint word, float max)
    {
        if (expert > last)
            return max;
        float logit = Interop.IntAsFloat(word);
        logit = logit < -float.MaxValue ? -float.MaxValue : logit > float.MaxValue ? float.MaxValue : logit;
        logit = float.IsNaN(logit) ? float.NegativeInfinity : logit;
        logits[expert] = logit;
        return logit > max ? logit : max;
    }

    // The largest logit that is left, struck out by the one thread that reads its entry; a round always finds one, since TopK ≤ Experts.
    private static ArgMaxResult TakeBest<TTeam>(int experts, RouterScratch scratch)
        where TTeam : struct, IRouterTeam
    {
        float value = float.NegativeInfinity;
        int index = int.MaxValue;
        for (int e = TTeam.Thread; e < experts; e += TTeam.Threads)
        {
            float logit = scratch.Logits[e];
            bool better = logit > value || (index == int.MaxValue && !float.IsNaN(logit)); // NaN: struck out
            value = better ? logit : value;
            index = better ? e : index;
        }
        ArgMaxResult best = TTeam.ArgMax(value, index, scratch.Values, scratch.Indices);
        if (index == best.Index)
            scratch.Logits[index] = float.NaN;
        return best;
    }
}
