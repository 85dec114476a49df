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
    public const int MostStages = 3;

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

    /// <summary>A warp's keys in a stage.</summary>
    public static ArrayView<uint> Keys<THead, TTiles>(ArrayView<uint> ring, int stage, int warp)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        int warps = Group.DimX >> 5, words = TileWords<THead, TTiles>();
        return ring.SubView(((stage * warps) + warp) * words, words);
    }

    /// <summary>A warp's values in a stage.</summary>
    public static ArrayView<uint> Values<THead, TTiles>(ArrayView<uint> ring, int stage, int warp)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles> => Keys<THead, TTiles>(ring, stage, warp).SubView(KeyWords<THead, TTiles>(), DecodeAttention.TilePositions * PitchWords<THead, TTiles>());

    /// <summary>
    /// Requests the calling warp's tile, if there is one, as a group of copies. Values of later positions are replaced by zeros: their weight is zero, but memory may hold NaN. The new
    /// token's has not been written and is not copied.
    /// </summary>
    public static void Request<THead, TTiles>(DecodeAttentionArgs a, ArrayView<uint> ring, AttentionSpan span, int tile, int stage)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        int lane = Group.IdxX & 31, warp = Group.IdxX >> 5;
        if (tile < span.End)
        {
            TTiles.CopyKeys<THead>(Keys<THead, TTiles>(ring, stage, warp), a, AttentionTiles.Rows(a, tile, span.Position, lane), lane);
            CopyValues<THead, TTiles>(Values<THead, TTiles>(ring, stage, warp), a, tile * DecodeAttention.TilePositions, span.Position, lane);
        }
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

    /// <summary>Waits for the tile that is next of the calling lane's.</summary>
    public static void Wait(int stages)
    {
        if (stages == MostStages)
            CpAsync.Wait(1);
        else
            CpAsync.Wait(0);
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
