using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// The k experts with the largest sums, ties to the lowest index, by a whole block: a thread an expert counts how many stand before its own. The same choice as
/// <see cref="RouterSums.Select"/>, whose rounds follow one another, in a fraction of the time: 2.7 µs for eight of 128 experts with twelve warps a multiprocessor.
/// </summary>
internal static class RoutedChoice
{
    /// <summary>Bytes of shared memory: a key an expert, the experts in the order of their sums, how many stand before each.</summary>
    public const int Bytes = ((2 * RouterSums.MostExperts) + Router.MaxTopK) * sizeof(int);

    private const int Counts = RouterSums.MostExperts + Router.MaxTopK;

    /// <summary>The whole block, at least 128 threads, chooses and may read the choice afterwards. What it wrote to shared memory before is there, too.</summary>
    public static void Make(RouterArgs a, ArrayView<int> choice, int k)
    {
        int expert = Group.IdxX;
        if (expert < RouterSums.MostExperts)
        {
            choice[expert] = Key(RouterSums.Sum(a, expert));
            choice[Counts + expert] = 0;
        }
        Group.Barrier(); // keys are there before they are compared
        Count(choice);
        Group.Barrier(); // everyone has counted
        if (expert < RouterSums.MostExperts)
        {
            int before = choice[Counts + expert];
            if (before < k)
                choice[RouterSums.MostExperts + before] = expert;
        }
        Group.Barrier(); // the choice is made before anyone reads it
    }

    // 128 threads each count among a share of the experts; integers, whose order does not matter.
    private static void Count(ArrayView<int> choice)
    {
        int expert = Group.IdxX & (RouterSums.MostExperts - 1), part = Group.IdxX / RouterSums.MostExperts, parts = Group.DimX / RouterSums.MostExperts;
        if (part >= parts)
            return;
        const int Groups = RouterSums.MostExperts / 8;
        ArrayView<uint> keys = choice.Cast<uint>();
        int own = choice[expert], before = 0, first = part * Groups / parts, end = (part + 1) * Groups / parts;
        for (int i = first; i < end; i++)
        {
            U4 four = Mem.LoadShared(ref keys[8 * i]), next = Mem.LoadShared(ref keys[(8 * i) + 4]);
            // Of equal sums the lower index stands before: among lower indices an expert stands behind its equals.
            int least = (8 * i) + 7 < expert ? own - 1 : own;
            before += Above(four.X, least) + Above(four.Y, least) + Above(four.Z, least) + Above(four.W, least);
            before += Above(next.X, least) + Above(next.Y, least) + Above(next.Z, least) + Above(next.W, least);
            if (i == expert >> 3)
                before += EqualsBefore(four, next, expert & 7, own);
        }
        Atomic.Add(ref choice[Counts + expert], before);
    }

    private static int Above(uint key, int least) => (int)key > least ? 1 : 0;

    // Among the eight of its own group.
    private static int EqualsBefore(U4 four, U4 next, int place, int own) =>
        Equal(four.X, own, place > 0) + Equal(four.Y, own, place > 1) + Equal(four.Z, own, place > 2) + Equal(four.W, own, place > 3)
        + Equal(next.X, own, place > 4) + Equal(next.Y, own, place > 5) + Equal(next.Z, own, place > 6);

    private static int Equal(uint key, int own, bool counts) => counts & (int)key == own ? 1 : 0;

    /// <summary>The expert of a pair.</summary>
    public static int Expert(ArrayView<int> choice, int pair) => choice[RouterSums.MostExperts + pair];

    /// <summary>The choice as one warp has it from <see cref="RouterSums.Select"/>.</summary>
    public static RouterChoice OfWarp(ArrayView<int> choice, int k)
    {
        int lane = Group.IdxX & 31;
        RouterChoice all = default;
        all.Sum0 = Value(choice[lane]);
        all.Sum1 = Value(choice[lane + 32]);
        all.Sum2 = Value(choice[lane + 64]);
        all.Sum3 = Value(choice[lane + 96]);
        all.ChosenExpert = Expert(choice, IntrinsicMath.Min(lane, k - 1));
        all.Chosen = Value(choice[all.ChosenExpert]);
        all.Largest = Value(choice[Expert(choice, 0)]);
        return all;
    }

    // Integers in the order of the floats; there is no NaN among them. It undoes itself.
    private static int Key(float sum)
    {
        int bits = (int)Interop.FloatAsInt(sum);
        return bits ^ ((bits >> 31) & 0x7FFFFFFF);
    }

    private static float Value(int key) => Interop.IntAsFloat((uint)(key ^ ((key >> 31) & 0x7FFFFFFF)));
}
