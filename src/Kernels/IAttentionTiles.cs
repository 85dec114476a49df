using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>What one lane knows of the rows g and g + 8 of a tile beside their numbers: the scales of keys and values, where the cache has any.</summary>
internal struct AttentionScales
{
    public float UpperKey, LowerKey, UpperValue, LowerValue;
}

/// <summary>How a KV cache stores its heads, for <see cref="DecodeAttention"/>: what of a tile goes to shared memory, and how it is multiplied there.</summary>
/// <typeparam name="TTiles">The implementation itself.</typeparam>
internal interface IAttentionTiles<TTiles>
    where TTiles : struct, IAttentionTiles<TTiles>
{
    /// <summary>Whether rows have scales.</summary>
    static abstract bool HasScales { get; }

    /// <summary>Words of a stored row of 64 columns.</summary>
    static abstract int HalfWords { get; }

    /// <summary>Requests a tile's keys, into 16 bytes a lane after the other: each lane what it will read itself.</summary>
    static abstract void CopyKeys<THead>(ArrayView<uint> keys, DecodeAttentionArgs a, AttentionRows rows, int lane)
        where THead : struct, IHeadWidth;

    /// <summary>A tile's scales. Those of the new token are not there yet.</summary>
    static abstract AttentionScales LoadScales(DecodeAttentionArgs a, AttentionRows rows);

    /// <summary>The queries' fragments, their columns as those of the keys.</summary>
    static abstract AttentionQueries LoadQueries<THead>(ArrayView<uint> heads, int lane)
        where THead : struct, IHeadWidth;

    /// <summary>The new key, in shared memory in BF16, to the cache; in shared memory it takes the cache's form. By a warp.</summary>
    static abstract void StoreKey<THead>(DecodeAttentionArgs a, ArrayView<uint> head, long row, int lane)
        where THead : struct, IHeadWidth;

    /// <summary>The new value, of which a lane has the words lane and lane + 32, to shared memory and to the cache. By a warp.</summary>
    static abstract void StoreValue<THead>(DecodeAttentionArgs a, ArrayView<uint> head, U2 value, long row, int lane)
        where THead : struct, IHeadWidth;

    /// <summary>The new key, in shared memory, into its row of the tile; a lane where it reads that itself.</summary>
    static abstract void PlaceKey<THead>(ArrayView<uint> keys, ArrayView<uint> heads, int before, int lane)
        where THead : struct, IHeadWidth;

    /// <summary>The scales with the new token's in its rows; what memory holds of it and of later ones is no scale.</summary>
    static abstract AttentionScales PlaceScales(ArrayView<uint> heads, AttentionScales scales, int before);

    /// <summary>Scores of 16 positions (rows) and eight heads (columns).</summary>
    static abstract F4 Scores<THead>(ArrayView<uint> keys, AttentionQueries queries, AttentionScales scales, int lane)
        where THead : struct, IHeadWidth;

    /// <summary>Where a lane begins to read 16 columns of a tile's values.</summary>
    static abstract int ValueWord<THead>(int slice, int lane)
        where THead : struct, IHeadWidth;

    /// <summary>Products of 16 columns of the values of two tiles, a constant number of bytes behind the lane's word, and the weights of eight heads.</summary>
    static abstract AttentionProducts Multiply<THead>(ArrayView<uint> values, int word, int bytes, U4 weights)
        where THead : struct, IHeadWidth;

    /// <summary>Which of the 16 columns a lane's sums X and Y belong to; those of Z and W are <see cref="ColumnStep"/> further.</summary>
    static abstract int Column(int lane);

    /// <inheritdoc cref="Column"/>
    static abstract int ColumnStep { get; }
}

