using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Draws one token from a row of logits: repetition penalty → (temperature 0: arg-max) → temperature → top-k → top-p → min-p →
/// multinomial. One block for the row. Everything after the logits is the same bits on every device and for every block
/// size: probabilities are integers q_i = e^(l_i − max)·2⁴⁰ (<see cref="FixedExp"/>), so sums are exact in any order, and a
/// cut through the sorted row is found by radix selection (<see cref="RadixSelect"/>) without sorting.
/// </summary>
/// <remarks>NaN logits count as −∞ (never drawn), +∞ as the largest finite number; a row without a finite logit gives token 0.</remarks>
internal static class Sampler
{
    public const int MaxVocabulary = 1 << 22;

    internal struct Args
    {
        /// <summary>[Vocabulary] float32.</summary>
        public ArrayView<float> Logits;

        /// <summary>[Vocabulary]: 1 for tokens that the penalty applies to.</summary>
        public ArrayView<byte> Seen;

        /// <summary>[Vocabulary]: workspace, the logits after penalty and temperature.</summary>
        public ArrayView<float> Adjusted;

        /// <summary>[Vocabulary]: workspace, the tokens left after a cut.</summary>
        public ArrayView<int> Candidates;

        /// <summary>[1]: draws so far; advanced by one.</summary>
        public ArrayView<long> Counter;

        /// <summary>[1]: the token.</summary>
        public ArrayView<int> Token;

        /// <summary>[1]: negative where nothing is to be drawn; empty where something always is.</summary>
        public ArrayView<int> Position;

        public float Temperature;
        public float RepetitionPenalty;

        /// <summary>0 for all.</summary>
        public int TopK;

        /// <summary>The kept share in units of 2⁻³²; 0 for all.</summary>
        public uint TopP;

        /// <summary>Least q that is kept, at least 1.</summary>
        public ulong LeastMass;

        public ulong Seed;
    }

    public static void Run(Args a)
    {
        ArrayView<float> values = SharedMemory.Allocate<float>(BlockOps.MaxWarps);
        ArrayView<int> indices = SharedMemory.Allocate<int>(BlockOps.MaxWarps);
        ArrayView<ulong> total = SharedMemory.Allocate<ulong>(1);
        ArrayView<int> drawn = SharedMemory.Allocate<int>(1);
        // The same for the whole block.
        if (a.Position.Length > 0 && a.Position[0] < 0)
            return;
        var select = new RadixSelect
        {
            Counts = SharedMemory.Allocate<int>(RadixSelect.Bins),
            Masses = SharedMemory.Allocate<ulong>(RadixSelect.Bins),
            GroupMasses = SharedMemory.Allocate<ulong>(RadixSelect.Groups),
            Logits = a.Adjusted,
            Candidates = a.Candidates,
            Count = (int)a.Adjusted.Length,
            Least = 1,
        };
        ArgMaxResult best = Adjust(a, values, indices);
        Block.Barrier(); // the adjusted logits are written before other threads read them
        select.Max = best.Value;
        int token = best.Index;
        // Block-uniform: arguments and the reduction's result.
        if (a.Temperature > 0 && best.Value >= -float.MaxValue)
            token = Draw(a, select, total, drawn);
        if (best.Value < -float.MaxValue)
            token = 0;
        if (Group.IdxX == 0)
        {
            a.Token[0] = token;
            a.Seen[token] = 1;
            a.Counter[0] = a.Counter[0] + 1;
        }
    }

