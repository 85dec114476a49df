using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>One lane's words of 16 keys: 16 bytes of each 64 of the rows g and g + 8.</summary>
internal struct AttentionKeys
{
    public U4 Upper0, Upper1, Upper2, Upper3;
    public U4 Lower0, Lower1, Lower2, Lower3;
}

/// <summary>One lane's words of 16 values: columns 8g … 8g + 7 of each half of the rows 4t … 4t + 3.</summary>
internal struct AttentionValues
{
    public U4 First0, First1, First2, First3;
    public U4 Second0, Second1, Second2, Second3;
}

/// <summary>One lane's words of query head g, as those of a key.</summary>
internal struct AttentionQueries
{
    public U4 Q0, Q1, Q2, Q3;
}

/// <summary>
/// One lane's online softmax of the heads 2t and 2t + 1: the largest score, in base 2, the lane's part of the mass, and the sums of 16 columns a
/// register quadruple: columns 8g + 2j and the next one of each half.
/// </summary>
internal struct AttentionState
{
    public float Largest0, Largest1;
    public float Mass0, Mass1;
    public F4 First0, First1, First2, First3;
    public F4 Second0, Second1, Second2, Second3;
}

/// <summary>Tiles of 16 positions in <see cref="DecodeAttention"/>.</summary>
internal static class AttentionTiles
{
    // Words of a head in shared memory, whatever its width.
    public const int HeadWords = 64;

    private static int RowWords<THead>()
        where THead : struct, IHeadWidth => 32 * THead.Halves;

    /// <summary>Keys of a tile, past L1: the last launch left an old row there. Rows from the new token's on repeat one that is in the cache's memory and are replaced or masked.</summary>
    public static AttentionKeys LoadKeys<THead>(DecodeAttentionArgs a, int tile, int position, int lane)
        where THead : struct, IHeadWidth
    {
        long head = (long)a.KvHead * a.Capacity;
        int row = (tile * DecodeAttention.TilePositions) + (lane >> 2), word = (lane & 3) * 4;
        long upper = ((head + IntrinsicMath.Min(row, position)) * RowWords<THead>()) + word, lower = ((head + IntrinsicMath.Min(row + 8, position)) * RowWords<THead>()) + word;
        AttentionKeys keys = default;
        keys.Upper0 = Mem.LoadL2(ref a.Keys[upper]);
        keys.Upper1 = Mem.LoadL2(ref a.Keys[upper + 16]);
        keys.Lower0 = Mem.LoadL2(ref a.Keys[lower]);
        keys.Lower1 = Mem.LoadL2(ref a.Keys[lower + 16]);
        if (THead.Halves == 2)
        {
            keys.Upper2 = Mem.LoadL2(ref a.Keys[upper + 32]);
            keys.Upper3 = Mem.LoadL2(ref a.Keys[upper + 48]);
            keys.Lower2 = Mem.LoadL2(ref a.Keys[lower + 32]);
            keys.Lower3 = Mem.LoadL2(ref a.Keys[lower + 48]);
        }
        return keys;
    }

    /// <summary>Values of a tile, likewise.</summary>
    public static AttentionValues LoadValues<THead>(DecodeAttentionArgs a, int tile, int position, int lane)
        where THead : struct, IHeadWidth
    {
        long head = (long)a.KvHead * a.Capacity;
        int row = (tile * DecodeAttention.TilePositions) + ((lane & 3) * 4), word = (lane >> 2) * 4;
        long r0 = ((head + IntrinsicMath.Min(row, position)) * RowWords<THead>()) + word, r1 = ((head + IntrinsicMath.Min(row + 1, position)) * RowWords<THead>()) + word;
        long r2 = ((head + IntrinsicMath.Min(row + 2, position)) * RowWords<THead>()) + word, r3 = ((head + IntrinsicMath.Min(row + 3, position)) * RowWords<THead>()) + word;
        AttentionValues values = default;
        values.First0 = Mem.LoadL2(ref a.Values[r0]);
        values.First1 = Mem.LoadL2(ref a.Values[r1]);
        values.First2 = Mem.LoadL2(ref a.Values[r2]);
        values.First3 = Mem.LoadL2(ref a.Values[r3]);
        if (THead.Halves == 2)
        {
            values.Second0 = Mem.LoadL2(ref a.Values[r0 + 32]);
            values.Second1 = Mem.LoadL2(ref a.Values[r1 + 32]);
            values.Second2 = Mem.LoadL2(ref a.Values[r2 + 32]);
            values.Second3 = Mem.LoadL2(ref a.Values[r3 + 32]);
        }
        return values;
    }

