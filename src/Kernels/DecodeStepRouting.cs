using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// The router of <see cref="DecodeStep"/>. Logits are linear in the residual stream but for the norm's factor: each block adds what its columns give, as an integer, and
/// every block chooses from the sums.
/// </summary>
internal static class DecodeStepRouting
{
    /// <summary>A thread's eight columns of its expert's row: two threads an expert, a group of eight each. They are weights and may be asked for early.</summary>
    public static U4 Request(DecodeStepArgs a, int layer, DecodeStepShare share)
    {
        int expert = IntrinsicMath.Min(Group.IdxX >> 1, a.Experts - 1), group = IntrinsicMath.Min(share.First + (Group.IdxX & 1), (a.Hidden >> 3) - 1) - share.First;
        return Load(a, layer, share, expert, group);
    }

    private static U4 Load(DecodeStepArgs a, int layer, DecodeStepShare share, int expert, int group)
    {
        long router = a.Layers[((long)layer * (int)DecodeLayerField.Count) + (int)DecodeLayerField.Router];
        return Mem.LoadReadOnlyFrom(router + ((((long)expert * a.Hidden) + ((share.First + group) * DecodeStepRing.GroupRows)) * sizeof(ushort)));
    }

    /// <summary>Adds what the block's columns give to every expert's sum.</summary>
    public static void Add(DecodeStepArgs a, DecodeStepShared shared, int layer, DecodeStepShare share, U4 requested)
    {
        int half = Group.IdxX & 1, step = 16 * DecodeStep.Multipliers;
        for (int first = 0; first < a.Experts; first += step)
        {
            int expert = first + (Group.IdxX >> 1);
            float sum = 0;
            if (expert < a.Experts)
            {
                for (int group = half; group < share.Count; group += 2)
                {
                    U4 weights = first == 0 && group == half ? requested : Load(a, layer, share, expert, group);
                    sum = Multiply(weights, shared.Columns.SubView(group * DecodeStepRing.GroupRows, DecodeStepRing.GroupRows), sum);
                }
            }
            sum += WarpOps.ShuffleXor(sum, 1);
            if (half == 0 && expert < a.Experts)
                Atomic.Add(ref a.RouterSums[expert], (long)(sum * (1f / TileLinear.RouterUnit))); // integers: the order does not matter
        }
    }

    private static float Multiply(U4 w, ArrayView<float> columns, float sum)
    {
        sum = Fast.Fma(Bf16.High(w.X), columns[1], Fast.Fma(Bf16.Low(w.X), columns[0], sum));
        sum = Fast.Fma(Bf16.High(w.Y), columns[3], Fast.Fma(Bf16.Low(w.Y), columns[2], sum));
        sum = Fast.Fma(Bf16.High(w.Z), columns[5], Fast.Fma(Bf16.Low(w.Z), columns[4], sum));
        return Fast.Fma(Bf16.High(w.W), columns[7], Fast.Fma(Bf16.Low(w.W), columns[6], sum));
    }

    /// <summary>
    /// The k experts with the largest sums, ties to the lowest index: an expert's place is the number of those before it, so nobody waits for the choice of the one
    /// before. Tells the producer. A meeting must follow.
    /// </summary>
    public static void Choose(DecodeStepArgs a, DecodeStepShared shared)
    {
        ArrayView<uint> sums = a.RouterSums.Cast<uint>();
        int threads = 32 * DecodeStep.Multipliers;
        for (int expert = Group.IdxX; expert < DecodeStep.MostExperts; expert += threads)
        {
            float score = float.NegativeInfinity;
            if (expert < a.Experts)
            {
                U2 halves = Mem.LoadL2Pair(ref sums[2 * expert]);
                score = (float)(((long)halves.Y << 32) | halves.X) * TileLinear.RouterUnit;
            }
            shared.Scores[expert] = score;
        }
        SomeWarps.Meet(2, threads); // all scores are there before they are compared
        ArrayView<uint> words = shared.Scores.Cast<uint>();
        for (int expert = Group.IdxX; expert < a.Experts; expert += threads)
        {
            float own = shared.Scores[expert];
            int rank = 0;
            for (int other = 0; other < a.Experts; other += 4)
            {
                U4 four = Mem.LoadShared(ref words[other]);
                rank += Before(four.X, other, own, expert) + Before(four.Y, other + 1, own, expert) + Before(four.Z, other + 2, own, expert) + Before(four.W, other + 3, own, expert);
            }
            if (rank < a.TopK)
            {
                shared.Chosen[rank] = expert;
                shared.ChosenScores[rank] = own;
            }
        }
        SomeWarps.Meet(2, threads); // the choice is there before the producer hears of it
        if (Group.IdxX == 0)
            Mbarrier.Arrive(shared.Routed);
    }

    // Beyond the last expert scores are −∞, and indices are higher than any expert's.
    private static int Before(uint score, int index, float own, int expert)
    {
        float other = Interop.IntAsFloat(score);
        return other > own | (other == own & index < expert) ? 1 : 0;
    }

    /// <summary>The chosen experts' weights, by one warp, and the logits, by one block's. A meeting must follow before they are used.</summary>
    public static void Weigh(DecodeStepArgs a, DecodeStepShared shared, int layer, float factor)
    {
        int lane = Group.IdxX & 31;
        if (Group.IdxX >= 32)
            return;
        RouterArgs router = default;
        router.Normalize = a.Normalize;
        router.Logits = a.Logits.SubView((long)layer * a.Experts, a.Experts);
        RouterChoice choice = default;
        choice.Sum0 = shared.Scores[lane];
        choice.Sum1 = shared.Scores[lane + 32];
        choice.Sum2 = shared.Scores[lane + 64];
        choice.Sum3 = shared.Scores[lane + 96];
        choice.Largest = shared.ChosenScores[0];
        choice.Chosen = shared.ChosenScores[IntrinsicMath.Min(lane, a.TopK - 1)];
        float weight = RouterSums.Weight(router, choice, a.TopK, factor);
        if (lane < a.TopK)
            shared.Weights[lane] = weight;
        if (Grid.IdxX == 0)
            RouterSums.StoreLogits(router, choice, factor);
    }
}