    /// <summary>Stores this thread's adjusted logits and returns the block's largest.</summary>
    private static ArgMaxResult Adjust(Args a, ArrayView<float> values, ArrayView<int> indices)
    {
        var best = new ArgMaxResult { Value = float.NegativeInfinity, Index = int.MaxValue };
        int last = (int)a.Adjusted.Length - 1;
        for (int i = Group.IdxX; i <= last; i += Group.DimX << 2)
        {
            // As in RadixSelect: four loads in flight.
            int second = i + Group.DimX, third = second + Group.DimX, fourth = third + Group.DimX;
            int i1 = second < last ? second : last, i2 = third < last ? third : last, i3 = fourth < last ? fourth : last;
            float l0 = a.Logits[i], l1 = a.Logits[i1], l2 = a.Logits[i2], l3 = a.Logits[i3];
            byte s0 = a.Seen[i], s1 = a.Seen[i1], s2 = a.Seen[i2], s3 = a.Seen[i3];
            best = Adjust(a, best, l0, s0, i);
            if (second <= last)
                best = Adjust(a, best, l1, s1, second);
            if (third <= last)
                best = Adjust(a, best, l2, s2, third);
            if (fourth <= last)
                best = Adjust(a, best, l3, s3, fourth);
        }
        return BlockOps.ArgMax(best.Value, best.Index, values, indices);
    }

    // Called with ascending indices: the first of equal logits stays.
    private static ArgMaxResult Adjust(Args a, ArgMaxResult best, float logit, byte seen, int index)
    {
        if (seen != 0)
            logit = logit > 0 ? Fast.Div(logit, a.RepetitionPenalty) : logit * a.RepetitionPenalty;
        if (a.Temperature > 0)
            logit = Fast.Div(logit, a.Temperature);
        logit = logit > float.MaxValue ? float.MaxValue : logit;
        logit = float.IsNaN(logit) ? float.NegativeInfinity : logit;
        logit = logit == 0 ? 0 : logit; // −0 and +0 tie
        a.Adjusted[index] = logit;
        if (logit > best.Value)
        {
            best.Value = logit;
            best.Index = index;
        }
        return best;
    }

    private static int Draw(Args a, RadixSelect select, ArrayView<ulong> total, ArrayView<int> drawn)
    {
        if (a.TopK > 0)
        {
            select.Threshold = select.Find((ulong)a.TopK, RadixSelect.CountByLogit);
            select = select.Compacted(drawn);
        }
        if (a.TopP > 0)
        {
            ulong kept = select.Total(total);
            ulong share = ((kept >> 32) * a.TopP) + (((kept & 0xFFFFFFFFul) * a.TopP) >> 32);
            // A cut that falls between two bins may come out as a key below the one of top-k.
            ulong cut = select.Find(share > 0 ? share : 1, RadixSelect.MassByLogit);
            select.Threshold = cut > select.Threshold ? cut : select.Threshold;
        }
        select.Least = a.LeastMass;
        if (select.Listed == 0 && (a.TopP > 0 || a.LeastMass > 1))
            select = select.Compacted(drawn);
        ulong mass = select.Total(total);
        ulong random = Philox.Next(a.Seed, (ulong)a.Counter[0]);
        ulong last = select.Find(MultiplyHigh(random, mass) + 1, RadixSelect.MassByIndex);

        // The selection ends with the tokens whose mass reaches past the draw; the last of them is the one that does.
        if (Group.IdxX == 0)
            drawn[0] = 0;
        Block.Barrier(); // the zero is written before the maxima
        int token = 0;
        for (int slot = Group.IdxX; slot < select.Count; slot += Group.DimX)
        {
            int i = select.IndexAt(slot);
            bool reaches = select.Mass(select.Logits[i], i) > 0 && RadixSelect.IndexKey(i) >= last;
            token = reaches && i > token ? i : token;
        }
        Atomic.Max(ref drawn[0], token); // integers: the order does not matter
        Block.Barrier(); // all maxima are in before the result is read; the counter is read before it is advanced
        return drawn[0];
    }

    /// <summary>⌊a·b / 2⁶⁴⌋: a draw of 64 random bits scaled to 0..b − 1.</summary>
    private static ulong MultiplyHigh(ulong a, ulong b)
    {
        ulong aLow = a & 0xFFFFFFFFul, aHigh = a >> 32, bLow = b & 0xFFFFFFFFul, bHigh = b >> 32;
        ulong middle = (aHigh * bLow) + ((aLow * bLow) >> 32);
        ulong other = (aLow * bHigh) + (middle & 0xFFFFFFFFul);
        return (aHigh * bHigh) + (middle >> 32) + (other >> 32);
    }
}