    /// <summary>The queries' fragments.</summary>
    public static AttentionQueries LoadQueries<THead>(ArrayView<uint> heads, int lane)
        where THead : struct, IHeadWidth
    {
        int word = ((lane >> 2) * HeadWords) + ((lane & 3) * 4);
        AttentionQueries queries = default;
        queries.Q0 = Mem.LoadShared(ref heads[word]);
        queries.Q1 = Mem.LoadShared(ref heads[word + 16]);
        if (THead.Halves == 2)
        {
            queries.Q2 = Mem.LoadShared(ref heads[word + 32]);
            queries.Q3 = Mem.LoadShared(ref heads[word + 48]);
        }
        return queries;
    }

    /// <summary>The same keys with the new one in its row.</summary>
    public static AttentionKeys WithNewKey<THead>(ArrayView<uint> heads, AttentionKeys keys, int tile, int position, int lane)
        where THead : struct, IHeadWidth
    {
        int row = (tile * DecodeAttention.TilePositions) + (lane >> 2), word = (DecodeAttention.MostGroup * HeadWords) + ((lane & 3) * 4);
        if (row == position)
        {
            keys.Upper0 = Mem.LoadShared(ref heads[word]);
            keys.Upper1 = Mem.LoadShared(ref heads[word + 16]);
            keys.Upper2 = Mem.LoadShared(ref heads[word + 32]);
            keys.Upper3 = Mem.LoadShared(ref heads[word + 48]);
        }
        if (row + 8 == position)
        {
            keys.Lower0 = Mem.LoadShared(ref heads[word]);
            keys.Lower1 = Mem.LoadShared(ref heads[word + 16]);
            keys.Lower2 = Mem.LoadShared(ref heads[word + 32]);
            keys.Lower3 = Mem.LoadShared(ref heads[word + 48]);
        }
        return keys;
    }

    /// <summary>The same values with the new one in its row and zeros in those after it: a weight of zero times what memory holds there may be NaN.</summary>
    public static AttentionValues WithNewValue<THead>(ArrayView<uint> heads, AttentionValues values, int tile, int position, int lane)
        where THead : struct, IHeadWidth
    {
        int row = (tile * DecodeAttention.TilePositions) + ((lane & 3) * 4);
        if (row + 3 < position)
            return values;
        int word = ((DecodeAttention.MostGroup + 1) * HeadWords) + ((lane >> 2) * 4);
        values.First0 = Replaced(heads, values.First0, word, position - row);
        values.First1 = Replaced(heads, values.First1, word, position - row - 1);
        values.First2 = Replaced(heads, values.First2, word, position - row - 2);
        values.First3 = Replaced(heads, values.First3, word, position - row - 3);
        values.Second0 = Replaced(heads, values.Second0, word + 32, position - row);
        values.Second1 = Replaced(heads, values.Second1, word + 32, position - row - 1);
        values.Second2 = Replaced(heads, values.Second2, word + 32, position - row - 2);
        values.Second3 = Replaced(heads, values.Second3, word + 32, position - row - 3);
        return values;
    }

