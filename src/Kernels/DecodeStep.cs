using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>What a block of <see cref="DecodeStep"/> has in shared memory beside its rings.</summary>
internal struct DecodeStepShared
{
    /// <summary>Address of the inputs of a product, as the format multiplies them.</summary>
    public uint Inputs;

    /// <summary>The same as a view.</summary>
    public ArrayView<uint> InputWords;

    /// <summary>[warps, MostRows].</summary>
    public ArrayView<float> Partials;

    /// <summary>[MostRows] the warp's own.</summary>
    public ArrayView<float> OwnPartials;

    /// <summary>Sums of attention; in the place of the two above, which are not in use then.</summary>
    public ArrayView<float> Attention;

    /// <summary>[MostRows] a block's part of the residual stream times the gains before the experts.</summary>
    public ArrayView<float> Columns;

    /// <summary>[warps] sums of squares.</summary>
    public ArrayView<float> Squares;

    /// <summary>[Experts] logits before the norm's factor.</summary>
    public ArrayView<float> Scores;

    /// <summary>[TopK] each: the chosen experts, their scores, their weights.</summary>
    public ArrayView<int> Chosen;
    public ArrayView<float> ChosenScores;
    public ArrayView<float> Weights;

    /// <summary>The block's rows.</summary>
    public DecodeStepShares Shares;

    /// <summary>Barrier by which the experts' producer learns of the choice.</summary>
    public uint Routed;
}

/// <summary>
/// All layers of a Mixture-of-Experts model over one token in one launch: FP8 weights, one block a multiprocessor, all of them resident at once. The residual stream goes in and out.
/// </summary>
/// <remarks>
/// A layer has five phases: norm and query-key-value; head norms, rotary and attention; output, residual addition and router; choice, norm, gate and up; down, weighted
/// sum, residual addition. A block has the same rows of a matrix in every layer. Between phases blocks wait for each other's counts (<see cref="GridFlag"/>), and that is all that a launch
/// costs here: two warps of a block only ask for weights (<see cref="DecodeStepProducer"/>), whose rings fill while the others wait. Multiplying warps share every slot
/// (<see cref="DecodeStepProducts"/>), so a phase ends for all of them at once. Sums of a row follow the order of its columns and warps, whatever the number of blocks; the router's sums are
/// integers, so their order does not matter.
/// </remarks>
internal static class DecodeStep
{
    public const int MostExperts = RouterSums.MostExperts;

    public const int MostTopK = 32;

    /// <summary>Warps that ask for weights.</summary>
    public const int Producers = 2;

    /// <summary>Counters: one a phase, and the blocks that have ended.</summary>
    public const int Flags = 6;

    /// <summary>Clocks a layer and block: four of each phase (it comes, it has waited, it has its inputs, it has multiplied), and the end.</summary>
    public const int Stamps = 21;

    /// <summary>The products of a layer, and the counters of the blocks that have ended them.</summary>
    public const int QueryKeyValue = 0, Output = 1, GateUp = 2, Down = 3, Products = 4;

    private const int Attention = 4, Ended = 5;

    /// <summary>Where the multiplying warps meet; attention has the first point.</summary>
    public const uint MeetingPoint = 2;

    /// <summary>Warps that multiply.</summary>
    public static int Multipliers => (Group.DimX >> 5) - Producers;

    private static int MultiplyingThreads => Group.DimX - (32 * Producers);

    /// <summary>Bytes of the barriers of both rings and the one of the choice.</summary>
    private static int BarrierBytes(int slots) => (((2 * slots) + 1) * HopperGemm.BarrierBytes + 127) & ~127;

    /// <summary>Bytes beside rings and barriers for small things: columns, squares, scores, the choice.</summary>
    private static int SmallBytes(int mostRows) => (mostRows + 32 + MostExperts + (3 * MostTopK)) * sizeof(float);

    /// <summary>Dynamic shared memory of a block, in two parts: all but the slots, which are <see cref="DecodeStepRing.SlotBytes"/> each.</summary>
    public static int SharedBytes(int slots, int warps, int mostRows, int mostColumns, int headDim) =>
        (slots * DecodeStepRing.SlotBytes) + BarrierBytes(slots) + SmallBytes(mostRows) + WorkBytes(warps, mostRows, mostColumns, headDim);

    private static int WorkBytes(int warps, int mostRows, int mostColumns, int headDim) => IntrinsicMath.Max(
        (mostColumns * sizeof(ushort)) + (warps * mostRows * sizeof(float)), DecodeAttention.SharedBytes(IntrinsicMath.Min(warps, DecodeAttention.MostWarps), headDim));

