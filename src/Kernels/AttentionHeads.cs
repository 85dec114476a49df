using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>One lane's angles of the new position: of the columns lane and lane + 32 of a head's half.</summary>
internal struct AttentionAngles
{
    public float Cos0, Cos1, Sin0, Sin1;
}

/// <summary>The new token's heads in <see cref="DecodeAttention"/>: as <see cref="QkNormRotary"/> makes them, bit for bit.</summary>
internal static class AttentionHeads
{
    public static AttentionAngles Angles<THead>(DecodeAttentionArgs a, int position, int lane)
        where THead : struct, IHeadWidth
    {
        long first = ((long)position * 32 * THead.Halves) + lane;
        AttentionAngles angles = default;
        angles.Cos0 = a.Cos[first];
        angles.Sin0 = a.Sin[first];
        if (THead.Halves == 2)
        {
            angles.Cos1 = a.Cos[first + 32];
            angles.Sin1 = a.Sin[first + 32];
        }
        return angles;
    }

    /// <summary>
    /// The group's queries, a warp a head, and in the block whose warps meet the new position the key and the value, which also go to the cache. A
    /// barrier must follow.
    /// </summary>
    public static void Prepare<THead>(DecodeAttentionArgs a, ArrayView<uint> heads, AttentionAngles angles, int position, bool hasNew)
        where THead : struct, IHeadWidth
    {
        int lane = Group.IdxX & 31, warp = Group.IdxX >> 5, warps = Group.DimX >> 5, headDim = 64 * THead.Halves;
        ArrayView<ushort> halves = heads.Cast<ushort>();
        int queryHeads = a.KvHeads * a.GroupSize;
        for (int head = warp; head < DecodeAttention.MostGroup; head += warps)
        {
            if (head < a.GroupSize)
                Rotate<THead>(a, ((long)Grid.IdxY * a.GroupSize) + head, a.QueryGain, angles, halves.SubView(head * 2 * AttentionTiles.HeadWords, headDim));
            else
                for (int i = lane; i < AttentionTiles.HeadWords; i += 32)
                    heads[(head * AttentionTiles.HeadWords) + i] = 0;
        }
        if (!hasNew)
            return;
        long target = (((long)Grid.IdxY * a.Capacity) + position) * headDim;
        // The last warps: with eight the first have more to do.
        if (warp == warps - 1)
        {
            ArrayView<ushort> key = halves.SubView(DecodeAttention.MostGroup * 2 * AttentionTiles.HeadWords, headDim);
            Rotate<THead>(a, queryHeads + Grid.IdxY, a.KeyGain, angles, key);
            WarpOps.Barrier(); // the warp has written the whole key
            for (int i = lane; i < headDim / 2; i += 32)
                a.Keys[(target >> 1) + i] = heads[(DecodeAttention.MostGroup * AttentionTiles.HeadWords) + i];
        }
        if (warp == warps - 2)
        {
            ArrayView<uint> qkv = a.Qkv.Cast<uint>();
            long source = ((long)queryHeads + a.KvHeads + Grid.IdxY) * (headDim / 2);
            for (int i = lane; i < headDim / 2; i += 32)
            {
                uint value = Mem.LoadL2Word(ref qkv[source + i]);
                heads[((DecodeAttention.MostGroup + 1) * AttentionTiles.HeadWords) + i] = value;
                a.Values[(target >> 1) + i] = value;
            }
        }
    }

    private static void Rotate<THead>(DecodeAttentionArgs a, long slot, ArrayView<ushort> gain, AttentionAngles angles, ArrayView<ushort> output)
        where THead : struct, IHeadWidth
    {
        const int Lanes = 32;
        int lane = Group.IdxX & 31, half = Lanes * THead.Halves;
        long source = slot * 2 * half;
        float x0 = Bf16.ToFloat(a.Qkv[source + lane]), y0 = Bf16.ToFloat(a.Qkv[source + lane + half]), x1 = 0, y1 = 0;
        if (THead.Halves == 2)
        {
            x1 = Bf16.ToFloat(a.Qkv[source + lane + Lanes]);
            y1 = Bf16.ToFloat(a.Qkv[source + lane + Lanes + half]);
        }
        if (a.HasGains != 0)
        {
            float squares = Fast.Fma(y0, y0, Fast.Fma(x0, x0, 0));
            if (THead.Halves == 2)
                squares = Fast.Fma(y1, y1, Fast.Fma(x1, x1, squares));
            float scale = Fast.Rsqrt((WarpOps.Sum(squares) / (half + half)) + a.Epsilon);
            x0 = x0 * scale * Bf16.ToFloat(gain[lane]);
            y0 = y0 * scale * Bf16.ToFloat(gain[lane + half]);
            if (THead.Halves == 2)
            {
                x1 = x1 * scale * Bf16.ToFloat(gain[lane + Lanes]);
                y1 = y1 * scale * Bf16.ToFloat(gain[lane + Lanes + half]);
            }
        }
        output[lane] = Bf16.FromFloat(Fast.Fma(x0, angles.Cos0, -(y0 * angles.Sin0)));
        output[lane + half] = Bf16.FromFloat(Fast.Fma(y0, angles.Cos0, x0 * angles.Sin0));
        if (THead.Halves == 2)
        {
            output[lane + Lanes] = Bf16.FromFloat(Fast.Fma(x1, angles.Cos1, -(y1 * angles.Sin1)));
            output[lane + Lanes + half] = Bf16.FromFloat(Fast.Fma(y1, angles.Cos1, x1 * angles.Sin1));
        }
    }
}
