using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Shared memory of a block: tiles; the queries, the new key and value; and of two turns weights, largest scores and masses.</summary>
internal struct AttentionMemory
{
    public ArrayView<uint> Ring, Heads, Weights;
    public ArrayView<float> Masses;

    /// <summary>Weights of a turn.</summary>
    public readonly ArrayView<uint> WeightsOf(int turn) => Weights.SubView(turn * AttentionTiles.WeightWords, AttentionTiles.WeightWords);

    /// <summary>Largest scores and masses of a turn.</summary>
    public readonly ArrayView<float> MassesOf(int turn) => Masses.SubView(turn * AttentionTiles.MassWords, AttentionTiles.MassWords);
}

/// <summary>A tile for each warp: the first, the stage that they are in, and whose turn of the memory for weights it is.</summary>
internal struct AttentionChunk
{
    public int First, Stage, Turn;
}

/// <summary>
/// Tiles of <see cref="DecodeAttention"/> on their way to shared memory: a stage has one of each warp, keys first, then values, in rows of 16 bytes more than a stored
/// one, so that eight rows at one column lie in all banks. A warp requests its tile itself: its lanes read from it what they copied of the keys; values are read by all warps, behind a barrier.
/// </summary>
internal static class AttentionRing
{
    /// <summary>Most stages.</summary>
    public const int MostStages = 2;

    private static int KeyWords<THead, TTiles>()
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles> => DecodeAttention.TilePositions * THead.Halves * TTiles.HalfWords;

    /// <summary>Words between the rows of a tile's values.</summary>
    public static int PitchWords<THead, TTiles>()
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles> => (THead.Halves * TTiles.HalfWords) + 4;

    /// <summary>Words of a tile.</summary>
    public static int TileWords<THead, TTiles>()
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles> => KeyWords<THead, TTiles>() + (DecodeAttention.TilePositions * PitchWords<THead, TTiles>());

    /// <summary>Keys of a stage, from a warp's on.</summary>
    public static ArrayView<uint> Keys<THead, TTiles>(ArrayView<uint> ring, int stage, int warp)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        int first = ((stage * (Group.DimX >> 5)) + warp) * TileWords<THead, TTiles>();
        return ring.SubView(first, ring.Length - first);
    }

    /// <summary>Values of a stage, from a warp's on.</summary>
    public static ArrayView<uint> Values<THead, TTiles>(ArrayView<uint> ring, int stage, int warp)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        int first = (((stage * (Group.DimX >> 5)) + warp) * TileWords<THead, TTiles>()) + KeyWords<THead, TTiles>();
        return ring.SubView(first, ring.Length - first);
    }

    /// <summary>Requests the keys of the calling warp's tile, if there is one, as a group of copies.</summary>
    public static void RequestKeys<THead, TTiles>(DecodeAttentionArgs a, ArrayView<uint> ring, AttentionSpan span, int tile, int stage)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        int lane = Group.IdxX & 31, warp = Group.IdxX >> 5;
        if (tile < span.End)
            TTiles.CopyKeys<THead>(Keys<THead, TTiles>(ring, stage, warp), a, AttentionTiles.Rows(a, tile, span.Position, lane), lane);
        CpAsync.Commit();
    }

    /// <summary>
    /// Requests the values, likewise. Those of later positions are replaced by zeros: their weight is zero, but memory may hold NaN. The new token's has not been written and is not copied.
    /// </summary>
    public static void RequestValues<THead, TTiles>(DecodeAttentionArgs a, ArrayView<uint> ring, AttentionSpan span, int tile, int stage)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        if (tile < span.End)
            CopyValues<THead, TTiles>(Values<THead, TTiles>(ring, stage, Group.IdxX >> 5), a, tile * DecodeAttention.TilePositions, span.Position, Group.IdxX & 31);
        CpAsync.Commit();
    }

    private static void CopyValues<THead, TTiles>(ArrayView<uint> values, DecodeAttentionArgs a, int first, int position, int lane)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        // A power of two, at most 16.
        int rowWords = THead.Halves * TTiles.HalfWords, units = rowWords / 4;
        int row = lane / units, word = (lane & (units - 1)) * 4;
        long head = (long)Grid.IdxY * a.Capacity;
        for (int i = 0; i < units / 2; i++)
        {
            int at = row + (i * (32 / units)), before = position - first - at;
            if (before != 0)
                CpAsync.Copy16ZeroFill(ref values[(at * PitchWords<THead, TTiles>()) + word], ref a.Values[((head + IntrinsicMath.Min(first + at, position)) * rowWords) + word], before > 0 ? 16 : 0);
        }
    }

    /// <summary>Waits for the keys that the calling lane has requested for this chunk. Behind their group are those of its values, and with two stages those of the next chunk's keys and values.</summary>
    public static void WaitForKeys(int stages)
    {
        if (stages == MostStages)
            CpAsync.Wait(3);
        else
            CpAsync.Wait(1);
    }

    /// <summary>Waits for the values: behind their group are only the keys of a later chunk, which have just been requested.</summary>
    public static void WaitForValues() => CpAsync.Wait(1);

    /// <summary>In the place of a tile that is not there: zeros for values and weights. By a warp.</summary>
    public static void Clear<THead, TTiles>(ArrayView<uint> values, ArrayView<uint> weights, int lane)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        for (int i = lane * 4; i < DecodeAttention.TilePositions * PitchWords<THead, TTiles>(); i += 128)
            Mem.StoreShared(ref values[i], default);
        if (lane < AttentionTiles.TileWeightWords / 4)
            Mem.StoreShared(ref weights[((Group.IdxX >> 5) * AttentionTiles.TileWeightWords) + (lane * 4)], default);
    }

    /// <summary>The new token's value, in shared memory, into its row of a tile. By a warp.</summary>
    public static void PlaceValue<THead, TTiles>(ArrayView<uint> values, ArrayView<uint> heads, int position, int lane)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        int word = lane * 4;
        if (word < THead.Halves * TTiles.HalfWords)
            Mem.StoreShared(ref values[((position & (DecodeAttention.TilePositions - 1)) * PitchWords<THead, TTiles>()) + word], Mem.LoadShared(ref heads[((DecodeAttention.MostGroup + 1) * AttentionTiles.HeadWords) + word]));
    }
}
