using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>What the multiplying warps of <see cref="DecodeStep"/> read before a product: its inputs, in the order and scale in which the format multiplies them, as BF16 in shared memory.</summary>
internal static class DecodeStepInputs
{
    private static int Threads => 32 * DecodeStep.Multipliers;

    /// <summary>A thread's first eight gains of a norm; they are weights and may be asked for early.</summary>
    public static U4 RequestGains(DecodeStepArgs a, long gains) =>
        Mem.LoadReadOnlyFrom(gains + (IntrinsicMath.Min(Group.IdxX * 8, a.Hidden - 8) * sizeof(ushort)));

    /// <summary>A thread's own number of the residual stream: the block itself has written it, or an earlier launch. Threads without one take another.</summary>
    public static float RequestResidual(DecodeStepArgs a, DecodeStepShare share) => a.Residual[Own(a, share)];

    private static int Own(DecodeStepArgs a, DecodeStepShare share) => IntrinsicMath.Min((share.First * DecodeStepRing.GroupRows) + Group.IdxX, a.Hidden - 1);

    /// <summary>The gain beside it.</summary>
    public static float RequestGain(DecodeStepArgs a, long gains, DecodeStepShare share) =>
        GainOf(gains, Own(a, share));

    /// <summary>One gain: from the 16 bytes that hold it.</summary>
    public static float GainOf(long gains, int n)
    {
        U4 eight = Mem.LoadReadOnlyFrom(gains + ((n & ~7) * sizeof(ushort)));
        uint upper = (n & 4) != 0 ? ((n & 2) != 0 ? eight.W : eight.Z) : ((n & 2) != 0 ? eight.Y : eight.X);
        return (n & 1) != 0 ? Bf16.High(upper) : Bf16.Low(upper);
    }

    /// <summary>The residual stream times the gains; the norm's factor multiplies the sums later. Leaves each warp's sum of squares. A meeting must follow.</summary>
    public static void Norm<TFormat>(DecodeStepArgs a, DecodeStepShared shared, long gains, U4 firstGains)
        where TFormat : struct, IStreamedFormat
    {
        ArrayView<uint> residual = a.Residual.Cast<uint>();
        float squares = 0;
        for (int i = Group.IdxX * 8; i < a.Hidden; i += Threads * 8)
        {
            U4 low = Mem.LoadL2(ref residual[i]), high = Mem.LoadL2(ref residual[i + 4]);
            if (i != Group.IdxX * 8)
                firstGains = Mem.LoadReadOnlyFrom(gains + (i * sizeof(ushort)));
            U4 x;
            x.X = Pair(low.X, low.Y, firstGains.X);
            x.Y = Pair(low.Z, low.W, firstGains.Y);
            x.Z = Pair(high.X, high.Y, firstGains.Z);
            x.W = Pair(high.Z, high.W, firstGains.W);
            squares = Squares(high, Squares(low, squares));
            Mem.StoreShared(ref shared.InputWords[i >> 1], TFormat.Arrange(x));
        }
        squares = WarpOps.Sum(squares);
        if ((Group.IdxX & 31) == 0)
            shared.Squares[Group.IdxX >> 5] = squares;
    }

    private static uint Pair(uint low, uint high, uint gains) => Bf16.Pack(Interop.IntAsFloat(low) * Bf16.Low(gains), Interop.IntAsFloat(high) * Bf16.High(gains));

    private static float Squares(U4 x, float sum)
    {
        float x0 = Interop.IntAsFloat(x.X), x1 = Interop.IntAsFloat(x.Y), x2 = Interop.IntAsFloat(x.Z), x3 = Interop.IntAsFloat(x.W);
        return Fast.Fma(x3, x3, Fast.Fma(x2, x2, Fast.Fma(x1, x1, Fast.Fma(x0, x0, sum))));
    }

    /// <summary>The norm's factor, after the meeting.</summary>
    public static float Factor(DecodeStepArgs a, DecodeStepShared shared)
    {
        float squares = 0;
        for (int warp = 0; warp < DecodeStep.Multipliers; warp++)
            squares += shared.Squares[warp];
        return Fast.Rsqrt((squares / a.Hidden) + a.Epsilon);
    }

    /// <summary>Another block's BF16 numbers, a multiple of eight. A meeting must follow.</summary>
    public static void Copy<TFormat>(ArrayView<ushort> source, ArrayView<uint> inputs)
        where TFormat : struct, IStreamedFormat
    {
        ArrayView<uint> words = source.Cast<uint>();
        int count = (int)words.Length, step = Threads * 4;
        // Two at a time: one after the other each would wait for the memory.
        for (int i = Group.IdxX * 4; i < count; i += 2 * step)
        {
            U4 first = Mem.LoadL2(ref words[i]), second = Mem.LoadL2(ref words[IntrinsicMath.Min(i + step, count - 4)]);
            Mem.StoreShared(ref inputs[i], TFormat.Arrange(first));
            if (i + step < count)
                Mem.StoreShared(ref inputs[i + step], TFormat.Arrange(second));
        }
    }

    /// <summary>A layer's attention.</summary>
    public static DecodeAttentionArgs Attention<THead>(DecodeStepArgs a, int layer, int parts, int warps)
        where THead : struct, IHeadWidth
    {
        int headDim = 64 * THead.Halves;
        long words = (long)a.KvHeads * a.Capacity * (headDim >> 1);
        DecodeAttentionArgs attention = default;
        attention.Qkv = a.QueryKeyValue;
        attention.Keys = a.Keys.SubView(layer * words, words);
        attention.Values = a.Values.SubView(layer * words, words);
        attention.QueryGain = a.HeadGains.SubView(layer * 2 * headDim, headDim);
        attention.KeyGain = a.HeadGains.SubView(((layer * 2) + 1) * headDim, headDim);
        attention.Cos = a.Cos;
        attention.Sin = a.Sin;
        attention.Position = a.Position;
        attention.Output = a.Attended;
        attention.Sums = a.PartSums;
        attention.Masses = a.PartMasses;
        attention.Done = a.PartsDone;
        attention.KvHeads = a.KvHeads;
        attention.GroupSize = a.GroupSize;
        attention.Capacity = a.Capacity;
        attention.HasGains = 1;
        attention.Epsilon = a.Epsilon;
        attention.Scale = a.Scale;
        attention.GridParts = parts;
        attention.Warps = warps;
        return attention;
    }
}