/// <summary>BF16.</summary>
internal readonly struct Bf16Tiles : IAttentionTiles<Bf16Tiles>
{
    public static bool HasScales => false;

    public static int HalfWords => 32;

    public static int ColumnStep => 8;

    public static int Column(int lane) => lane >> 2;

    public static void CopyKeys<THead>(ArrayView<uint> keys, DecodeAttentionArgs a, AttentionRows rows, int lane)
        where THead : struct, IHeadWidth
    {
        int word = (lane & 3) * 4, slot = lane * 4;
        long upper = (rows.Upper * 32 * THead.Halves) + word, lower = (rows.Lower * 32 * THead.Halves) + word;
        CpAsync.Copy16(ref keys[slot], ref a.Keys[upper]);
        CpAsync.Copy16(ref keys[slot + 128], ref a.Keys[upper + 16]);
        CpAsync.Copy16(ref keys[slot + 256], ref a.Keys[lower]);
        CpAsync.Copy16(ref keys[slot + 384], ref a.Keys[lower + 16]);
        if (THead.Halves == 2)
        {
            CpAsync.Copy16(ref keys[slot + 512], ref a.Keys[upper + 32]);
            CpAsync.Copy16(ref keys[slot + 640], ref a.Keys[upper + 48]);
            CpAsync.Copy16(ref keys[slot + 768], ref a.Keys[lower + 32]);
            CpAsync.Copy16(ref keys[slot + 896], ref a.Keys[lower + 48]);
        }
    }

    public static AttentionScales LoadScales(DecodeAttentionArgs a, AttentionRows rows) => default;

    public static AttentionQueries LoadQueries<THead>(ArrayView<uint> heads, int lane)
        where THead : struct, IHeadWidth => AttentionTiles.LoadQueries<THead>(heads, ((lane >> 2) * AttentionTiles.HeadWords) + ((lane & 3) * 4), 16);

    public static void StoreKey<THead>(DecodeAttentionArgs a, ArrayView<uint> head, long row, int lane)
        where THead : struct, IHeadWidth
    {
        for (int i = lane; i < 32 * THead.Halves; i += 32)
            a.Keys[(row * 32 * THead.Halves) + i] = head[i];
    }

    public static void StoreValue<THead>(DecodeAttentionArgs a, ArrayView<uint> head, U2 value, long row, int lane)
        where THead : struct, IHeadWidth
    {
        long target = (row * 32 * THead.Halves) + lane;
        head[lane] = value.X;
        a.Values[target] = value.X;
        if (THead.Halves == 2)
        {
            head[lane + 32] = value.Y;
            a.Values[target + 32] = value.Y;
        }
    }

    public static void PlaceKey<THead>(ArrayView<uint> keys, ArrayView<uint> heads, int before, int lane)
        where THead : struct, IHeadWidth
    {
        if (before != 0 && before != 8)
            return;
        int word = (DecodeAttention.MostGroup * AttentionTiles.HeadWords) + ((lane & 3) * 4), slot = (lane * 4) + (before * 32);
        Mem.StoreShared(ref keys[slot], Mem.LoadShared(ref heads[word]));
        Mem.StoreShared(ref keys[slot + 128], Mem.LoadShared(ref heads[word + 16]));
        if (THead.Halves == 2)
        {
            Mem.StoreShared(ref keys[slot + 512], Mem.LoadShared(ref heads[word + 32]));
            Mem.StoreShared(ref keys[slot + 640], Mem.LoadShared(ref heads[word + 48]));
        }
    }

    public static AttentionScales PlaceScales(ArrayView<uint> heads, AttentionScales scales, int before) => scales;

    public static F4 Scores<THead>(ArrayView<uint> keys, AttentionQueries queries, AttentionScales scales, int lane)
        where THead : struct, IHeadWidth => AttentionTiles.Scores<THead>(AttentionTiles.LoadKeys<THead>(keys, lane), queries);

    // Transposed by ldmatrix: columns 0 … 7 of the slice are the rows 0 … 7 of the operand, the others the rows from 8 on.
    public static int ValueWord<THead>(int slice, int lane)
        where THead : struct, IHeadWidth => (((lane & 7) + ((lane >> 4) * 8)) * AttentionRing.PitchWords<THead, Bf16Tiles>()) + (slice * 8) + (((lane >> 3) & 1) * 4);

    public static AttentionProducts Multiply<THead>(ArrayView<uint> values, int word, int bytes, U4 weights)
        where THead : struct, IHeadWidth
    {
        ArrayView<ushort> halves = values.Cast<ushort>();
        U4 v0 = LdMatrix.X4TransAt(ref halves[2 * word], bytes), v1 = LdMatrix.X4TransAt(ref halves[2 * word], bytes + (4 * AttentionRing.TileWords<THead, Bf16Tiles>()));
        AttentionProducts products;
        products.First = AttentionTiles.Multiply(v0.X, v0.Y, v0.Z, v0.W, weights.X, weights.Y, default);
        products.Second = AttentionTiles.Multiply(v1.X, v1.Y, v1.Z, v1.W, weights.Z, weights.W, default);
        return products;
    }
}
