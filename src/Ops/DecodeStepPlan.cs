using GpuKit.Ilgpu.Kernels;
using Kernel = GpuKit.Ilgpu.Kernels.DecodeStep;

namespace GpuKit.Ilgpu;

/// <summary>Extents of a Mixture-of-Experts model as <see cref="DecodeStep"/> runs it.</summary>
internal readonly record struct DecodeStepShape(int Hidden, int QueryHeads, int KvHeads, int HeadDim, int Experts, int TopK, int Width)
{
    public int AttentionWidth => QueryHeads * HeadDim;

    public int QueryKeyValueRows => (QueryHeads + (2 * KvHeads)) * HeadDim;
}

/// <summary>How all layers over one token run in one launch: a pure function of shape and device.</summary>
/// <param name="Blocks">One a multiprocessor.</param>
/// <param name="Multipliers">Warps of a block that multiply.</param>
/// <param name="DenseSlots">Slots of the ring of attention's weights.</param>
/// <param name="ExpertSlots">Slots of the ring of the experts' weights.</param>
/// <param name="MostRows">Most rows of a block in one phase.</param>
/// <param name="SharedBytes">Dynamic shared memory of a block.</param>
internal readonly record struct DecodeStepPlan(int Blocks, int Multipliers, int DenseSlots, int ExpertSlots, int MostRows, int SharedBytes)
{
    /// <summary>Most warps of a block that multiply; attention has no more.</summary>
    public const int MostMultipliers = Kernels.DecodeAttention.MostWarps;

    // What attention declares besides: heads, weights, factors (Kernels/DecodeAttention.cs, AttentionMerge.cs).
    private const int StaticBytes = 8 * 1024;

    // A pair of groups takes two slots at once; more than these hold no more than a layer's share of any block.
    private const int LeastSlots = 2, MostSlots = 24;

    // An mma's 16 rows in two groups.
    private const int Group = DecodeStepRing.GroupRows;

    public int Threads => 32 * (Multipliers + Kernel.Producers);

    /// <summary>The plan, or null where the shape or the device does not allow it.</summary>
    public static DecodeStepPlan? Choose(in DecodeStepShape s, int multiprocessors, int maxThreads, int maxShared)
    {
        int warps = Math.Min(MostMultipliers, (maxThreads / 32) - Kernel.Producers);
        if (warps < 1 || !Fits(s))
            return null;
        int blocks = multiprocessors;
        int rows = new[] { s.QueryKeyValueRows / Group, s.Hidden / Group, 2 * s.TopK * (s.Width / Group) }.Max(groups => GroupsOfBlock(groups, blocks)) * Group;
        int columns = new[] { s.Hidden, s.AttentionWidth, s.TopK * s.Width }.Max();
        int without = Kernel.SharedBytes(0, warps, rows, columns, s.HeadDim);
        int slots = Math.Min(MostSlots, (maxShared - StaticBytes - without - 512) / DecodeStepRing.SlotBytes);
        // The share of attention's weights in a layer's slots of the published model: 5 of 11.
        int dense = Math.Max(LeastSlots, slots * 5 / 11);
        if (slots - dense < LeastSlots)
            return null;
        return new DecodeStepPlan(blocks, warps, dense, slots - dense, rows, Kernel.SharedBytes(slots, warps, rows, columns, s.HeadDim));
    }

    // Gate and up are counted as pairs of groups: a share of theirs is even.
    private static int GroupsOfBlock(int groups, int blocks) => 2 * ((((groups + 1) / 2) + blocks - 1) / blocks) is int even && groups > 2 * blocks ? even : (groups + blocks - 1) / blocks;

    private static bool Fits(in DecodeStepShape s) =>
        s.HeadDim is 64 or 128 && s.QueryHeads % s.KvHeads == 0 && s.QueryHeads / s.KvHeads <= Kernels.DecodeAttention.MostGroup
        && s.Experts <= Kernel.MostExperts && s.TopK <= Math.Min(Kernel.MostTopK, s.Experts)
        // Chunks of 64 columns; groups of eight rows.
        && s.Hidden % 64 == 0 && s.AttentionWidth % 64 == 0 && s.Width % 64 == 0;
}