    private static U4 Replaced(ArrayView<uint> heads, U4 value, int word, int before)
    {
        U4 result = value;
        if (before == 0)
            result = Mem.LoadShared(ref heads[word]);
        if (before < 0)
        {
            result.X = 0;
            result.Y = 0;
            result.Z = 0;
            result.W = 0;
        }
        return result;
    }

    /// <summary>Scores of 16 positions (rows) and eight heads (columns).</summary>
    public static F4 Scores<THead>(AttentionKeys keys, AttentionQueries queries)
        where THead : struct, IHeadWidth
    {
        F4 scores = Multiply(keys.Upper0, keys.Lower0, queries.Q0, default);
        scores = Multiply(keys.Upper1, keys.Lower1, queries.Q1, scores);
        if (THead.Halves == 2)
        {
            scores = Multiply(keys.Upper2, keys.Lower2, queries.Q2, scores);
            scores = Multiply(keys.Upper3, keys.Lower3, queries.Q3, scores);
        }
        return scores;
    }

    /// <summary>Adds the products of eight columns of the rows g and g + 8.</summary>
    public static F4 Multiply(U4 upper, U4 lower, U4 x, F4 sum)
    {
        sum = Multiply(upper.X, lower.X, upper.Y, lower.Y, x.X, x.Y, sum);
        return Multiply(upper.Z, lower.Z, upper.W, lower.W, x.Z, x.W, sum);
    }

    /// <summary>Adds one product of 16 rows.</summary>
    public static F4 Multiply(uint a0, uint a1, uint a2, uint a3, uint b0, uint b1, F4 sum)
    {
        U4 rows;
        rows.X = a0;
        rows.Y = a1;
        rows.Z = a2;
        rows.W = a3;
        U2 columns;
        columns.X = b0;
        columns.Y = b1;
        return Mma.Bf16(rows, columns, sum);
    }

