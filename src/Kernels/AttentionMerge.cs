using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>The end of <see cref="DecodeAttention"/>: warps meet in shared memory, blocks in the workspace.</summary>
internal static class AttentionMerge
{
    private const int Group8 = DecodeAttention.MostGroup;

    // Parts that are read at once: one after the other each would wait for the memory.
    private const int AtOnce = 8;

    /// <summary>A warp's sums: [warp][head][column], largest scores and masses [2][warp][head].</summary>
    public static void Publish<THead>(ArrayView<float> sums, ArrayView<float> masses, AttentionState state)
        where THead : struct, IHeadWidth
    {
        int lane = Group.IdxX & 31, warp = Group.IdxX >> 5, head = (lane & 3) * 2;
        float mass0 = OverPositions(state.Mass0), mass1 = OverPositions(state.Mass1);
        if (lane < 4)
        {
            int at = (warp * Group8) + head, second = DecodeAttention.MostWarps * Group8;
            masses[at] = state.Largest0;
            masses[at + 1] = state.Largest1;
            masses[second + at] = mass0;
            masses[second + at + 1] = mass1;
        }
        int row = RowWords(64 * THead.Halves), start = (((warp * Group8) + head) * row) + ((lane >> 2) * 8);
        Put(sums, start, row, (state.First0, state.First1, state.First2, state.First3));
        if (THead.Halves == 2)
            Put(sums, start + 64, row, (state.Second0, state.Second1, state.Second2, state.Second3));
    }

    /// <summary>Numbers between the heads of a warp's sums: four more than a head has, so that what lanes store at once lies in different banks.</summary>
    public static int RowWords(int headDim) => headDim + 4;

    // Eight columns of two heads: of each sum X and Y are the heads' of a column, Z and W those of the next. Every second group of lanes begins with its upper four columns:
    // eight lanes that store together then meet every bank once.
    private static void Put(ArrayView<float> sums, int at, int row, (F4 C0, F4 C2, F4 C4, F4 C6) columns)
    {
        ArrayView<uint> words = sums.Cast<uint>();
        bool upperFirst = ((Group.IdxX >> 2) & 1) != 0;
        int first = upperFirst ? 4 : 0, second = upperFirst ? 0 : 4;
        F4 a0 = upperFirst ? columns.C4 : columns.C0, a1 = upperFirst ? columns.C6 : columns.C2;
        F4 b0 = upperFirst ? columns.C0 : columns.C4, b1 = upperFirst ? columns.C2 : columns.C6;
        Mem.StoreShared(ref words[at + first], Words(a0.X, a0.Z, a1.X, a1.Z));
        Mem.StoreShared(ref words[at + second], Words(b0.X, b0.Z, b1.X, b1.Z));
        Mem.StoreShared(ref words[at + row + first], Words(a0.Y, a0.W, a1.Y, a1.W));
        Mem.StoreShared(ref words[at + row + second], Words(b0.Y, b0.W, b1.Y, b1.W));
    }

    private static U4 Words(float x, float y, float z, float w)
    {
        U4 words;
        words.X = Interop.FloatAsInt(x);
        words.Y = Interop.FloatAsInt(y);
        words.Z = Interop.FloatAsInt(z);
        words.W = Interop.FloatAsInt(w);
        return words;
    }

    private static float OverPositions(float x)
    {
        x += WarpOps.ShuffleXor(x, 4);
        x += WarpOps.ShuffleXor(x, 8);
        return x + WarpOps.ShuffleXor(x, 16);
    }

