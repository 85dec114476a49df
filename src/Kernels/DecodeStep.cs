using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;
using ILGPU.Algorithms;

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

    private const int AfterQueryKeyValue = 0, AfterAttention = 1, AfterOutput = 2, AfterGateUp = 3, AfterDown = 4, Ended = 5;

    // Where the multiplying warps meet; attention has the first point.
    private const uint MeetingPoint = 2;

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
        int warp = Group.IdxX >> 5;
        if (warp == Multipliers)
            DecodeStepProducer.RunDense(a, dense);
        else if (warp > Multipliers)
            DecodeStepProducer.RunExperts(a, experts, shared.Chosen, routed);
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

    private static void RunLayers<TFormat, THead>(DecodeStepArgs a, DecodeStepShared shared, DecodeStepRing dense, DecodeStepRing experts)
        where TFormat : struct, IStreamedFormat
        where THead : struct, IHeadWidth
    {
        for (int layer = 0; layer < a.LayerCount; layer++)
        {
            int blocks = Grid.DimX * layer, now = blocks + Grid.DimX;
            QueryKeyValue<TFormat>(a, shared, layer, ref dense, blocks);
            Attend<THead>(a, shared, layer, now);
            Output<TFormat>(a, shared, layer, ref dense);
            GateUp<TFormat>(a, shared, layer, ref experts, now);
            Down<TFormat>(a, shared, ref experts, now);
        }
        Meet(); // nobody of the block waits any more
        if (Group.IdxX > 0 || Atomic.Add(ref a.Flags[Ended], 1) < Grid.DimX - 1)
            return;
        // The last block: nobody waits for a count.
        for (int i = 0; i < Flags; i++)
            a.Flags[i] = 0;
    }

    private static void Meet() => SomeWarps.Meet(MeetingPoint, MultiplyingThreads);

    // One thread tells and asks for the block: the meeting orders the others' writes before, their reads after.
    private static void Signal(DecodeStepArgs a, int flag)
    {
        Meet();
        if (Group.IdxX == 0)
            GridFlag.Add(ref a.Flags[flag], 1);
    }

    private static void Await(DecodeStepArgs a, int flag, int count)
    {
        if (Group.IdxX == 0)
            while (GridFlag.Read(ref a.Flags[flag]) < count)
                continue;
        Meet();
    }

    private static void QueryKeyValue<TFormat>(DecodeStepArgs a, DecodeStepShared shared, int layer, ref DecodeStepRing ring, int blocks)
        where TFormat : struct, IStreamedFormat
    {
        U4 gains = DecodeStepInputs.RequestGains(a, Address(a, layer, DecodeLayerField.InputGain));
        Await(a, AfterDown, blocks);
        DecodeStepInputs.Norm<TFormat>(a, shared, Address(a, layer, DecodeLayerField.InputGain), gains);
        Meet(); // the inputs are there before anyone multiplies by them
        DecodeStepShare share = DecodeStepShare.Of((int)(a.QueryKeyValue.Length >> 3));
        DecodeStepProducts.Run<TFormat>(ref ring, Product(share.Count, 1, a.Hidden), shared.Inputs, shared.Weights, a.ColumnShift, shared.OwnPartials);
        Meet(); // all warps' sums are there before they are added
        float factor = DecodeStepInputs.Factor(a, shared);
        for (int r = Group.IdxX; r < share.Count * DecodeStepRing.GroupRows; r += MultiplyingThreads)
            a.QueryKeyValue[(share.First * DecodeStepRing.GroupRows) + r] = Bf16.FromFloat(DecodeStepProducts.Collect(shared.Partials, r, a.MostRows) * factor);
        Signal(a, AfterQueryKeyValue);
    }

    private static long Address(DecodeStepArgs a, int layer, DecodeLayerField field) => a.Layers[((long)layer * (int)DecodeLayerField.Count) + (int)field];

    private static DecodeStepProduct Product(int groups, int matrices, int columns)
    {
        DecodeStepProduct product;
        product.Groups = groups;
        product.Matrices = matrices;
        product.Columns = columns;
        return product;
    }

    // Blocks without a part of a head go on and wait for the outputs of all heads.
    private static void Attend<THead>(DecodeStepArgs a, DecodeStepShared shared, int layer, int queryKeyValueCount)
        where THead : struct, IHeadWidth
    {
        int parts = IntrinsicMath.Clamp(Grid.DimX / a.KvHeads, 1, DecodeAttention.MostParts), warps = IntrinsicMath.Min(Multipliers, DecodeAttention.MostWarps);
        DecodeAttentionArgs attention = DecodeStepInputs.Attention<THead>(a, layer, parts, warps);
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
            Await(a, AfterQueryKeyValue, queryKeyValueCount);
            if (!takesPart || !DecodeAttention.Attend<THead>(attention, span, ahead, shared.Attention))
                continue;
            SomeWarps.Meet(DecodeAttention.MeetingPoint, 32 * warps); // the head's output is there before it is counted
            if (Group.IdxX == 0)
                GridFlag.Add(ref a.Flags[AfterAttention], 1);
        }
    }

    private static void Output<TFormat>(DecodeStepArgs a, DecodeStepShared shared, int layer, ref DecodeStepRing ring)
        where TFormat : struct, IStreamedFormat
    {
        DecodeStepShare share = DecodeStepShare.Of(a.Hidden >> 3);
        U4 router = DecodeStepRouting.Request(a, layer, share);
        float old = DecodeStepInputs.RequestResidual(a, share), gain = DecodeStepInputs.RequestGain(a, Address(a, layer, DecodeLayerField.ExpertGain), share);
        Await(a, AfterAttention, (layer + 1) * a.KvHeads);
        DecodeStepInputs.Copy<TFormat>(a.Attended, shared.InputWords);
        Meet(); // the inputs are there before anyone multiplies by them
        DecodeStepProducts.Run<TFormat>(ref ring, Product(share.Count, 1, (int)a.Attended.Length), shared.Inputs, shared.Weights, a.ColumnShift, shared.OwnPartials);
        Meet(); // all warps' sums are there before they are added
        for (int r = Group.IdxX; r < share.Count * DecodeStepRing.GroupRows; r += MultiplyingThreads)
        {
            int n = (share.First * DecodeStepRing.GroupRows) + r;
            if (r != Group.IdxX)
            {
                old = a.Residual[n];
                gain = DecodeStepInputs.GainOf(Address(a, layer, DecodeLayerField.ExpertGain), n);
            }
            float value = old + DecodeStepProducts.Collect(shared.Partials, r, a.MostRows);
            a.Residual[n] = value;
            shared.Columns[r] = value * gain;
        }
        Meet(); // the block's columns are there before the router multiplies them
        DecodeStepRouting.Add(a, shared, layer, share, router);
        Signal(a, AfterOutput);
    }

    private static void GateUp<TFormat>(DecodeStepArgs a, DecodeStepShared shared, int layer, ref DecodeStepRing ring, int count)
        where TFormat : struct, IStreamedFormat
    {
        U4 gains = DecodeStepInputs.RequestGains(a, Address(a, layer, DecodeLayerField.ExpertGain));
        Await(a, AfterOutput, count);
        DecodeStepRouting.Choose(a, shared);
        DecodeStepInputs.Norm<TFormat>(a, shared, Address(a, layer, DecodeLayerField.ExpertGain), gains);
        Meet(); // the inputs are there before anyone multiplies by them
        float factor = DecodeStepInputs.Factor(a, shared);
        DecodeStepRouting.Weigh(a, shared, layer, factor);
        DecodeStepShare units = DecodeStepShare.Of(a.TopK * (a.Width >> 3));
        DecodeStepProducts.Run<TFormat>(ref ring, Product(2 * units.Count, 1, a.Hidden), shared.Inputs, shared.Weights, a.ColumnShift, shared.OwnPartials);
        Meet(); // all warps' sums are there before they are added
        for (int r = Group.IdxX; r < units.Count * DecodeStepRing.GroupRows; r += MultiplyingThreads)
        {
            // A unit's eight gate rows, then its eight up rows.
            int place = (2 * (r & ~7)) + (r & 7);
            float gate = DecodeStepProducts.Collect(shared.Partials, place, a.MostRows) * factor;
            float up = DecodeStepProducts.Collect(shared.Partials, place + DecodeStepRing.GroupRows, a.MostRows) * factor;
            a.Activated[(units.First * DecodeStepRing.GroupRows) + r] = Bf16.FromFloat(gate / (1f + XMath.Exp(-gate)) * up);
        }
        Signal(a, AfterGateUp);
    }

    private static void Down<TFormat>(DecodeStepArgs a, DecodeStepShared shared, ref DecodeStepRing ring, int count)
        where TFormat : struct, IStreamedFormat
    {
        DecodeStepShare share = DecodeStepShare.Of(a.Hidden >> 3);
        float old = DecodeStepInputs.RequestResidual(a, share);
        Await(a, AfterGateUp, count);
        // Everyone has chosen: the sums are empty for the next layer, before which there is another wait.
        if (Grid.IdxX == 0)
            for (int i = Group.IdxX; i < a.Experts; i += MultiplyingThreads)
                a.RouterSums[i] = 0;
        DecodeStepInputs.Copy<TFormat>(a.Activated, shared.InputWords);
        Meet(); // the inputs are there before anyone multiplies by them
        DecodeStepProducts.Run<TFormat>(ref ring, Product(share.Count, a.TopK, a.Width), shared.Inputs, shared.Weights, a.ColumnShift, shared.OwnPartials);
        Meet(); // all warps' sums are there before they are added
        for (int r = Group.IdxX; r < share.Count * DecodeStepRing.GroupRows; r += MultiplyingThreads)
        {
            int n = (share.First * DecodeStepRing.GroupRows) + r;
            if (r != Group.IdxX)
                old = a.Residual[n];
            a.Residual[n] = old + DecodeStepProducts.Collect(shared.Partials, r, a.MostRows);
        }
        Signal(a, AfterDown);
    }
}
