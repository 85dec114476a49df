using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>The experts that a batch's tokens chose, in ascending order, and whose they are; on the device.</summary>
internal struct ExpertListing
{
    /// <summary>[Ranks, 2] an expert and how many tokens chose it; 0 tokens past the last.</summary>
    public ArrayView<int> Heads;

    /// <summary>[Ranks, Tokens] in the order of tokens: the token above the low 16 bits, its pair in them.</summary>
    public ArrayView<int> Members;

    public int Ranks;
    public int Tokens;

    /// <summary>An expert and its number of tokens. Read past L1: the list may be younger than the kernel that reads it.</summary>
    public readonly U2 Head(int rank) => Mem.LoadL2Pair(ref Heads.Cast<uint>()[2L * rank]);

    /// <summary>A member, which means something only where the expert has so many. It needs no head, so that both are on their way together.</summary>
    public readonly int Member(int rank, int place) => (int)Mem.LoadL2Word(ref Members.Cast<uint>()[((long)rank * Tokens) + IntrinsicMath.Min(place, Tokens - 1)]);

    public static int TokenOf(int member) => member >> 16;

    public static int PairOf(int member) => member & 0xFFFF;
}

/// <summary>Shared memory of the block that makes the list.</summary>
internal struct ExpertListScratch
{
    /// <summary>[pairs] ids, −1 where there is no such expert.</summary>
    public ArrayView<int> Ids;

    /// <summary>[experts, Words] a bit a token.</summary>
    public ArrayView<int> Masks;

    /// <summary>[⌈experts / 32⌉] a bit an expert that is chosen.</summary>
    public ArrayView<int> Chosen;

    /// <summary>Words of a mask: 1 for up to 32 tokens, or 2.</summary>
    public int Words;
}

/// <summary>Arguments of the launch that makes the list of a routing.</summary>
internal struct ExpertListArgs
{
    /// <summary>[Tokens, TopK]; of a token's ids that exist no two are the same.</summary>
    public ArrayView<int> Experts;

    public ExpertListing List;
    public int TopK;
    public int ExpertCount;
}

/// <summary>
/// The list of the chosen experts, made by one block: a bit a token in each expert's mask, a bit an expert; where something stands is then a count of bits. The bits do not
/// depend on the order in which they are set, so the list is the same every time.
/// </summary>
internal static class ExpertList
{
    public const int MostTokens = 64, MostExperts = 512, MostThreads = 512;

    public static void Run(ExpertListArgs a)
    {
        ExpertListScratch scratch = default;
        scratch.Ids = SharedMemory.Allocate<int>(MostTokens * Router.MaxTopK);
        scratch.Masks = SharedMemory.Allocate<int>(2 * MostExperts);
        scratch.Chosen = SharedMemory.Allocate<int>(MostExperts / 32);
        scratch.Words = a.List.Tokens > 32 ? 2 : 1;
        GridDependency.Release();
        Clear(scratch, a.ExpertCount);
        GridDependency.Wait();
        Block.Barrier(); // there are no bits before any is set
        ArrayView<uint> experts = a.Experts.Cast<uint>();
        for (int p = Group.IdxX; p < a.List.Tokens * a.TopK; p += Group.DimX)
            Note(scratch, p / a.TopK, p, (int)Mem.LoadL2Word(ref experts[p]), a.ExpertCount);
        Block.Barrier(); // all bits are set before they are counted
        Store(a.List, scratch, a.TopK, a.ExpertCount);
    }

    /// <summary>Takes all bits away; a barrier must follow.</summary>
    public static void Clear(ExpertListScratch scratch, int experts)
    {
        for (int i = Group.IdxX; i < experts * scratch.Words; i += Group.DimX)
            scratch.Masks[i] = 0;
        for (int i = Group.IdxX; i < (experts + 31) >> 5; i += Group.DimX)
            scratch.Chosen[i] = 0;
    }

    /// <summary>One pair; after all of them a barrier must follow.</summary>
    public static void Note(ExpertListScratch scratch, int token, int pair, int expert, int experts)
    {
        bool exists = expert >= 0 & expert < experts;
        scratch.Ids[pair] = exists ? expert : -1;
        if (!exists)
            return;
        Atomic.Or(ref scratch.Masks[(expert * scratch.Words) + (token >> 5)], 1 << (token & 31));
        Atomic.Or(ref scratch.Chosen[expert >> 5], 1 << (expert & 31));
    }

    /// <summary>Writes the list, by the whole block.</summary>
    public static void Store(ExpertListing list, ExpertListScratch scratch, int topK, int experts)
    {
        for (int p = Group.IdxX; p < list.Tokens * topK; p += Group.DimX)
        {
            int expert = scratch.Ids[p];
            if (expert < 0)
                continue;
            int token = p / topK, word = token >> 5, mask = scratch.Masks[(expert * scratch.Words) + word];
            int before = Below(mask, token & 31), count = Bits.PopCount((uint)mask);
            if (scratch.Words == 2)
            {
                int others = Bits.PopCount((uint)scratch.Masks[(expert * 2) + 1 - word]);
                before += word == 1 ? others : 0;
                count += others;
            }
            int rank = Rank(scratch, expert);
            list.Members[((long)rank * list.Tokens) + before] = (token << 16) | p;
            if (before != 0)
                continue;
            list.Heads[2L * rank] = expert;
            list.Heads[(2L * rank) + 1] = count;
        }
        for (int rank = Rank(scratch, experts) + Group.IdxX; rank < list.Ranks; rank += Group.DimX)
        {
            list.Heads[2L * rank] = 0;
            list.Heads[(2L * rank) + 1] = 0;
        }
    }

    // How many experts before one are chosen.
    private static int Rank(ExpertListScratch scratch, int expert)
    {
        int rank = 0;
        for (int i = 0; i < expert >> 5; i++)
            rank += Bits.PopCount((uint)scratch.Chosen[i]);
        return (expert & 31) == 0 ? rank : rank + Below(scratch.Chosen[expert >> 5], expert & 31);
    }

    private static int Below(int bits, int place) => Bits.PopCount((uint)(bits & ((1 << place) - 1)));
}
