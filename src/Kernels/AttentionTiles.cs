using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>One lane's words of 16 keys: 16 bytes of each 64 of the rows g and g + 8.</summary>
internal struct AttentionKeys
{
    public U4 Upper0, Upper1, Upper2, Upper3;
    public U4 Lower0, Lower1, Lower2, Lower3;
}

/// <summary>One lane's words of query head g, as those of a key.</summary>
internal struct AttentionQueries
{
    public U4 Q0, Q1, Q2, Q3;
}

/// <summary>Products of the values of two tiles.</summary>
internal struct AttentionProducts
{
    public F4 First, Second;
}

/// <summary>A warp's online softmax of the heads 2t and 2t + 1: the largest score, in base 2, and the lane's part of the mass.</summary>
internal struct AttentionState
{
    public float Largest0, Largest1;
    public float Mass0, Mass1;
}

/// <summary>One lane's sums of a block, of the heads 2t and 2t + 1: the largest scores that they are relative to, and 16 columns; a second 16 where a block has too few warps for all.</summary>
internal struct AttentionSums
{
    public float Largest0, Largest1;
    public F4 First, Second;
}

/// <summary>Where rows g and g + 8 of a tile lie in the cache; the new token's and later ones repeat the new token's, and are replaced or masked.</summary>
internal struct AttentionRows
{
    public long Upper, Lower;

    /// <summary>Positions from row g to the new token's.</summary>
    public int Before;
}

/// <summary>Tiles of 16 positions in <see cref="DecodeAttention"/>.</summary>
internal static class AttentionTiles
{
    // Words of a head in shared memory, whatever its width.
    public const int HeadWords = 64;

    // Where largest scores end and masses begin.
    private const int Masses = DecodeAttention.MostWarps * DecodeAttention.MostGroup;

    /// <summary>Largest scores of the warps' tiles, [warp][head], and masses, likewise.</summary>
    public const int MassWords = 2 * Masses;

    /// <summary>Weights of a tile, two heads a word: [position][head].</summary>
    public const int TileWeightWords = DecodeAttention.TilePositions * DecodeAttention.MostGroup / 2;

    /// <summary>Weights of a chunk.</summary>
    public const int WeightWords = DecodeAttention.MostWarps * TileWeightWords;

    public static AttentionRows Rows(DecodeAttentionArgs a, int tile, int position, int lane)
    {
        int row = (tile * DecodeAttention.TilePositions) + (lane >> 2);
        long head = (long)Grid.IdxY * a.Capacity;
        AttentionRows rows;
        rows.Upper = head + IntrinsicMath.Min(row, position);
        rows.Lower = head + IntrinsicMath.Min(row + 8, position);
        rows.Before = position - row;
        return rows;
    }

    /// <summary>The queries' fragments, from a lane's first word on.</summary>
    public static AttentionQueries LoadQueries<THead>(ArrayView<uint> heads, int word, int step)
        where THead : struct, IHeadWidth
    {
        AttentionQueries queries = default;
        queries.Q0 = Mem.LoadShared(ref heads[word]);
        queries.Q1 = Mem.LoadShared(ref heads[word + step]);
        if (THead.Halves == 2)
        {
            queries.Q2 = Mem.LoadShared(ref heads[word + 32]);
            queries.Q3 = Mem.LoadShared(ref heads[word + 32 + step]);
        }
        return queries;
    }

    /// <summary>What the lane has copied.</summary>
    public static AttentionKeys LoadKeys<THead>(ArrayView<uint> keys, int lane)
        where THead : struct, IHeadWidth
    {
        AttentionKeys k = default;
        int slot = lane * 4;
        k.Upper0 = Mem.LoadSharedAt(ref keys[slot], 0);
        k.Upper1 = Mem.LoadSharedAt(ref keys[slot], 512);
        k.Lower0 = Mem.LoadSharedAt(ref keys[slot], 1024);
        k.Lower1 = Mem.LoadSharedAt(ref keys[slot], 1536);
        if (THead.Halves == 2)
        {
            k.Upper2 = Mem.LoadSharedAt(ref keys[slot], 2048);
            k.Upper3 = Mem.LoadSharedAt(ref keys[slot], 2560);
            k.Lower2 = Mem.LoadSharedAt(ref keys[slot], 3072);
            k.Lower3 = Mem.LoadSharedAt(ref keys[slot], 3584);
        }
        return k;
    }

    /// <summary>Scores of 16 positions (rows) and eight heads (columns): two sums, so that no product waits for all the others.</summary>
    public static F4 Scores<THead>(AttentionKeys keys, AttentionQueries queries)
        where THead : struct, IHeadWidth
    {
        F4 even = Multiply(keys.Upper0, keys.Lower0, queries.Q0, default), odd = Multiply(keys.Upper1, keys.Lower1, queries.Q1, default);
        if (THead.Halves == 2)
        {
            even = Multiply(keys.Upper2, keys.Lower2, queries.Q2, even);
            odd = Multiply(keys.Upper3, keys.Lower3, queries.Q3, odd);
        }
        return Sum(even, odd);
    }

