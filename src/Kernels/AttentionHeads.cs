using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// One lane's columns of a head: 2·lane and 2·lane + 1 of its lower half, and the same of its upper half; heads of 64 have them for half of the lanes. Numbers of
/// the head, or the gains of its norm.
/// </summary>
internal struct HeadColumns
{
    public float Low0, Low1, High0, High1;
}

/// <summary>What is known before the new token's heads are: the angles of its position at the lane's columns, and the gains.</summary>
internal struct AttentionAngles
{
    public float Cos0, Cos1, Sin0, Sin1;
    public HeadColumns QueryGain, KeyGain;
}

/// <summary>The lane's first word of its warp's query, of the key and of the value.</summary>
internal struct AttentionSources
{
    public ArrayView<uint> Query, Key, Value;
}

/// <summary>The new token's heads in <see cref="DecodeAttention"/>: as <see cref="QkNormRotary"/> makes them, bit for bit.</summary>
internal static class AttentionHeads
{
    public static AttentionAngles Angles<THead>(DecodeAttentionArgs a, int position, int lane)
        where THead : struct, IHeadWidth
    {
        AttentionAngles angles = default;
        if (!HasColumns<THead>(lane))
            return angles;
        long first = ((long)position * 32 * THead.Halves) + (2 * lane);
        angles.Cos0 = a.Cos[first];
        angles.Sin0 = a.Sin[first];
        angles.Cos1 = a.Cos[first + 1];
        angles.Sin1 = a.Sin[first + 1];
        if (a.HasGains != 0)
        {
            angles.QueryGain = Gains<THead>(a.QueryGain, lane);
            angles.KeyGain = Gains<THead>(a.KeyGain, lane);
        }
        return angles;
    }

    private static bool HasColumns<THead>(int lane)
        where THead : struct, IHeadWidth => THead.Halves == 2 || lane < 16;

    private static HeadColumns Gains<THead>(ArrayView<ushort> gains, int lane)
        where THead : struct, IHeadWidth
    {
        int half = 32 * THead.Halves, at = 2 * lane;
        HeadColumns columns;
        columns.Low0 = Bf16.ToFloat(gains[at]);
        columns.Low1 = Bf16.ToFloat(gains[at + 1]);
        columns.High0 = Bf16.ToFloat(gains[at + half]);
        columns.High1 = Bf16.ToFloat(gains[at + half + 1]);
        return columns;
    }

    /// <summary>Where the lane's words of the new token's heads will be: known before they are. A warp without a query has the last one's.</summary>
    public static AttentionSources Sources<THead>(DecodeAttentionArgs a)
        where THead : struct, IHeadWidth
    {
        int lane = Group.IdxX & 31, queryHeads = a.KvHeads * a.GroupSize;
        AttentionSources sources;
        sources.Query = Words<THead>(a, (Grid.IdxY * a.GroupSize) + IntrinsicMath.Min(Group.IdxX >> 5, a.GroupSize - 1), lane);
        sources.Key = Words<THead>(a, queryHeads + Grid.IdxY, lane);
        sources.Value = Words<THead>(a, queryHeads + a.KvHeads + Grid.IdxY, lane);
        return sources;
    }

    private static ArrayView<uint> Words<THead>(DecodeAttentionArgs a, int head, int lane)
        where THead : struct, IHeadWidth
    {
        ArrayView<uint> words = a.Qkv.Cast<uint>();
        long first = ((long)head * 32 * THead.Halves) + lane;
        return words.SubView(first, words.Length - first);
    }

    private static HeadColumns Columns<THead>(ArrayView<uint> words, int first)
        where THead : struct, IHeadWidth
    {
        HeadColumns columns = default;
        if (!HasColumns<THead>(Group.IdxX & 31))
            return columns;
        uint low = Mem.LoadL2Word(ref words[first]), high = Mem.LoadL2Word(ref words[first + (16 * THead.Halves)]);
        columns.Low0 = Bf16.Low(low);
        columns.Low1 = Bf16.High(low);
        columns.High0 = Bf16.Low(high);
        columns.High1 = Bf16.High(high);
        return columns;
    }

