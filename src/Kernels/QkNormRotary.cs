using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// What stands between the fused query-key-value projection and attention, in one pass: RMSNorm over each query and key head
/// (optional), rotation by position, queries to their output, keys and values to the cache. One block a token (grid stride), whose warps take
/// heads in turn: a head is 64 to 256 numbers, so its sum of squares is one butterfly and nothing needs a block barrier. A lane has two neighbours of
/// each half, as a word where that may be loaded, with the same bits. Positions come from device memory: a recorded decode step is replayed unchanged.
/// </summary>
internal static class QkNormRotary
{
    internal struct Args
    {
        /// <summary>[Tokens, QueryHeads + 2·KvHeads, HeadDim] BF16: queries, keys, values.</summary>
        public ArrayView<ushort> Qkv;

        /// <summary>[Tokens, QueryHeads, HeadDim] BF16.</summary>
        public ArrayView<ushort> Query;

        /// <summary>[KvHeads, Capacity, HeadDim] of one layer: BF16, or codes, two an element.</summary>
        public ArrayView<ushort> Keys;

        /// <summary>As Keys.</summary>
        public ArrayView<ushort> Values;

        /// <summary>[HeadDim] BF16, unless HasGains is 0.</summary>
        public ArrayView<ushort> QueryGain;

        /// <summary>As QueryGain.</summary>
        public ArrayView<ushort> KeyGain;

        /// <summary>[≥ Capacity, HeadDim / 2] float32.</summary>
        public ArrayView<float> Cos;

        /// <summary>As Cos.</summary>
        public ArrayView<float> Sin;

        /// <summary>[1]: position of the first token.</summary>
        public ArrayView<int> Position;

        public int Tokens;
        public int QueryHeads;
        public int KvHeads;
        public int Half;
        public int Capacity;
        public int HasGains;
        public float Epsilon;

        /// <summary>Whether two neighbours may be loaded and stored at once; else 0.</summary>
        public int HasWords;

        /// <summary>[KvHeads, Capacity] float32, where the cache has codes.</summary>
        public ArrayView<float> KeyScales;

        /// <summary>As KeyScales.</summary>
        public ArrayView<float> ValueScales;
    }

    public static void Run<TCells>(Args a)
        where TCells : struct, IKvCells
    {
        int slots = a.QueryHeads + a.KvHeads + a.KvHeads, headDim = a.Half + a.Half, warps = Group.DimX / Warp.WarpSize;
        for (long token = Grid.IdxX; token < a.Tokens; token += Grid.DimX)
        {
            long position = a.Position[0] + token;
            bool inside = position >= 0 && position < a.Capacity;
            for (int slot = Warp.WarpIdx; slot < slots; slot += warps)
            {
                long source = ((token * slots) + slot) * headDim;
                if (slot < a.QueryHeads)
                    Rotate(a, source, a.QueryGain, inside ? position : -1, a.Query, ((token * a.QueryHeads) + slot) * headDim);
                else if (inside && slot < a.QueryHeads + a.KvHeads)
                    TCells.StoreKey(a, source, position, Row(a, slot - a.QueryHeads, position));
                else if (inside)
                    TCells.StoreValue(a, source, Row(a, slot - a.QueryHeads - a.KvHeads, position));
            }
        }
    }

    private static long Row(Args a, int kvHead, long position) => ((long)kvHead * a.Capacity) + position;

    /// <summary>A head normed and rotated. A negative position has no angles: the head becomes NaN.</summary>
    public static void Rotate(Args a, long source, ArrayView<ushort> gain, long position, ArrayView<ushort> output, long target)
    {
        float scale = Factor(a, source, position);
        for (int i = Warp.LaneIdx * 2; i < a.Half; i += Warp.WarpSize * 2)
        {
            U2 pairs = Rotated(a, source, gain, position, scale, i);
            Store(a, output, target, i, pairs.X, a.Half);
            Store(a, output, target + a.Half, i, pairs.Y, a.Half);
        }
    }

    /// <summary>What a head's numbers are multiplied by: its inverse root mean square, or 1; NaN for a negative position.</summary>
    public static float Factor(Args a, long source, long position)
    {
        float scale = 1;
        if (a.HasGains != 0)
        {
            float squares = 0;
            for (int i = Warp.LaneIdx * 2; i < a.Half; i += Warp.WarpSize * 2)
                squares = AddSquares(Load(a, a.Qkv, source + a.Half, i, a.Half), AddSquares(Load(a, a.Qkv, source, i, a.Half), squares));
            scale = Fast.Rsqrt((WarpOps.Sum(squares) / (a.Half + a.Half)) + a.Epsilon);
        }
        return position < 0 ? float.NaN : scale;
    }

    /// <summary>Columns i and i + 1 of each half, in BF16.</summary>
    public static U2 Rotated(Args a, long source, ArrayView<ushort> gain, long position, float scale, int i)
    {
        long angles = position < 0 ? 0 : position * a.Half;
        uint x = Load(a, a.Qkv, source, i, a.Half), y = Load(a, a.Qkv, source + a.Half, i, a.Half);
        float x0 = Bf16.Low(x) * scale, x1 = Bf16.High(x) * scale, y0 = Bf16.Low(y) * scale, y1 = Bf16.High(y) * scale;
        if (a.HasGains != 0)
        {
            uint first = Load(a, gain, 0, i, a.Half), second = Load(a, gain, a.Half, i, a.Half);
            x0 *= Bf16.Low(first);
            x1 *= Bf16.High(first);
            y0 *= Bf16.Low(second);
            y1 *= Bf16.High(second);
        }
        // The last of an odd half has no neighbour; what stands in for its angles is not stored.
        int next = IntrinsicMath.Min(i + 1, a.Half - 1);
        float cos0 = a.Cos[angles + i], sin0 = a.Sin[angles + i], cos1 = a.Cos[angles + next], sin1 = a.Sin[angles + next];
        U2 pairs;
        pairs.X = Bf16.Pack(Fast.Fma(x0, cos0, -(y0 * sin0)), Fast.Fma(x1, cos1, -(y1 * sin1)));
        pairs.Y = Bf16.Pack(Fast.Fma(y0, cos0, x0 * sin0), Fast.Fma(y1, cos1, x1 * sin1));
        return pairs;
    }

    private static float AddSquares(uint pair, float sum)
    {
        float low = Bf16.Low(pair), high = Bf16.High(pair);
        return Fast.Fma(high, high, Fast.Fma(low, low, sum));
    }

    /// <summary>Elements i and i + 1; the second is 0 past the end.</summary>
    public static uint Load(Args a, ArrayView<ushort> view, long start, int i, int end)
    {
        if (a.HasWords != 0)
            return view.Cast<uint>()[(start + i) >> 1];
        uint low = view[start + i];
        return i + 1 < end ? low | ((uint)view[start + i + 1] << 16) : low;
    }

    /// <summary>The same to a view.</summary>
    public static void Store(Args a, ArrayView<ushort> view, long start, int i, uint pair, int end)
    {
        if (a.HasWords != 0)
        {
            view.Cast<uint>()[(start + i) >> 1] = pair;
            return;
        }
        view[start + i] = (ushort)pair;
        if (i + 1 < end)
            view[start + i + 1] = (ushort)(pair >> 16);
    }
}