    public static F4 Sum(F4 a, F4 b)
    {
        a.X += b.X;
        a.Y += b.Y;
        a.Z += b.Z;
        a.W += b.W;
        return a;
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

    /// <summary>Scores of the calling warp's tile to weights in BF16; positions after the new token's weigh nothing.</summary>
    public static void Weigh<TTiles>(ArrayView<uint> weights, F4 scores, AttentionScales scales, float scale, int before, ref AttentionState state)
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        float s0 = scores.X * scale, s1 = scores.Y * scale, s2 = scores.Z * scale, s3 = scores.W * scale;
        scores.X = before >= 0 ? s0 : float.NegativeInfinity;
        scores.Y = before >= 0 ? s1 : float.NegativeInfinity;
        scores.Z = before >= 8 ? s2 : float.NegativeInfinity;
        scores.W = before >= 8 ? s3 : float.NegativeInfinity;
        float largest0 = Fast.Max(state.Largest0, Largest(Fast.Max(scores.X, scores.Z))), largest1 = Fast.Max(state.Largest1, Largest(Fast.Max(scores.Y, scores.W)));
        float decay0 = Fast.Ex2(state.Largest0 - largest0), decay1 = Fast.Ex2(state.Largest1 - largest1);
        state.Largest0 = largest0;
        state.Largest1 = largest1;
        float w0 = Fast.Ex2(scores.X - largest0), w1 = Fast.Ex2(scores.Y - largest1), w2 = Fast.Ex2(scores.Z - largest0), w3 = Fast.Ex2(scores.W - largest1);
        // What multiplies the stored numbers of a row.
        uint upper = TTiles.HasScales ? Bf16.Pack(w0 * scales.UpperValue, w1 * scales.UpperValue) : Bf16.Pack(w0, w1);
        uint lower = TTiles.HasScales ? Bf16.Pack(w2 * scales.LowerValue, w3 * scales.LowerValue) : Bf16.Pack(w2, w3);
        // Lane after lane: position g, heads 2t and 2t + 1.
        int at = ((Group.IdxX >> 5) * TileWeightWords) + (Group.IdxX & 31);
        Mem.StoreSharedWordAt(ref weights[at], 0, upper);
        Mem.StoreSharedWordAt(ref weights[at], 128, lower);
        // What is added is what is multiplied by.
        state.Mass0 = Fast.Fma(state.Mass0, decay0, Worth<TTiles>(Bf16.Low(upper), scales.UpperValue) + Worth<TTiles>(Bf16.Low(lower), scales.LowerValue));
        state.Mass1 = Fast.Fma(state.Mass1, decay1, Worth<TTiles>(Bf16.High(upper), scales.UpperValue) + Worth<TTiles>(Bf16.High(lower), scales.LowerValue));
    }

    // The weight that a rounded product stands for.
    private static float Worth<TTiles>(float product, float scale)
        where TTiles : struct, IAttentionTiles<TTiles> => TTiles.HasScales ? Fast.Div(product, scale) : product;

    // Over the lanes that have other positions of the same heads; NaN stays.
    private static float Largest(float x)
    {
        x = Fast.Max(x, WarpOps.ShuffleXor(x, 4));
        x = Fast.Max(x, WarpOps.ShuffleXor(x, 8));
        return Fast.Max(x, WarpOps.ShuffleXor(x, 16));
    }

    /// <summary>What the other warps must know of this one's tiles: largest scores, and after the last tile the mass.</summary>
    public static void Publish(ArrayView<float> masses, AttentionState state, bool isLast)
    {
        int lane = Group.IdxX & 31, at = ((Group.IdxX >> 5) * DecodeAttention.MostGroup) + (lane * 2);
        float mass0 = 0, mass1 = 0;
        // The same for the whole block.
        if (isLast)
        {
            mass0 = OverPositions(state.Mass0);
            mass1 = OverPositions(state.Mass1);
        }
        if (lane >= 4)
            return;
        ArrayView<uint> words = masses.Cast<uint>();
        Mem.StoreShared2(ref words[at], Pair(state.Largest0, state.Largest1));
        Mem.StoreShared2(ref words[at + Masses], Pair(mass0, mass1));
    }

    private static U2 Pair(float x, float y)
    {
        U2 pair;
        pair.X = Interop.FloatAsInt(x);
        pair.Y = Interop.FloatAsInt(y);
        return pair;
    }

    private static float OverPositions(float x)
    {
        x += WarpOps.ShuffleXor(x, 4);
        x += WarpOps.ShuffleXor(x, 8);
        return x + WarpOps.ShuffleXor(x, 16);
    }

    /// <summary>A warp's largest scores of the lane's heads; the warp's number is a constant.</summary>
    public static F2 LargestOf(ArrayView<float> masses, int warp) => Pair(masses, warp * DecodeAttention.MostGroup * sizeof(float));

    /// <summary>A warp's masses of the lane's heads, likewise.</summary>
    public static F2 MassOf(ArrayView<float> masses, int warp) => Pair(masses, (Masses + (warp * DecodeAttention.MostGroup)) * sizeof(float));

    private static F2 Pair(ArrayView<float> masses, int bytes)
    {
        U2 pair = Mem.LoadShared2At(ref masses.Cast<uint>()[(Group.IdxX & 3) * 2], bytes);
        F2 numbers;
        numbers.X = Interop.IntAsFloat(pair.X);
        numbers.Y = Interop.IntAsFloat(pair.Y);
        return numbers;
    }
}