    /// <summary>Scores to weights in BF16, [head][position] of the warp's shared memory; positions after <paramref name="last"/> weigh nothing. Sums so far are scaled down.</summary>
    public static void Weigh<THead, TTiles>(TTiles tiles, ArrayView<uint> weights, F4 scores, float scale, int last, ref AttentionState state)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        int lane = Group.IdxX & 31, row = lane >> 2, column = (lane & 3) * 2;
        scores.X = row <= last ? scores.X * scale : float.NegativeInfinity;
        scores.Y = row <= last ? scores.Y * scale : float.NegativeInfinity;
        scores.Z = row + 8 <= last ? scores.Z * scale : float.NegativeInfinity;
        scores.W = row + 8 <= last ? scores.W * scale : float.NegativeInfinity;
        float largest0 = BlockOps.Larger(state.Largest0, Largest(BlockOps.Larger(scores.X, scores.Z)));
        float largest1 = BlockOps.Larger(state.Largest1, Largest(BlockOps.Larger(scores.Y, scores.W)));
        float decay0 = Fast.Ex2(state.Largest0 - largest0), decay1 = Fast.Ex2(state.Largest1 - largest1);
        state.Largest0 = largest0;
        state.Largest1 = largest1;
        ushort w0 = Bf16.FromFloat(TTiles.ScaledUpper(tiles, Fast.Ex2(scores.X - largest0))), w1 = Bf16.FromFloat(TTiles.ScaledUpper(tiles, Fast.Ex2(scores.Y - largest1)));
        ushort w2 = Bf16.FromFloat(TTiles.ScaledLower(tiles, Fast.Ex2(scores.Z - largest0))), w3 = Bf16.FromFloat(TTiles.ScaledLower(tiles, Fast.Ex2(scores.W - largest1)));
        // What is added is what is multiplied by.
        state.Mass0 = Fast.Fma(state.Mass0, decay0, TTiles.UnscaledUpper(tiles, Bf16.ToFloat(w0)) + TTiles.UnscaledLower(tiles, Bf16.ToFloat(w2)));
        state.Mass1 = Fast.Fma(state.Mass1, decay1, TTiles.UnscaledUpper(tiles, Bf16.ToFloat(w1)) + TTiles.UnscaledLower(tiles, Bf16.ToFloat(w3)));
        ArrayView<ushort> halves = weights.Cast<ushort>();
        WarpOps.Barrier(); // the last tile's weights are read before they are overwritten
        halves[(column * DecodeAttention.TilePositions) + row] = w0;
        halves[((column + 1) * DecodeAttention.TilePositions) + row] = w1;
        halves[(column * DecodeAttention.TilePositions) + row + 8] = w2;
        halves[((column + 1) * DecodeAttention.TilePositions) + row + 8] = w3;
        WarpOps.Barrier(); // and these are written before they are read
        state.First0 = Scaled(state.First0, decay0, decay1);
        state.First1 = Scaled(state.First1, decay0, decay1);
        state.First2 = Scaled(state.First2, decay0, decay1);
        state.First3 = Scaled(state.First3, decay0, decay1);
        if (THead.Halves == 2)
        {
            state.Second0 = Scaled(state.Second0, decay0, decay1);
            state.Second1 = Scaled(state.Second1, decay0, decay1);
            state.Second2 = Scaled(state.Second2, decay0, decay1);
            state.Second3 = Scaled(state.Second3, decay0, decay1);
        }
    }

    // Over the lanes that have other positions of the same heads; NaN stays.
    private static float Largest(float x)
    {
        x = BlockOps.Larger(x, WarpOps.ShuffleXor(x, 4));
        x = BlockOps.Larger(x, WarpOps.ShuffleXor(x, 8));
        return BlockOps.Larger(x, WarpOps.ShuffleXor(x, 16));
    }

    private static F4 Scaled(F4 sum, float first, float second)
    {
        sum.X *= first;
        sum.Y *= second;
        sum.Z *= first;
        sum.W *= second;
        return sum;
    }

    /// <summary>Adds weights · values: columns of the values are the rows of the product, heads its columns.</summary>
    public static void Add<THead>(ArrayView<uint> weights, AttentionValues v, ref AttentionState state)
        where THead : struct, IHeadWidth
    {
        int lane = Group.IdxX & 31;
        // Head g, positions 4t … 4t + 3.
        U2 w = Mem.LoadShared2(ref weights[((lane >> 2) * (DecodeAttention.TilePositions / 2)) + ((lane & 3) * 2)]);
        state.First0 = Transposed(v.First0.X, v.First1.X, v.First2.X, v.First3.X, w, state.First0);
        state.First1 = Transposed(v.First0.Y, v.First1.Y, v.First2.Y, v.First3.Y, w, state.First1);
        state.First2 = Transposed(v.First0.Z, v.First1.Z, v.First2.Z, v.First3.Z, w, state.First2);
        state.First3 = Transposed(v.First0.W, v.First1.W, v.First2.W, v.First3.W, w, state.First3);
        if (THead.Halves == 2)
        {
            state.Second0 = Transposed(v.Second0.X, v.Second1.X, v.Second2.X, v.Second3.X, w, state.Second0);
            state.Second1 = Transposed(v.Second0.Y, v.Second1.Y, v.Second2.Y, v.Second3.Y, w, state.Second1);
            state.Second2 = Transposed(v.Second0.Z, v.Second1.Z, v.Second2.Z, v.Second3.Z, w, state.Second2);
            state.Second3 = Transposed(v.Second0.W, v.Second1.W, v.Second2.W, v.Second3.W, w, state.Second3);
        }
    }

    // Two columns of four positions: the low halves are row g of the operand, the high ones row g + 8.
    private static F4 Transposed(uint p0, uint p1, uint p2, uint p3, U2 w, F4 sum) => Multiply(
        Bits.Prmt(p0, p1, 0x5410u), Bits.Prmt(p0, p1, 0x7632u), Bits.Prmt(p2, p3, 0x5410u), Bits.Prmt(p2, p3, 0x7632u), w.X, w.Y, sum);
}