    /// <summary>Adds the warps; alone, stores the result, else leaves a part, and the last block to do so adds the parts.</summary>
    public static void Finish<THead>(DecodeAttentionArgs a, ArrayView<float> sums, ArrayView<float> masses, int parts)
        where THead : struct, IHeadWidth
    {
        ArrayView<int> arrived = SharedMemory.Allocate<int>(1);
        ArrayView<float> factors = SharedMemory.Allocate<float>(DecodeAttention.MostParts * Group8);
        ArrayView<float> totals = SharedMemory.Allocate<float>(2 * Group8);
        int headDim = 64 * THead.Halves, part = (a.KvHead * a.GridParts) + a.Part;
        FactorsOfWarps(a, masses, factors, totals);
        Group.Barrier(); // factors and masses are there
        ArrayView<uint> words = sums.Cast<uint>(), partSums = a.Sums.Cast<uint>();
        for (int i = Group.IdxX * 4; i < a.GroupSize * headDim; i += a.Warps * 128)
        {
            int head = i / headDim, column = i - (head * headDim), row = RowWords(headDim);
            F4 sum = default;
            for (int warp = 0; warp < a.Warps; warp++)
                sum = Add(Mem.LoadShared(ref words[(((warp * Group8) + head) * row) + column]), factors[(warp * Group8) + head], sum);
            if (parts == 1)
                Store<THead>(a, i, sum, totals[head]);
            else
                Mem.StoreGlobal(ref partSums[((long)part * Group8 * headDim) + i], Words(sum.X, sum.Y, sum.Z, sum.W));
        }
        // The same for the whole block.
        if (parts == 1)
            return;
        for (int i = Group.IdxX; i < 2 * Group8; i += a.Warps * 32)
            a.Masses[(part * 2 * Group8) + i] = totals[i];
        Group.Barrier(); // all of the block's threads have written the part
        if (Group.IdxX == 0)
        {
            Fence.Device(); // the part is there for every block before it counts
            arrived[0] = Atomic.Add(ref a.Done[a.KvHead], 1);
            Fence.Device(); // what the others wrote before they counted is seen from here on
        }
        Group.Barrier(); // everyone knows which block this is
        if (arrived[0] < parts - 1)
            return;
        if (Group.IdxX == 0)
            a.Done[a.KvHead] = 0;
        FactorsOfParts(a, factors, totals, parts);
        Group.Barrier(); // factors and masses are there
        AddParts<THead>(a, factors, totals, parts);
    }

    // What each warp's sums are multiplied by; totals are a head's mass and its largest score. A warp a head, a lane a warp.
    private static void FactorsOfWarps(DecodeAttentionArgs a, ArrayView<float> masses, ArrayView<float> factors, ArrayView<float> totals)
    {
        int lane = Group.IdxX & 31, warps = a.Warps, source = IntrinsicMath.Min(lane, warps - 1);
        for (int head = Group.IdxX >> 5; head < a.GroupSize; head += warps)
        {
            float own = lane < warps ? masses[(source * Group8) + head] : float.NegativeInfinity;
            float mass = masses[(DecodeAttention.MostWarps * Group8) + (source * Group8) + head];
            Reduce(factors, totals, head, own, mass, lane < warps);
        }
    }

    // The same of the parts, a lane a part.
    private static void FactorsOfParts(DecodeAttentionArgs a, ArrayView<float> factors, ArrayView<float> totals, int parts)
    {
        ArrayView<uint> masses = a.Masses.Cast<uint>();
        int lane = Group.IdxX & 31, warps = a.Warps, first = ((a.KvHead * a.GridParts) + IntrinsicMath.Min(lane, parts - 1)) * 2 * Group8;
        for (int head = Group.IdxX >> 5; head < a.GroupSize; head += warps)
        {
            float mass = Interop.IntAsFloat(Mem.LoadL2Word(ref masses[first + head])), largest = Interop.IntAsFloat(Mem.LoadL2Word(ref masses[first + Group8 + head]));
            Reduce(factors, totals, head, lane < parts ? largest : float.NegativeInfinity, mass, lane < parts);
        }
    }

