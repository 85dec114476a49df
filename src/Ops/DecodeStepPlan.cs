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

    // More hold no more than a layer's share of any block.
    private const int MostSlots = 24;

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
        // A unit of gate and up is two groups.
        int groups = Math.Max(Share(s.QueryKeyValueRows / Group, blocks), Math.Max(Share(s.Hidden / Group, blocks), 2 * Share(s.TopK * (s.Width / Group), blocks)));
        int rows = groups * Group;
        int columns = new[] { s.Hidden, s.AttentionWidth, s.TopK * s.Width }.Max();
        int without = Kernel.SharedBytes(0, warps, rows, columns, s.HeadDim);
        int slots = Math.Min(MostSlots, (maxShared - StaticBytes - without - 512) / DecodeStepRing.SlotBytes);
        // The share of attention's weights in a layer's slots of the published model: 5 of 11.
        int denseLeast = Math.Max(SlotsOfTile(s.Hidden), SlotsOfTile(s.AttentionWidth)), dense = Math.Max(denseLeast, slots * 5 / 11);
        if (slots - dense < Math.Max(SlotsOfTile(s.Hidden), SlotsOfTile(s.Width)))
            return null;
        return new DecodeStepPlan(blocks, warps, dense, slots - dense, rows, Kernel.SharedBytes(slots, warps, rows, columns, s.HeadDim));
    }

    // A tile's slots are multiplied together.
    private static int SlotsOfTile(int columns) => DecodeStepTile.Of(columns, DecodeStepTile.RowShiftOf(columns), true).Slots;

    private static int Share(int count, int blocks) => (count + blocks - 1) / blocks;

    private static bool Fits(in DecodeStepShape s) =>
        s.HeadDim is 64 or 128 && s.QueryHeads % s.KvHeads == 0 && s.QueryHeads / s.KvHeads <= Kernels.DecodeAttention.MostGroup
        && s.Experts <= Kernel.MostExperts && s.TopK <= Math.Min(Kernel.MostTopK, s.Experts)
        // Pairs of chunks of 64 columns; groups of eight rows.
        && Math.Max(s.Hidden, Math.Max(s.AttentionWidth, s.Width)) <= DecodeStepRing.WeightBytes
        && s.Hidden % 128 == 0 && s.AttentionWidth % 128 == 0 && s.Width % 128 == 0;
}
