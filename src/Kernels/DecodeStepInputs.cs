using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>What a thread asks for before it waits for other blocks: weights, and what its own block has written.</summary>
internal struct DecodeStepAhead
{
    /// <summary>Before a norm its first eight gains; before the router eight columns of an expert's row.</summary>
    public U4 Weights;

    /// <summary>Of the gains.</summary>
    public long Address;

    /// <summary>The thread's first number of the residual stream, and its gain before the experts.</summary>
    public float Residual, Gain;

    public static DecodeStepAhead Request(DecodeStepArgs a, DecodeStepShares shares, int layer, int product)
    {
        DecodeStepAhead ahead = default;
        DecodeStepShare share = shares.OfProduct(product);
        ahead.Address = a.Layers[((long)layer * (int)DecodeLayerField.Count) + (int)(product == DecodeStep.QueryKeyValue ? DecodeLayerField.InputGain : DecodeLayerField.ExpertGain)];
        if (product == DecodeStep.QueryKeyValue || product == DecodeStep.GateUp)
        {
            ahead.Weights = Mem.LoadReadOnlyFrom(ahead.Address + (IntrinsicMath.Min(Group.IdxX * 8, a.Hidden - 8) * sizeof(ushort)));
            return ahead;
        }
        // Threads without a row take another's.
        int own = IntrinsicMath.Min((share.First * DecodeStepRing.GroupRows) + Group.IdxX, a.Hidden - 1);
        ahead.Residual = a.Residual[own];
        if (product == DecodeStep.Output)
        {
            ahead.Gain = DecodeStepInputs.GainOf(ahead.Address, own);
            ahead.Weights = DecodeStepRouting.Request(a, layer, share);
        }
        return ahead;
    }
}

/// <summary>What the multiplying warps of <see cref="DecodeStep"/> read before a product: its inputs, in the order and scale in which the format multiplies them, as BF16 in shared memory.</summary>
internal static class DecodeStepInputs
{
    private static int Threads => 32 * DecodeStep.Multipliers;

    /// <summary>Inputs of one of a layer's products; before gate and up the choice of experts as well. A meeting must follow.</summary>
    public static void Prepare<TFormat>(DecodeStepArgs a, DecodeStepShared shared, int product, DecodeStepAhead ahead)
        where TFormat : struct, IStreamedFormat
    {
        if (product == DecodeStep.QueryKeyValue || product == DecodeStep.GateUp)
        {
            ArrayView<uint> residual = a.Residual.Cast<uint>();
            int own = IntrinsicMath.Min(Group.IdxX * 8, a.Hidden - 8);
            U4 low = Mem.LoadL2(ref residual[own]), high = Mem.LoadL2(ref residual[own + 4]);
            // Between the request and its use: the sums of the router come with it.
            if (product == DecodeStep.GateUp)
                DecodeStepRouting.Choose(a, shared);
            Norm<TFormat>(a, shared, ahead, low, high);
            return;
        }
        // Everyone has chosen: the sums are empty for the next layer, before which there is another wait.
        if (product == DecodeStep.Down && Grid.IdxX == Grid.DimX - 1)
            for (int i = Group.IdxX; i < a.Experts; i += Threads)
                a.RouterSums[i] = 0;
        Copy<TFormat>(product == DecodeStep.Output ? a.Attended : a.Activated, shared.InputWords);
    }

    // The residual stream times the gains; the norm's factor multiplies the sums later. Leaves each warp's sum of squares.
    private static void Norm<TFormat>(DecodeStepArgs a, DecodeStepShared shared, DecodeStepAhead ahead, U4 low, U4 high)
        where TFormat : struct, IStreamedFormat
    {
        ArrayView<uint> residual = a.Residual.Cast<uint>();
        float squares = 0;
        U4 gains = ahead.Weights;
        for (int i = Group.IdxX * 8; i < a.Hidden; i += Threads * 8)
        {
            if (i != Group.IdxX * 8)
            {
                low = Mem.LoadL2(ref residual[i]);
                high = Mem.LoadL2(ref residual[i + 4]);
                gains = Mem.LoadReadOnlyFrom(ahead.Address + (i * sizeof(ushort)));
            }
            U4 x;
            x.X = Pair(low.X, low.Y, gains.X);
            x.Y = Pair(low.Z, low.W, gains.Y);
            x.Z = Pair(high.X, high.Y, gains.Z);
            x.W = Pair(high.Z, high.W, gains.W);
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

    /// <summary>One gain: from the 16 bytes that hold it.</summary>
    public static float GainOf(long gains, int n)
    {
        U4 eight = Mem.LoadReadOnlyFrom(gains + ((n & ~7) * sizeof(ushort)));
        uint upper = (n & 4) != 0 ? ((n & 2) != 0 ? eight.W : eight.Z) : ((n & 2) != 0 ? eight.Y : eight.X);
        return (n & 1) != 0 ? Bf16.High(upper) : Bf16.Low(upper);
    }

    // Other blocks' BF16 numbers, a multiple of eight.
    private static void Copy<TFormat>(ArrayView<ushort> source, ArrayView<uint> inputs)
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
