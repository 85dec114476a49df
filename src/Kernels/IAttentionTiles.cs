using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// How a KV cache stores its heads, for <see cref="DecodeAttention"/>: a lane's part of a tile of keys and one of values, and what is done with them.
/// </summary>
/// <typeparam name="TTiles">The implementation itself.</typeparam>
internal interface IAttentionTiles<TTiles>
    where TTiles : struct, IAttentionTiles<TTiles>
{
    /// <summary>Whether rows have scales.</summary>
    static abstract bool HasScales { get; }

    /// <summary>Requests a tile's keys.</summary>
    static abstract void LoadKeys<THead>(ref TTiles tiles, DecodeAttentionArgs a, int tile, int position, int lane)
        where THead : struct, IHeadWidth;

    /// <summary>Requests a tile's values.</summary>
    static abstract void LoadValues<THead>(ref TTiles tiles, DecodeAttentionArgs a, int tile, int position, int lane)
        where THead : struct, IHeadWidth;

    /// <summary>The queries' fragments, their columns as those of the keys.</summary>
    static abstract AttentionQueries LoadQueries<THead>(ArrayView<uint> heads, int lane)
        where THead : struct, IHeadWidth;

    /// <summary>The new key, in shared memory in BF16, to the cache; in shared memory it takes the cache's form. By a warp.</summary>
    static abstract void StoreKey<THead>(DecodeAttentionArgs a, ArrayView<uint> head, long row, int lane)
        where THead : struct, IHeadWidth;

    /// <summary>The new value, of which a lane has the words lane and lane + 32, to shared memory and to the cache. By a warp.</summary>
    static abstract void StoreValue<THead>(DecodeAttentionArgs a, ArrayView<uint> head, uint value0, uint value1, long row, int lane)
        where THead : struct, IHeadWidth;

    /// <summary>Scores of 16 positions (rows) and eight heads (columns), the new key in its row.</summary>
    static abstract F4 Scores<THead>(ref TTiles tiles, ArrayView<uint> heads, AttentionQueries queries, int tile, int position, int lane)
        where THead : struct, IHeadWidth;

    /// <summary>A weight of row g as what multiplies the stored numbers.</summary>
    static abstract float ScaledUpper(TTiles tiles, float weight);

    /// <summary>The same of row g + 8.</summary>
    static abstract float ScaledLower(TTiles tiles, float weight);

    /// <summary>The weight of row g that such a number stands for.</summary>
    static abstract float UnscaledUpper(TTiles tiles, float scaled);

    /// <summary>The same of row g + 8.</summary>
    static abstract float UnscaledLower(TTiles tiles, float scaled);

    /// <summary>Adds weights · values, the new value in its row.</summary>
    static abstract void Add<THead>(ref TTiles tiles, ArrayView<uint> heads, ArrayView<uint> weights, int tile, int position, int lane, ref AttentionState state)
        where THead : struct, IHeadWidth;
}

/// <summary>BF16.</summary>
internal struct Bf16Tiles : IAttentionTiles<Bf16Tiles>
{
    public AttentionKeys Keys;
    public AttentionValues Values;

    public static bool HasScales => false;

    public static void LoadKeys<THead>(ref Bf16Tiles tiles, DecodeAttentionArgs a, int tile, int position, int lane)
        where THead : struct, IHeadWidth => tiles.Keys = AttentionTiles.LoadKeys<THead>(a, tile, position, lane);

    public static void LoadValues<THead>(ref Bf16Tiles tiles, DecodeAttentionArgs a, int tile, int position, int lane)
        where THead : struct, IHeadWidth => tiles.Values = AttentionTiles.LoadValues<THead>(a, tile, position, lane);

    public static AttentionQueries LoadQueries<THead>(ArrayView<uint> heads, int lane)
        where THead : struct, IHeadWidth => AttentionTiles.LoadQueries<THead>(heads, lane);

    public static void StoreKey<THead>(DecodeAttentionArgs a, ArrayView<uint> head, long row, int lane)
        where THead : struct, IHeadWidth
    {
        for (int i = lane; i < 32 * THead.Halves; i += 32)
            a.Keys[(row * 32 * THead.Halves) + i] = head[i];
    }

    public static void StoreValue<THead>(DecodeAttentionArgs a, ArrayView<uint> head, uint value0, uint value1, long row, int lane)
        where THead : struct, IHeadWidth
    {
        long target = row * 32 * THead.Halves;
        head[lane] = value0;
        a.Values[target + lane] = value0;
        if (THead.Halves == 2)
        {
            head[lane + 32] = value1;
            a.Values[target + lane + 32] = value1;
        }
    }

    public static F4 Scores<THead>(ref Bf16Tiles tiles, ArrayView<uint> heads, AttentionQueries queries, int tile, int position, int lane)
        where THead : struct, IHeadWidth
    {
        tiles.Keys = AttentionTiles.WithNewKey<THead>(heads, tiles.Keys, tile, position, lane);
        return AttentionTiles.Scores<THead>(tiles.Keys, queries);
    }

    public static float ScaledUpper(Bf16Tiles tiles, float weight) => weight;

    public static float ScaledLower(Bf16Tiles tiles, float weight) => weight;

    public static float UnscaledUpper(Bf16Tiles tiles, float scaled) => scaled;

    public static float UnscaledLower(Bf16Tiles tiles, float scaled) => scaled;

    public static void Add<THead>(ref Bf16Tiles tiles, ArrayView<uint> heads, ArrayView<uint> weights, int tile, int position, int lane, ref AttentionState state)
        where THead : struct, IHeadWidth
    {
        tiles.Values = AttentionTiles.WithNewValue<THead>(heads, tiles.Values, tile, position, lane);
        AttentionTiles.Add<THead>(weights, tiles.Values, ref state);
    }
}