    public static void Run<TFormat, THead>(DecodeStepArgs a)
        where TFormat : struct, IStreamedFormat
        where THead : struct, IHeadWidth
    {
        ArrayView<byte> bytes = SharedMemory.GetDynamic<byte>();
        uint start = SharedWindow.Open(ref bytes[0]);
        int slots = a.DenseSlots + a.ExpertSlots, ringBytes = slots * DecodeStepRing.SlotBytes, small = ringBytes + BarrierBytes(slots);
        DecodeStepRing dense = default, experts = default;
        dense.Slots = start;
        dense.Barriers = start + (uint)ringBytes;
        dense.Count = a.DenseSlots;
        experts.Slots = start + (uint)(a.DenseSlots * DecodeStepRing.SlotBytes);
        experts.Barriers = dense.Barriers + (uint)(2 * a.DenseSlots * HopperGemm.BarrierBytes);
        experts.Count = a.ExpertSlots;
        uint routed = experts.Barriers + (uint)(2 * a.ExpertSlots * HopperGemm.BarrierBytes);
        if (Group.IdxX == 0)
        {
            Initialize(dense);
            Initialize(experts);
            Mbarrier.Initialize(routed, 1);
            Mbarrier.FenceInitialized();
        }
        Group.Barrier(); // the barriers are there before anyone waits at them
        DecodeStepShared shared = Carve(a, bytes.SubView(small, bytes.Length - small), start + (uint)small);
        shared.Routed = routed;
        shared.Shares = DecodeStepShares.Of(a);
        int warp = Group.IdxX >> 5;
        if (warp == Multipliers)
            DecodeStepProducer.RunDense(a, shared.Shares, dense);
        else if (warp > Multipliers)
            DecodeStepProducer.RunExperts(a, shared.Shares, experts, shared.Chosen, routed);
        else
            RunLayers<TFormat, THead>(a, shared, dense, experts);
    }

    // A slot is full when all lanes of its producer have arrived and the bytes have; it is empty when every multiplying warp has read it.
    private static void Initialize(DecodeStepRing ring)
    {
        for (int i = 0; i < ring.Count; i++)
        {
            Mbarrier.Initialize(ring.Full, 33);
            Mbarrier.Initialize(ring.Empty, Multipliers);
            ring.Slot++;
        }
    }

    private static DecodeStepShared Carve(DecodeStepArgs a, ArrayView<byte> bytes, uint address)
    {
        ArrayView<float> floats = bytes.Cast<float>();
        DecodeStepShared shared = default;
        shared.Columns = floats.SubView(0, a.MostRows);
        shared.Squares = floats.SubView(a.MostRows, 32);
        shared.Scores = floats.SubView(a.MostRows + 32, MostExperts);
        shared.Chosen = floats.SubView(a.MostRows + 32 + MostExperts, MostTopK).Cast<int>();
        shared.ChosenScores = floats.SubView(a.MostRows + 32 + MostExperts + MostTopK, MostTopK);
        shared.Weights = floats.SubView(a.MostRows + 32 + MostExperts + (2 * MostTopK), MostTopK);
        int work = SmallBytes(a.MostRows), partials = Multipliers * a.MostRows * sizeof(float);
        ArrayView<byte> rest = bytes.SubView(work, bytes.Length - work);
        shared.Attention = rest.Cast<float>();
        shared.Inputs = address + (uint)work;
        shared.InputWords = rest.SubView(0, rest.Length - partials).Cast<uint>();
        shared.Partials = rest.SubView(rest.Length - partials, partials).Cast<float>();
        // Producers have none.
        shared.OwnPartials = shared.Partials.SubView(IntrinsicMath.Min(Group.IdxX >> 5, Multipliers - 1) * a.MostRows, a.MostRows);
        return shared;
    }