    private static void Reduce(ArrayView<float> factors, ArrayView<float> totals, int head, float own, float mass, bool counts)
    {
        int lane = Group.IdxX & 31;
        float largest = WarpOps.Max(own);
        float factor = Fast.Ex2(own - largest);
        float total = WarpOps.Sum(counts ? mass * factor : 0);
        factors[(lane * Group8) + head] = factor;
        if (lane > 0)
            return;
        totals[head] = total;
        totals[Group8 + head] = largest;
    }

    private static void AddParts<THead>(DecodeAttentionArgs a, ArrayView<float> factors, ArrayView<float> totals, int parts)
        where THead : struct, IHeadWidth
    {
        int headDim = 64 * THead.Halves;
        for (int i = Group.IdxX * 4; i < a.GroupSize * headDim; i += a.Warps * 128)
        {
            int head = i / headDim;
            F4 sum = default;
            for (int part = 0; part < parts; part += AtOnce)
            {
                U4 s0 = Part<THead>(a, part, parts, i), s1 = Part<THead>(a, part + 1, parts, i), s2 = Part<THead>(a, part + 2, parts, i), s3 = Part<THead>(a, part + 3, parts, i);
                U4 s4 = Part<THead>(a, part + 4, parts, i), s5 = Part<THead>(a, part + 5, parts, i), s6 = Part<THead>(a, part + 6, parts, i), s7 = Part<THead>(a, part + 7, parts, i);
                // Beyond the last part factors are zero.
                sum = Add(s0, factors[(part * Group8) + head], sum);
                sum = Add(s1, factors[((part + 1) * Group8) + head], sum);
                sum = Add(s2, factors[((part + 2) * Group8) + head], sum);
                sum = Add(s3, factors[((part + 3) * Group8) + head], sum);
                sum = Add(s4, factors[((part + 4) * Group8) + head], sum);
                sum = Add(s5, factors[((part + 5) * Group8) + head], sum);
                sum = Add(s6, factors[((part + 6) * Group8) + head], sum);
                sum = Add(s7, factors[((part + 7) * Group8) + head], sum);
            }
            Store<THead>(a, i, sum, totals[head]);
        }
    }

    // Beyond the last part the last one again.
    private static U4 Part<THead>(DecodeAttentionArgs a, int part, int parts, int i)
        where THead : struct, IHeadWidth
    {
        int headDim = 64 * THead.Halves;
        long at = (((long)a.KvHead * a.GridParts) + IntrinsicMath.Min(part, parts - 1)) * Group8 * headDim;
        return Mem.LoadL2(ref a.Sums.Cast<uint>()[at + i]);
    }

    private static void Store<THead>(DecodeAttentionArgs a, int i, F4 sum, float mass)
        where THead : struct, IHeadWidth
    {
        ArrayView<uint> output = a.Output.Cast<uint>();
        float inverse = 1f / mass;
        long target = (((long)a.KvHead * a.GroupSize * 64 * THead.Halves) + i) >> 1;
        output[target] = Bf16.Pack(sum.X * inverse, sum.Y * inverse);
        output[target + 1] = Bf16.Pack(sum.Z * inverse, sum.W * inverse);
    }

    private static F4 Add(U4 part, float factor, F4 sum)
    {
        sum.X = Fast.Fma(Interop.IntAsFloat(part.X), factor, sum.X);
        sum.Y = Fast.Fma(Interop.IntAsFloat(part.Y), factor, sum.Y);
        sum.Z = Fast.Fma(Interop.IntAsFloat(part.Z), factor, sum.Z);
        sum.W = Fast.Fma(Interop.IntAsFloat(part.W), factor, sum.W);
        return sum;
    }

    /// <summary>A position outside the cache has no keys.</summary>
    public static void StoreNaN<THead>(DecodeAttentionArgs a)
        where THead : struct, IHeadWidth
    {
        int count = a.GroupSize * 64 * THead.Halves;
        for (int i = Group.IdxX; i < count; i += a.Warps * 32)
            a.Output[((long)a.KvHead * count) + i] = 0x7FFF;
    }
}
