using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// What stands between the fused query-key-value projection and attention, in one pass: RMSNorm over each query and key head
/// (optional), rotation by position, queries to their output, keys and values to the cache. One warp a (token, head), grid
/// stride over warps: a head is 64 to 256 numbers, so its sum of squares is one butterfly and nothing needs a block barrier.
/// Positions come from device memory: a recorded decode step is replayed unchanged.
/// </summary>
internal static class QkNormRotary
{
    internal struct Args
    {
        /// <summary>[Tokens, QueryHeads + 2·KvHeads, HeadDim] BF16: queries, keys, values.</summary>
        public ArrayView<ushort> Qkv;

        /// <summary>[Tokens, QueryHeads, HeadDim] BF16.</summary>
        public ArrayView<ushort> Query;

        /// <summary>[KvHeads, Capacity, HeadDim] BF16 of one layer.</summary>
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
    }

    public static void Run(Args a)
    {
        int slots = a.QueryHeads + a.KvHeads + a.KvHeads;
        int headDim = a.Half + a.Half;
        long items = (long)a.Tokens * slots;
        int warps = Group.DimX / Warp.WarpSize;
        for (long item = ((long)Grid.IdxX * warps) + Warp.WarpIdx; item < items; item += (long)Grid.DimX * warps)
        {
            long token = item / slots;
            int slot = (int)(item - (token * slots));
            long position = a.Position[0] + token;
            bool inside = position >= 0 && position < a.Capacity;
            long source = item * headDim;
            if (slot < a.QueryHeads)
            {
                long target = ((token * a.QueryHeads) + slot) * headDim;
                Rotate(a, source, a.QueryGain, inside ? position : -1, a.Query, target);
            }
            else if (slot < a.QueryHeads + a.KvHeads)
            {
                if (inside)
                    Rotate(a, source, a.KeyGain, position, a.Keys, Slot(a, slot - a.QueryHeads, position));
            }
            else if (inside)
            {
                long target = Slot(a, slot - a.QueryHeads - a.KvHeads, position);
                for (int i = Warp.LaneIdx; i < headDim; i += Warp.WarpSize)
                    a.Values[target + i] = a.Qkv[source + i];
            }
        }
    }

    private static long Slot(Args a, int kvHead, long position) => (((long)kvHead * a.Capacity) + position) * 2 * a.Half;

    // A negative position has no angles: the head becomes NaN.
    private static void Rotate(Args a, long source, ArrayView<ushort> gain, long position, ArrayView<ushort> output, long target)
    {
        float scale = 1;
        if (a.HasGains != 0)
        {
            float squares = 0;
            for (int i = Warp.LaneIdx; i < a.Half; i += Warp.WarpSize)
            {
                float x = Bf16.ToFloat(a.Qkv[source + i]);
                float y = Bf16.ToFloat(a.Qkv[source + i + a.Half]);
                squares = Fast.Fma(y, y, Fast.Fma(x, x, squares));
            }
            scale = Fast.Rsqrt((WarpOps.Sum(squares) / (a.Half + a.Half)) + a.Epsilon);
        }
        scale = position < 0 ? float.NaN : scale;
        long angles = position < 0 ? 0 : position * a.Half;
        for (int i = Warp.LaneIdx; i < a.Half; i += Warp.WarpSize)
        {
            float x = Bf16.ToFloat(a.Qkv[source + i]) * scale;
            float y = Bf16.ToFloat(a.Qkv[source + i + a.Half]) * scale;
            if (a.HasGains != 0)
            {
                x *= Bf16.ToFloat(gain[i]);
                y *= Bf16.ToFloat(gain[i + a.Half]);
            }
            float cos = a.Cos[angles + i], sin = a.Sin[angles + i];
            output[target + i] = Bf16.FromFloat(Fast.Fma(x, cos, -(y * sin)));
            output[target + i + a.Half] = Bf16.FromFloat(Fast.Fma(y, cos, x * sin));
        }
    }
}
