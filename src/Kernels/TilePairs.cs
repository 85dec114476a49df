using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>One lane's weights of a chunk of two tiles, and the inputs that both are multiplied by.</summary>
internal struct TilePair
{
    public TileChunk First, Second;
    public TileInputs Inputs;
}

/// <summary>One lane's sums.</summary>
internal struct TilePairSums
{
    public F4 First, Second;
}

/// <summary>Where a lane reads two tiles of one matrix and its column of inputs.</summary>
internal struct TilePairPlace
{
    /// <summary>Multipliers of both.</summary>
    public TilePlace First, Second;

    /// <summary>The lane's first word in row g of the first tile.</summary>
    public long Row;

    /// <summary>Words from there to row g + 8, and to the second tile.</summary>
    public long Eight, Apart;

    /// <summary>The lane's first word in its column's row of x; any valid one without a column.</summary>
    public long Inputs;

    /// <summary>Whether the lane's column is anybody's; 0 or 1. Without, its inputs are zeros.</summary>
    public int HasColumn;

    /// <summary>Chunks of a row.</summary>
    public int Chunks;
}

/// <summary>
/// Two whole tiles of <see cref="TileStream"/> in one matrix of a stack that share their inputs: three chunks of both in registers, each refilled right after it is multiplied. No branch stands in the loop that
/// the compiler would wait at: a refill past the end of the row leaves its registers as they are, and so do inputs of columns that are nobody's. (A load that leaves its result undefined instead would
/// have registers of its own, beside those that it is to refill.)
/// </summary>
internal static class TilePairs
{
    /// <summary>The places of two tiles, all of whose rows exist; the column follows.</summary>
    public static TilePairPlace Locate<TFormat>(StreamedWeights w, int slab, int firstRow, int secondRow)
        where TFormat : struct, IStreamedFormat
    {
        TilePairPlace place = default;
        place.First = TileStream.Locate<TFormat>(w, slab, firstRow, Group.IdxX & 31);
        place.Second = TileStream.Locate<TFormat>(w, slab, secondRow, Group.IdxX & 31);
        long words = w.K >> TFormat.CodesPerWordShift;
        place.Row = place.First.Row0;
        place.Eight = 8 * words;
        place.Apart = (secondRow - firstRow) * words;
        place.Chunks = w.K / TileStream.ChunkCodes<TFormat>();
        return place;
    }

    /// <summary>Gives the lane a row of x as its column, or none.</summary>
    public static void SetColumn<TFormat>(StreamedWeights w, int row, bool exists, ref TilePairPlace place)
        where TFormat : struct, IStreamedFormat
    {
        place.Inputs = ((long)(exists ? row : 0) * (w.K >> 1)) + TileStream.InputWord<TFormat>(Group.IdxX & 31);
        place.HasColumn = exists ? 1 : 0;
    }

    /// <summary>The weights of a chunk; of the last one past the end.</summary>
    /// <param name="w">The stack.</param>
    /// <param name="place">The tiles.</param>
    /// <param name="chunk">Its number.</param>
    /// <param name="together">Whether the tiles lie in one scale block, where a format has blocks; a constant.</param>
    public static TilePair LoadWeights<TFormat>(StreamedWeights w, TilePairPlace place, int chunk, bool together)
        where TFormat : struct, IStreamedFormat
    {
        int existing = IntrinsicMath.Min(chunk, place.Chunks - 1);
        long at = place.Row + ((long)existing * SkinnyGemm.ChunkWords);
        ArrayView<uint> words = w.Codes.Cast<uint>();
        TilePair loaded = default;
        loaded.First.Row0 = Mem.LoadStream(ref words[at]);
        loaded.First.Row1 = Mem.LoadStream(ref words[at + place.Eight]);
        loaded.Second.Row0 = Mem.LoadStream(ref words[at + place.Apart]);
        loaded.Second.Row1 = Mem.LoadStream(ref words[at + place.Apart + place.Eight]);
        LoadMultipliers<TFormat>(w, place, existing, together, ref loaded);
        return loaded;
    }

    /// <summary>The same chunk's inputs; zeros without a column.</summary>
    public static TilePair LoadInputs<TFormat>(ArrayView<ushort> x, TilePairPlace place, int chunk, TilePair loaded)
        where TFormat : struct, IStreamedFormat
    {
        loaded.Inputs = default;
        return RefillInputs<TFormat>(x, place, IntrinsicMath.Min(chunk, place.Chunks - 1), 0, loaded);
    }

