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
    public TilePlace First, Second;

    /// <summary>The lane's first word in its column's row of x; any valid one without a column.</summary>
    public long Inputs;

    /// <summary>Whether the lane's column is anybody's; 0 or 1. Without, its inputs are zeros.</summary>
    public int HasColumn;

    /// <summary>Chunks of a row.</summary>
    public int Chunks;
}

/// <summary>
/// Two tiles of <see cref="TileStream"/> in one matrix of a stack that share their inputs: three chunks of both in registers, each refilled right after it is multiplied. Nothing is read past the
/// end of a row, nor for columns that are nobody's, and no branch stands in the loop that the compiler would wait at.
/// </summary>
internal static class TilePairs
{
    /// <summary>The places of two tiles; the column follows.</summary>
    public static TilePairPlace Locate<TFormat>(StreamedWeights w, int slab, int firstRow, int secondRow)
        where TFormat : struct, IStreamedFormat
    {
        TilePairPlace place = default;
        place.First = TileStream.Locate<TFormat>(w, slab, firstRow, Group.IdxX & 31);
        place.Second = TileStream.Locate<TFormat>(w, slab, secondRow, Group.IdxX & 31);
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
    public static TilePair LoadWeights<TFormat>(StreamedWeights w, TilePairPlace place, int chunk)
        where TFormat : struct, IStreamedFormat
    {
        TilePair loaded = default;
        loaded.First = TileStream.Load<TFormat>(w, place.First, 0, IntrinsicMath.Min(chunk, place.Chunks - 1));
        loaded.Second = TileStream.Load<TFormat>(w, place.Second, 0, IntrinsicMath.Min(chunk, place.Chunks - 1));
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
    private static TilePair Refill<TFormat>(StreamedWeights w, ArrayView<ushort> x, TilePairPlace place, int chunk, int ahead, TilePair old)
        where TFormat : struct, IStreamedFormat
    {
        int bytes = ahead * SkinnyGemm.ChunkBytes, multipliers = IntrinsicMath.Min(chunk + ahead, place.Chunks - 1);
        long start = (long)chunk * SkinnyGemm.ChunkWords;
        uint exists = chunk + ahead < place.Chunks ? 1u : 0u;
        ArrayView<uint> words = w.Codes.Cast<uint>();
        TilePair loaded = old;
        loaded.First.Row0 = Mem.LoadStreamOver(ref words[place.First.Row0 + start], bytes, exists, old.First.Row0);
        loaded.First.Row1 = Mem.LoadStreamOver(ref words[place.First.Row1 + start], bytes, exists, old.First.Row1);
        loaded.Second.Row0 = Mem.LoadStreamOver(ref words[place.Second.Row0 + start], bytes, exists, old.Second.Row0);
        loaded.Second.Row1 = Mem.LoadStreamOver(ref words[place.Second.Row1 + start], bytes, exists, old.Second.Row1);
        TileStream.LoadMultipliers<TFormat>(w, place.First, 0, multipliers, ref loaded.First);
        TileStream.LoadMultipliers<TFormat>(w, place.Second, 0, multipliers, ref loaded.Second);
        return RefillInputs<TFormat>(x, place, chunk, ahead, loaded);
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

    /// <summary>All chunks from <paramref name="chunk"/> on, <paramref name="step"/> (a constant) apart; the first three are loaded.</summary>
    public static TilePairSums Multiply<TFormat>(StreamedWeights w, ArrayView<ushort> x, TilePairPlace place, int chunk, int step, TilePair w0, TilePair w1, TilePair w2)
        where TFormat : struct, IStreamedFormat
    {
        TilePairSums sums = default;
        int c = chunk, count = place.Chunks;
        for (; c + (2 * step) < count; c += 3 * step)
        {
            MultiplyOne<TFormat>(w0, ref sums);
            w0 = Refill<TFormat>(w, x, place, c, 3 * step, w0);
            MultiplyOne<TFormat>(w1, ref sums);
            w1 = Refill<TFormat>(w, x, place, c, 4 * step, w1);
            MultiplyOne<TFormat>(w2, ref sums);
            w2 = Refill<TFormat>(w, x, place, c, 5 * step, w2);
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