    /// <summary>
    /// The group's queries, a warp a head, and in the block that has the new position the key and the value, which also go to the cache. A
    /// barrier must follow.
    /// </summary>
    public static void Prepare<THead, TTiles>(DecodeAttentionArgs a, ArrayView<uint> heads, AttentionSources sources, AttentionAngles angles, int position, bool hasNew)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        int lane = Group.IdxX & 31, warp = Group.IdxX >> 5, warps = Group.DimX >> 5;
        HeadColumns query = default, key = default, second = default;
        U2 value = default;
        bool hasValue = hasNew && warp == warps - 2;
        if (warp < a.GroupSize)
            query = Columns<THead>(sources.Query, 0);
        if (hasNew)
            key = Columns<THead>(sources.Key, 0);
        if (hasValue)
        {
            value.X = Mem.LoadL2Word(ref sources.Value[0]);
            if (THead.Halves == 2)
                value.Y = Mem.LoadL2Word(ref sources.Value[32]);
        }
        // Every warp norms the key beside its query: their sums wait for nothing but each other, and one warp with two heads would be waited for.
        HeadColumns rotatedQuery = Rotated<THead>(a, query, angles.QueryGain, angles), rotatedKey = Rotated<THead>(a, key, angles.KeyGain, angles);
        Store<THead>(rotatedQuery, heads.SubView(warp * AttentionTiles.HeadWords, AttentionTiles.HeadWords));
        // Blocks of fewer warps have two queries a warp.
        if (warps < DecodeAttention.MostGroup)
        {
            if (warp + warps < a.GroupSize)
                second = Columns<THead>(sources.Query, warps * 32 * THead.Halves);
            Store<THead>(Rotated<THead>(a, second, angles.QueryGain, angles), heads.SubView((warp + warps) * AttentionTiles.HeadWords, AttentionTiles.HeadWords));
        }
        long row = ((long)Grid.IdxY * a.Capacity) + position;
        if (hasNew && warp == warps - 1)
        {
            ArrayView<uint> target = heads.SubView(DecodeAttention.MostGroup * AttentionTiles.HeadWords, AttentionTiles.HeadWords);
            Store<THead>(rotatedKey, target);
            WarpOps.Barrier(); // the warp has written the whole key
            TTiles.StoreKey<THead>(a, target, row, lane);
        }
        if (hasValue)
            TTiles.StoreValue<THead>(a, heads.SubView((DecodeAttention.MostGroup + 1) * AttentionTiles.HeadWords, AttentionTiles.HeadWords), value, row, lane);
    }

    private static HeadColumns Rotated<THead>(DecodeAttentionArgs a, HeadColumns x, HeadColumns gain, AttentionAngles angles)
        where THead : struct, IHeadWidth
    {
        if (a.HasGains != 0)
        {
            float squares = Fast.Fma(x.High1, x.High1, Fast.Fma(x.High0, x.High0, Fast.Fma(x.Low1, x.Low1, Fast.Fma(x.Low0, x.Low0, 0))));
            // A power of two: a product is the quotient, bit for bit.
            float scale = Fast.Rsqrt((WarpOps.Sum(squares) * (1f / (64 * THead.Halves))) + a.Epsilon);
            x.Low0 = x.Low0 * scale * gain.Low0;
            x.Low1 = x.Low1 * scale * gain.Low1;
            x.High0 = x.High0 * scale * gain.High0;
            x.High1 = x.High1 * scale * gain.High1;
        }
        HeadColumns rotated;
        rotated.Low0 = Fast.Fma(x.Low0, angles.Cos0, -(x.High0 * angles.Sin0));
        rotated.Low1 = Fast.Fma(x.Low1, angles.Cos1, -(x.High1 * angles.Sin1));
        rotated.High0 = Fast.Fma(x.High0, angles.Cos0, x.Low0 * angles.Sin0);
        rotated.High1 = Fast.Fma(x.High1, angles.Cos1, x.Low1 * angles.Sin1);
        return rotated;
    }

    private static void Store<THead>(HeadColumns x, ArrayView<uint> output)
        where THead : struct, IHeadWidth
    {
        int lane = Group.IdxX & 31;
        if (!HasColumns<THead>(lane))
            return;
        output[lane] = Bf16.Pack(x.Low0, x.Low1);
        output[lane + (16 * THead.Halves)] = Bf16.Pack(x.High0, x.High1);
    }
}