    // The chunk that many (a constant) behind another, where the row has it, in the same registers. Inputs with the weights: requested when they are multiplied, they would be waited for behind the weights
    // requested meanwhile.
    private static TilePair Refill<TFormat>(StreamedWeights w, ArrayView<ushort> x, TilePairPlace place, (int Chunk, bool Together) at, int ahead, TilePair old)
        where TFormat : struct, IStreamedFormat
    {
        int bytes = ahead * SkinnyGemm.ChunkBytes;
        long start = place.Row + ((long)at.Chunk * SkinnyGemm.ChunkWords);
        uint exists = at.Chunk + ahead < place.Chunks ? 1u : 0u;
        ArrayView<uint> words = w.Codes.Cast<uint>();
        TilePair loaded = old;
        loaded.First.Row0 = Mem.LoadStreamOver(ref words[start], bytes, exists, old.First.Row0);
        loaded.First.Row1 = Mem.LoadStreamOver(ref words[start + place.Eight], bytes, exists, old.First.Row1);
        loaded.Second.Row0 = Mem.LoadStreamOver(ref words[start + place.Apart], bytes, exists, old.Second.Row0);
        loaded.Second.Row1 = Mem.LoadStreamOver(ref words[start + place.Apart + place.Eight], bytes, exists, old.Second.Row1);
        LoadMultipliers<TFormat>(w, place, IntrinsicMath.Min(at.Chunk + ahead, place.Chunks - 1), at.Together, ref loaded);
        return RefillInputs<TFormat>(x, place, at.Chunk, ahead, loaded);
    }

    private static void LoadMultipliers<TFormat>(StreamedWeights w, TilePairPlace place, int chunk, bool together, ref TilePair loaded)
        where TFormat : struct, IStreamedFormat
    {
        TileStream.LoadMultipliers<TFormat>(w, place.First, 0, chunk, ref loaded.First);
        if (TFormat.HasTileScales && together)
            loaded.Second.Scale0 = loaded.First.Scale0;
        else
            TileStream.LoadMultipliers<TFormat>(w, place.Second, 0, chunk, ref loaded.Second);
    }

    private static TilePair RefillInputs<TFormat>(ArrayView<ushort> x, TilePairPlace place, int chunk, int ahead, TilePair loaded)
        where TFormat : struct, IStreamedFormat
    {
        int bytes = 2 * ahead * TileStream.ChunkCodes<TFormat>();
        long word = place.Inputs + ((long)chunk * (TileStream.ChunkCodes<TFormat>() / 2));
        uint exists = place.HasColumn != 0 & chunk + ahead < place.Chunks ? 1u : 0u;
        ArrayView<uint> words = x.Cast<uint>();
        loaded.Inputs.X0 = Mem.LoadGlobalOver(ref words[word], bytes, exists, loaded.Inputs.X0);
        if (TFormat.CodesPerWordShift > 1)
            loaded.Inputs.X1 = Mem.LoadGlobalOver(ref words[word], bytes + 16, exists, loaded.Inputs.X1);
        if (TFormat.CodesPerWordShift > 2)
        {
            loaded.Inputs.X2 = Mem.LoadGlobalOver(ref words[word], bytes + 32, exists, loaded.Inputs.X2);
            loaded.Inputs.X3 = Mem.LoadGlobalOver(ref words[word], bytes + 48, exists, loaded.Inputs.X3);
        }
        return loaded;
    }

    /// <summary>All chunks from one on.</summary>
    /// <param name="w">The stack.</param>
    /// <param name="x">Inputs.</param>
    /// <param name="place">The tiles and the column.</param>
    /// <param name="first">The first chunk, and whether the tiles lie in one scale block.</param>
    /// <param name="step">From one chunk to the next; a constant.</param>
    /// <param name="w0">The first chunk.</param>
    /// <param name="w1">The second.</param>
    /// <param name="w2">The third.</param>
    public static TilePairSums Multiply<TFormat>(StreamedWeights w, ArrayView<ushort> x, TilePairPlace place, (int Chunk, bool Together) first, int step, TilePair w0, TilePair w1, TilePair w2)
        where TFormat : struct, IStreamedFormat
    {
        TilePairSums sums = default;
        int c = first.Chunk, count = place.Chunks;
        for (; c + (2 * step) < count; c += 3 * step)
        {
            MultiplyOne<TFormat>(w0, ref sums);
            w0 = Refill<TFormat>(w, x, place, (c, first.Together), 3 * step, w0);
            MultiplyOne<TFormat>(w1, ref sums);
            w1 = Refill<TFormat>(w, x, place, (c, first.Together), 4 * step, w1);
            MultiplyOne<TFormat>(w2, ref sums);
            w2 = Refill<TFormat>(w, x, place, (c, first.Together), 5 * step, w2);
        }
        if (c < count)
            MultiplyOne<TFormat>(w0, ref sums);
        if (c + step < count)
            MultiplyOne<TFormat>(w1, ref sums);
        return sums;
    }

    private static void MultiplyOne<TFormat>(TilePair pair, ref TilePairSums sums)
        where TFormat : struct, IStreamedFormat
    {
        sums.First = TileStream.Multiply<TFormat>(pair.First, pair.Inputs, 1f, 1f, sums.First);
        sums.Second = TileStream.Multiply<TFormat>(pair.Second, pair.Inputs, 1f, 1f, sums.Second);
    }
}
