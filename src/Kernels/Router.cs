using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;
using ILGPU.Algorithms;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Chooses experts: p = softmax(logits[t]) over all experts in float32, the k largest with ties to the lowest index, their p
/// (optionally divided by the sum of the chosen ones) as weights. One block a token, grid stride; k rounds of arg-max over
/// logits kept in shared memory. A thread reads and strikes out only logits that it has put there itself, so with up to a
/// few hundred experts one warp does a token without a block barrier.
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
        ArrayView<float> logits = SharedMemory.Allocate<float>(MaxExperts);
        ArrayView<float> scratch = SharedMemory.Allocate<float>(BlockOps.MaxWarps);
        ArrayView<int> indices = SharedMemory.Allocate<int>(BlockOps.MaxWarps);
        GridDependency.Release();
        GridDependency.Wait();
        for (long token = Grid.IdxX; token < a.Tokens; token += Grid.DimX)
        {
            // The same for the whole block.
            if (a.Positions.Length > 0 && a.Positions[token] < 0)
            {
                ChooseNone(a, token * a.TopK);
                continue;
            }
            float max = Load(a, token * a.Experts, logits);
            max = BlockOps.Max(max, scratch);
            float sum = 0;
            for (int e = Group.IdxX; e < a.Experts; e += Group.DimX)
                sum += Mass(logits[e], max);
            sum = BlockOps.Sum(sum, scratch);

            long first = token * a.TopK;
            float chosen = 0;
            for (int j = 0; j < a.TopK; j++)
            {
                ArgMaxResult best = Best(a.Experts, logits, scratch, indices);
                float mass = Mass(best.Value, max);
                chosen += mass;
                // Struck out by the one thread that reads this entry; a round always finds an index, since TopK ≤ Experts.
                for (int e = Group.IdxX; e < a.Experts; e += Group.DimX)
                    logits[e] = e == best.Index ? float.NaN : logits[e];
                if (Group.IdxX == 0)
                {
                    a.ExpertIds[first + j] = best.Index;
                    a.Weights[first + j] = mass;
                }
            }
            float total = a.Normalize != 0 ? chosen : sum;
            if (Group.IdxX == 0)
            {
                // Nothing but NaN and −∞: no expert has mass.
                for (int j = 0; j < a.TopK; j++)
                    a.Weights[first + j] = total > 0 ? a.Weights[first + j] / total : 0;
            }
        }
    }

    private static void ChooseNone(Args a, long first)
    {
        for (int j = Group.IdxX; j < a.TopK; j += Group.DimX)
        {
            a.ExpertIds[first + j] = -1;
            a.Weights[first + j] = 0;
        }
    }

    // e^(l − max); 0 for −∞ and NaN, which stand in shared memory as numbers no larger than the least finite one.
    private static float Mass(float logit, float max) => logit <= -float.MaxValue ? 0 : XMath.Exp(logit - max);

    /// <summary>Copies this thread's logits to shared memory: NaN → −∞, −∞ → least finite, +∞ → largest finite. Returns their maximum.</summary>
    private static float Load(Args a, long first, ArrayView<float> logits)
    {
        float max = float.NegativeInfinity;
        for (int e = Group.IdxX; e < a.Experts; e += Group.DimX)
        {
            float logit = a.Logits[first + e];
            logit = logit < -float.MaxValue ? -float.MaxValue : logit > float.MaxValue ? float.MaxValue : logit;
            logit = float.IsNaN(logit) ? float.NegativeInfinity : logit;
            logits[e] = logit;
            max = logit > max ? logit : max;
        }
        return max;
    }

    private static ArgMaxResult Best(int experts, ArrayView<float> logits, ArrayView<float> scratch, ArrayView<int> indices)
    {
        float value = float.NegativeInfinity;
        int index = int.MaxValue;
        for (int e = Group.IdxX; e < experts; e += Group.DimX)
        {
            float logit = logits[e];
            bool better = logit > value || (index == int.MaxValue && !float.IsNaN(logit)); // NaN: struck out
            value = better ? logit : value;
            index = better ? e : index;
        }
        return BlockOps.ArgMax(value, index, scratch, indices);
    }
}