    // One loop over the products of all layers, so that there is one copy of the code that multiplies: it must stay in the instruction cache, which a copy a phase would not.
    private static void RunLayers<TFormat, THead>(DecodeStepArgs a, DecodeStepShared shared, DecodeStepRing dense, DecodeStepRing experts)
        where TFormat : struct, IStreamedFormat
        where THead : struct, IHeadWidth
    {
        for (int turn = 0; turn < a.LayerCount * Products; turn++)
        {
            int layer = turn >> 2, product = turn & 3, stamp = product == QueryKeyValue ? 0 : 4 + (4 * product);
            if (product == Output)
                Attend<THead>(a, shared, layer);
            DecodeStepAhead ahead = DecodeStepAhead.Request(a, shared.Shares, layer, product);
            Stamp(a, layer, stamp);
            Await(a, product, layer);
            Stamp(a, layer, stamp + 1);
            DecodeStepInputs.Prepare<TFormat>(a, shared, product, ahead);
            Meet(); // the inputs are there before anyone multiplies by them
            float factor = 1;
            if (product == QueryKeyValue || product == GateUp)
                factor = DecodeStepInputs.Factor(a, shared);
            if (product == GateUp)
                DecodeStepRouting.Weigh(a, shared, layer, factor);
            Stamp(a, layer, stamp + 2);
            DecodeStepRing ring = experts;
            if (product < GateUp)
                ring = dense;
            DecodeStepProducts.Run<TFormat>(ref ring, DecodeStepProduct.Of(a, shared.Shares, product), shared.Inputs, shared.Weights, a.ColumnShift, shared.OwnPartials);
            if (product < GateUp)
                dense = ring;
            else
                experts = ring;
            Meet(); // all warps' sums are there before they are added
            Stamp(a, layer, stamp + 3);
            DecodeStepOutputs.Store(a, shared, layer, product, ahead, factor);
            Meet(); // the block has written all that it counts for
            if (Group.IdxX == 0)
                GridFlag.Add(ref a.Flags[product], 1);
            if (product == Down)
                Stamp(a, layer, Stamps - 1);
        }
        if (Group.IdxX > 0 || Atomic.Add(ref a.Flags[Ended], 1) < Grid.DimX - 1)
            return;
        // The last block: nobody waits for a count.
        for (int i = 0; i < Flags; i++)
            a.Flags[i] = 0;
    }

    private static void Stamp(DecodeStepArgs a, int layer, int point)
    {
        if (a.Trace.Length > 0 && Group.IdxX == 0)
            a.Trace[(((long)layer * Grid.DimX) + Grid.IdxX) * Stamps + point] = Clock.Now();
    }

    private static void Meet() => SomeWarps.Meet(MeetingPoint, MultiplyingThreads);

    // What a product waits for: the one before it, or attention. One thread asks for the block; the meeting orders the others' reads after.
    private static void Await(DecodeStepArgs a, int product, int layer)
    {
        int flag = product == Output ? Attention : (product + Products - 1) & 3;
        int count = product == Output ? (layer + 1) * a.KvHeads : (product == QueryKeyValue ? layer : layer + 1) * Grid.DimX;
        AwaitCount(a, flag, count);
    }

    private static void AwaitCount(DecodeStepArgs a, int flag, int count)
    {
        if (Group.IdxX == 0)
            while (GridFlag.Read(ref a.Flags[flag]) < count)
                continue;
        Meet();
    }

    // Blocks without a part of a head go on and wait for the outputs of all heads.
    private static void Attend<THead>(DecodeStepArgs a, DecodeStepShared shared, int layer)
        where THead : struct, IHeadWidth
    {
        int parts = IntrinsicMath.Clamp(Grid.DimX / a.KvHeads, 1, DecodeAttention.MostParts), warps = IntrinsicMath.Min(Multipliers, DecodeAttention.MostWarps);
        DecodeAttentionArgs attention = DecodeStepInputs.Attention<THead>(a, layer, parts, warps);
        Stamp(a, layer, 4);
        for (int item = Grid.IdxX; item < a.KvHeads * parts; item += Grid.DimX)
        {
            attention.Part = item / a.KvHeads;
            attention.KvHead = item - (attention.Part * a.KvHeads);
            AttentionSpan span = DecodeAttention.Locate(attention);
            // The same for the whole block.
            if (attention.Part >= IntrinsicMath.Max(span.Parts, 1))
                continue;
            bool takesPart = Group.IdxX < 32 * warps;
            AttentionAhead ahead = default;
            if (takesPart)
                ahead = DecodeAttention.Request<THead>(attention, span);
            AwaitCount(a, QueryKeyValue, (layer + 1) * Grid.DimX);
            Stamp(a, layer, 5);
            if (!takesPart || !DecodeAttention.Attend<THead>(attention, span, ahead, shared.Attention))
                continue;
            SomeWarps.Meet(DecodeAttention.MeetingPoint, 32 * warps); // the head's output is there before it is counted
            Stamp(a, layer, 6);
            if (Group.IdxX == 0)
                GridFlag.Add(ref a.Flags[Attention], 1);
            Stamp(a, layer, 7);
        }
    }
}
