using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>The end of <see cref="DecodeAttention"/>: warps meet in shared memory, blocks in the workspace.</summary>
internal static class AttentionMerge
{
    private const int Group8 = DecodeAttention.MostGroup;

    // Parts that are read at once: one after the other each would wait for the memory.
    private const int AtOnce = 4;

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
        int headDim = 64 * THead.Halves, start = ((warp * Group8) + head) * headDim, column = (lane >> 2) * 8;
        Put(sums, start + column, headDim, state.First0);
        Put(sums, start + column + 2, headDim, state.First1);
        Put(sums, start + column + 4, headDim, state.First2);
        Put(sums, start + column + 6, headDim, state.First3);
        if (THead.Halves == 2)
        {
            Put(sums, start + column + 64, headDim, state.Second0);
            Put(sums, start + column + 66, headDim, state.Second1);
            Put(sums, start + column + 68, headDim, state.Second2);
            Put(sums, start + column + 70, headDim, state.Second3);
        }
    }

    // X and Y are two heads' sums of a column, Z and W those of the next.
    private static void Put(ArrayView<float> sums, int at, int headDim, F4 sum)
    {
        sums[at] = sum.X;
        sums[at + headDim] = sum.Y;
        sums[at + 1] = sum.Z;
        sums[at + headDim + 1] = sum.W;
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
        ArrayView<float> totals = SharedMemory.Allocate<float>(Group8);
        int headDim = 64 * THead.Halves, warps = Group.DimX >> 5, second = DecodeAttention.MostWarps * Group8;
        int part = (Grid.IdxY * Grid.DimX) + Grid.IdxX;
        for (int i = Group.IdxX; i < a.GroupSize * headDim; i += Group.DimX)
        {
            int head = i / headDim;
            float largest = masses[head];
            for (int warp = 1; warp < warps; warp++)
                largest = BlockOps.Larger(largest, masses[(warp * Group8) + head]);
            float sum = 0, mass = 0;
            for (int warp = 0; warp < warps; warp++)
            {
                float factor = Fast.Ex2(masses[(warp * Group8) + head] - largest);
                sum = Fast.Fma(sums[(warp * Group8 * headDim) + i], factor, sum);
                mass = Fast.Fma(masses[second + (warp * Group8) + head], factor, mass);
            }
            if (parts == 1)
            {
                a.Output[((long)Grid.IdxY * a.GroupSize * headDim) + i] = Bf16.FromFloat(sum / mass);
                continue;
            }
            a.Sums[((long)part * Group8 * headDim) + i] = sum;
            if (i == head * headDim)
            {
                a.Masses[(part * 2 * Group8) + head] = largest;
                a.Masses[(part * 2 * Group8) + Group8 + head] = mass;
            }
        }
        // The same for the whole block.
        if (parts == 1)
            return;
        MemoryFence.DeviceLevel(); // the part is there for every block before it counts
        Group.Barrier(); // all of the block's threads have written it
        if (Group.IdxX == 0)
            arrived[0] = Atomic.Add(ref a.Done[Grid.IdxY], 1);
        Group.Barrier(); // everyone knows which block this is
        if (arrived[0] < parts - 1)
            return;
        MemoryFence.DeviceLevel(); // what the others wrote before they counted is seen from here on
        if (Group.IdxX == 0)
            a.Done[Grid.IdxY] = 0;
        Factors(a, factors, totals, parts);
        Add<THead>(a, factors, totals, parts);
    }

    // What each part's sums are multiplied by, and each head's mass. Called by the whole block.
    private static void Factors(DecodeAttentionArgs a, ArrayView<float> factors, ArrayView<float> totals, int parts)
    {
        ArrayView<uint> masses = a.Masses.Cast<uint>();
        int first = Grid.IdxY * Grid.DimX * 2 * Group8;
        for (int i = Group.IdxX; i < parts * a.GroupSize; i += Group.DimX)
        {
            int part = i / a.GroupSize, head = i - (part * a.GroupSize);
            factors[(part * Group8) + head] = Interop.IntAsFloat(Mem.LoadL2Word(ref masses[first + (part * 2 * Group8) + head]));
        }
        Group.Barrier(); // all largest scores are there
        if (Group.IdxX < a.GroupSize)
        {
            int head = Group.IdxX;
            float largest = factors[head];
            for (int part = 1; part < parts; part++)
                largest = BlockOps.Larger(largest, factors[(part * Group8) + head]);
            float total = 0;
            for (int part = 0; part < parts; part++)
            {
                float factor = Fast.Ex2(factors[(part * Group8) + head] - largest);
                total = Fast.Fma(Interop.IntAsFloat(Mem.LoadL2Word(ref masses[first + (part * 2 * Group8) + Group8 + head])), factor, total);
                factors[(part * Group8) + head] = factor;
            }
            totals[head] = total;
        }
        Group.Barrier(); // factors and masses are there
    }

    private static void Add<THead>(DecodeAttentionArgs a, ArrayView<float> factors, ArrayView<float> totals, int parts)
        where THead : struct, IHeadWidth
    {
        int headDim = 64 * THead.Halves, last = parts - 1;
        ArrayView<uint> sums = a.Sums.Cast<uint>();
        ArrayView<uint> output = a.Output.Cast<uint>();
        long first = (long)Grid.IdxY * Grid.DimX * Group8 * headDim;
        int step = Group8 * headDim;
        for (int i = Group.IdxX * 4; i < a.GroupSize * headDim; i += Group.DimX * 4)
        {
            int head = i / headDim;
            F4 sum = default;
            for (int part = 0; part < parts; part += AtOnce)
            {
                int p1 = IntrinsicMath.Min(part + 1, last), p2 = IntrinsicMath.Min(part + 2, last), p3 = IntrinsicMath.Min(part + 3, last);
                U4 s0 = Mem.LoadL2(ref sums[first + ((long)part * step) + i]), s1 = Mem.LoadL2(ref sums[first + ((long)p1 * step) + i]);
                U4 s2 = Mem.LoadL2(ref sums[first + ((long)p2 * step) + i]), s3 = Mem.LoadL2(ref sums[first + ((long)p3 * step) + i]);
                sum = Add(s0, factors[(part * Group8) + head], sum);
                sum = Add(s1, part + 1 > last ? 0 : factors[(p1 * Group8) + head], sum);
                sum = Add(s2, part + 2 > last ? 0 : factors[(p2 * Group8) + head], sum);
                sum = Add(s3, part + 3 > last ? 0 : factors[(p3 * Group8) + head], sum);
            }
            float inverse = 1f / totals[head];
            long target = (((long)Grid.IdxY * a.GroupSize * headDim) + i) >> 1;
            output[target] = Bf16.Pack(sum.X * inverse, sum.Y * inverse);
            output[target + 1] = Bf16.Pack(sum.Z * inverse, sum.W * inverse);
        }
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
        for (int i = Group.IdxX; i < count; i += Group.DimX)
            a.Output[((long)Grid.IdxY * count) + i] = 0x7FFF;
    }
}
