using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>One lane's codes of 16 keys: 16 of each 64 columns of the rows g and g + 8, and the scales of these rows.</summary>
internal struct AttentionKeyCodes
{
    public U4 Upper0, Upper1;
    public U4 Lower0, Lower1;
    public float UpperScale, LowerScale;
}

/// <summary>One lane's codes of 16 values: columns 8g … 8g + 7 of each half of the rows 4t … 4t + 3; and the scales of the rows g and g + 8, whose weights it makes.</summary>
internal struct AttentionValueCodes
{
    public U2 First0, First1, First2, First3;
    public U2 Second0, Second1, Second2, Second3;
    public float UpperScale, LowerScale;
}

/// <summary>
/// E4M3 codes with a scale a row, as <see cref="Fp8Cells"/> stores them. Codes become BF16 exactly on their way to the tensor cores; a key's scale multiplies its scores, a value's its
/// weights before they are rounded, and the mass counts what a rounded product is worth. Any code is a finite number, so that values behind the last position need no zeros.
/// </summary>
internal struct Fp8Tiles : IAttentionTiles<Fp8Tiles>
{
    // Where a scale stands behind a new head's codes in shared memory.
    private const int ScaleWord = 32;

    // Below it a weight's product may vanish, and nothing that it multiplies matters.
    private const float LeastScale = 7.888609e-31f;

    public AttentionKeyCodes Keys;
    public AttentionValueCodes Values;

    public static bool HasScales => true;

    private static int RowWords<THead>()
        where THead : struct, IHeadWidth => 16 * THead.Halves;

    public static void LoadKeys<THead>(ref Fp8Tiles tiles, DecodeAttentionArgs a, int tile, int position, int lane)
        where THead : struct, IHeadWidth
    {
        (long upper, long lower) = Rows(a, tile, position, lane);
        int word = (lane & 3) * 4;
        tiles.Keys.Upper0 = Mem.LoadL2(ref a.Keys[(upper * RowWords<THead>()) + word]);
        tiles.Keys.Lower0 = Mem.LoadL2(ref a.Keys[(lower * RowWords<THead>()) + word]);
        if (THead.Halves == 2)
        {
            tiles.Keys.Upper1 = Mem.LoadL2(ref a.Keys[(upper * RowWords<THead>()) + word + 16]);
            tiles.Keys.Lower1 = Mem.LoadL2(ref a.Keys[(lower * RowWords<THead>()) + word + 16]);
        }
        tiles.Keys.UpperScale = Scale(a.KeyScales, upper);
        tiles.Keys.LowerScale = Scale(a.KeyScales, lower);
    }

    public static void LoadValues<THead>(ref Fp8Tiles tiles, DecodeAttentionArgs a, int tile, int position, int lane)
        where THead : struct, IHeadWidth
    {
        long head = (long)a.KvHead * a.Capacity;
        int row = (tile * DecodeAttention.TilePositions) + ((lane & 3) * 4), word = (lane >> 2) * 2;
        long r0 = ((head + IntrinsicMath.Min(row, position)) * RowWords<THead>()) + word, r1 = ((head + IntrinsicMath.Min(row + 1, position)) * RowWords<THead>()) + word;
        long r2 = ((head + IntrinsicMath.Min(row + 2, position)) * RowWords<THead>()) + word, r3 = ((head + IntrinsicMath.Min(row + 3, position)) * RowWords<THead>()) + word;
        tiles.Values.First0 = Mem.LoadL2Pair(ref a.Values[r0]);
        tiles.Values.First1 = Mem.LoadL2Pair(ref a.Values[r1]);
        tiles.Values.First2 = Mem.LoadL2Pair(ref a.Values[r2]);
        tiles.Values.First3 = Mem.LoadL2Pair(ref a.Values[r3]);
        if (THead.Halves == 2)
        {
            tiles.Values.Second0 = Mem.LoadL2Pair(ref a.Values[r0 + 16]);
            tiles.Values.Second1 = Mem.LoadL2Pair(ref a.Values[r1 + 16]);
            tiles.Values.Second2 = Mem.LoadL2Pair(ref a.Values[r2 + 16]);
            tiles.Values.Second3 = Mem.LoadL2Pair(ref a.Values[r3 + 16]);
        }
        (long upper, long lower) = Rows(a, tile, position, lane);
        tiles.Values.UpperScale = Scale(a.ValueScales, upper);
        tiles.Values.LowerScale = Scale(a.ValueScales, lower);
    }

    // Rows g and g + 8 of a tile; from the new token's on repeated, and replaced or masked.
    private static (long Upper, long Lower) Rows(DecodeAttentionArgs a, int tile, int position, int lane)
    {
        long head = (long)a.KvHead * a.Capacity;
        int row = (tile * DecodeAttention.TilePositions) + (lane >> 2);
        return (head + IntrinsicMath.Min(row, position), head + IntrinsicMath.Min(row + 8, position));
    }

    private static float Scale(ArrayView<float> scales, long row) => Interop.IntAsFloat(Mem.LoadL2Word(ref scales.Cast<uint>()[row]));

    public static AttentionQueries LoadQueries<THead>(ArrayView<uint> heads, int lane)
        where THead : struct, IHeadWidth
    {
        // 16 neighbouring columns a lane.
        int word = ((lane >> 2) * AttentionTiles.HeadWords) + ((lane & 3) * 8);
        AttentionQueries queries = default;
        queries.Q0 = Mem.LoadShared(ref heads[word]);
        queries.Q1 = Mem.LoadShared(ref heads[word + 4]);
        if (THead.Halves == 2)
        {
            queries.Q2 = Mem.LoadShared(ref heads[word + 32]);
            queries.Q3 = Mem.LoadShared(ref heads[word + 36]);
        }
        return queries;
    }

    public static void StoreKey<THead>(DecodeAttentionArgs a, ArrayView<uint> head, long row, int lane)
        where THead : struct, IHeadWidth => Store<THead>(head, a.Keys, a.KeyScales, row, lane);

    public static void StoreValue<THead>(DecodeAttentionArgs a, ArrayView<uint> head, uint value0, uint value1, long row, int lane)
        where THead : struct, IHeadWidth
    {
        head[lane] = value0;
        if (THead.Halves == 2)
            head[lane + 32] = value1;
        WarpOps.Barrier(); // the warp has written the whole value
        Store<THead>(head, a.Values, a.ValueScales, row, lane);
    }

    // A lane quantises four columns; its codes take the place of what the warp has read.
    private static void Store<THead>(ArrayView<uint> head, ArrayView<uint> codes, ArrayView<float> scales, long row, int lane)
        where THead : struct, IHeadWidth
    {
        U2 pairs = default;
        if (lane < RowWords<THead>())
            pairs = Mem.LoadShared2(ref head[2 * lane]);
        float scale = Fp8Row.Scale(WarpOps.Max(Fp8Row.Largest(pairs)));
        WarpOps.Barrier(); // all numbers are read before codes overwrite them
        if (lane < RowWords<THead>())
        {
            uint word = Fp8Row.Encode(pairs.X, scale) | ((uint)Fp8Row.Encode(pairs.Y, scale) << 16);
            head[lane] = word;
            codes[(row * RowWords<THead>()) + lane] = word;
        }
        if (lane == 0)
        {
            head[ScaleWord] = Interop.FloatAsInt(scale);
            scales[row] = scale;
        }
    }

    public static F4 Scores<THead>(ref Fp8Tiles tiles, ArrayView<uint> heads, AttentionQueries queries, int tile, int position, int lane)
        where THead : struct, IHeadWidth
    {
        int row = (tile * DecodeAttention.TilePositions) + (lane >> 2);
        AttentionKeyCodes keys = tiles.Keys;
        int head = DecodeAttention.MostGroup * AttentionTiles.HeadWords, word = head + ((lane & 3) * 4);
        if (row == position)
        {
            keys.Upper0 = Mem.LoadShared(ref heads[word]);
            keys.Upper1 = Mem.LoadShared(ref heads[word + 16]);
            keys.UpperScale = Interop.IntAsFloat(heads[head + ScaleWord]);
        }
        if (row + 8 == position)
        {
            keys.Lower0 = Mem.LoadShared(ref heads[word]);
            keys.Lower1 = Mem.LoadShared(ref heads[word + 16]);
            keys.LowerScale = Interop.IntAsFloat(heads[head + ScaleWord]);
        }
        F4 scores = Multiply(keys.Upper0, keys.Lower0, queries.Q0, queries.Q1, default);
        if (THead.Halves == 2)
            scores = Multiply(keys.Upper1, keys.Lower1, queries.Q2, queries.Q3, scores);
        scores.X *= keys.UpperScale;
        scores.Y *= keys.UpperScale;
        scores.Z *= keys.LowerScale;
        scores.W *= keys.LowerScale;
        // The weights of these rows come next.
        float own = Interop.IntAsFloat(heads[head + AttentionTiles.HeadWords + ScaleWord]);
        tiles.Values.UpperScale = OfRow(tiles.Values.UpperScale, own, position - row);
        tiles.Values.LowerScale = OfRow(tiles.Values.LowerScale, own, position - row - 8);
        return scores;
    }

    // What memory holds of the new position and later ones is no scale.
    private static float OfRow(float loaded, float own, int before) => Fast.Max(before > 0 ? loaded : before == 0 ? own : 1f, LeastScale);

    // 16 columns of the rows g and g + 8.
    private static F4 Multiply(U4 upper, U4 lower, U4 x0, U4 x1, F4 sum)
    {
        sum = AttentionTiles.Multiply(Eight(upper.X, upper.Y), Eight(lower.X, lower.Y), x0, sum);
        return AttentionTiles.Multiply(Eight(upper.Z, upper.W), Eight(lower.Z, lower.W), x1, sum);
    }

    private static U4 Eight(uint first, uint second)
    {
        U4 words;
        words.X = Fp8BitMove.DecodePair(first, 0, default);
        words.Y = Fp8BitMove.DecodePair(first, 1, default);
        words.Z = Fp8BitMove.DecodePair(second, 0, default);
        words.W = Fp8BitMove.DecodePair(second, 1, default);
        return words;
    }

    public static float ScaledUpper(Fp8Tiles tiles, float weight) => weight * tiles.Values.UpperScale;

    public static float ScaledLower(Fp8Tiles tiles, float weight) => weight * tiles.Values.LowerScale;

    public static float UnscaledUpper(Fp8Tiles tiles, float scaled) => Fast.Div(scaled, tiles.Values.UpperScale);

    public static float UnscaledLower(Fp8Tiles tiles, float scaled) => Fast.Div(scaled, tiles.Values.LowerScale);

    public static void Add<THead>(ref Fp8Tiles tiles, ArrayView<uint> heads, ArrayView<uint> weights, int tile, int position, int lane, ref AttentionState state)
        where THead : struct, IHeadWidth
    {
        int row = (tile * DecodeAttention.TilePositions) + ((lane & 3) * 4), word = ((DecodeAttention.MostGroup + 1) * AttentionTiles.HeadWords) + ((lane >> 2) * 2);
        AttentionValueCodes v = tiles.Values;
        v.First0 = row == position ? Mem.LoadShared2(ref heads[word]) : v.First0;
        v.First1 = row + 1 == position ? Mem.LoadShared2(ref heads[word]) : v.First1;
        v.First2 = row + 2 == position ? Mem.LoadShared2(ref heads[word]) : v.First2;
        v.First3 = row + 3 == position ? Mem.LoadShared2(ref heads[word]) : v.First3;
        // Head g, positions 4t … 4t + 3.
        U2 w = Mem.LoadShared2(ref weights[((lane >> 2) * (DecodeAttention.TilePositions / 2)) + ((lane & 3) * 2)]);
        state.First0 = Lower(v.First0.X, v.First1.X, v.First2.X, v.First3.X, w, state.First0);
        state.First1 = Upper(v.First0.X, v.First1.X, v.First2.X, v.First3.X, w, state.First1);
        state.First2 = Lower(v.First0.Y, v.First1.Y, v.First2.Y, v.First3.Y, w, state.First2);
        state.First3 = Upper(v.First0.Y, v.First1.Y, v.First2.Y, v.First3.Y, w, state.First3);
        if (THead.Halves == 2)
        {
            v.Second0 = row == position ? Mem.LoadShared2(ref heads[word + 16]) : v.Second0;
            v.Second1 = row + 1 == position ? Mem.LoadShared2(ref heads[word + 16]) : v.Second1;
            v.Second2 = row + 2 == position ? Mem.LoadShared2(ref heads[word + 16]) : v.Second2;
            v.Second3 = row + 3 == position ? Mem.LoadShared2(ref heads[word + 16]) : v.Second3;
            state.Second0 = Lower(v.Second0.X, v.Second1.X, v.Second2.X, v.Second3.X, w, state.Second0);
            state.Second1 = Upper(v.Second0.X, v.Second1.X, v.Second2.X, v.Second3.X, w, state.Second1);
            state.Second2 = Lower(v.Second0.Y, v.Second1.Y, v.Second2.Y, v.Second3.Y, w, state.Second2);
            state.Second3 = Upper(v.Second0.Y, v.Second1.Y, v.Second2.Y, v.Second3.Y, w, state.Second3);
        }
    }

    // Columns 0 and 1 of four positions: the first is row g of the operand, the second row g + 8.
    private static F4 Lower(uint p0, uint p1, uint p2, uint p3, U2 w, F4 sum) => AttentionTiles.Multiply(
        Fp8BitMove.Decode(Bits.Prmt(p0, p1, 0x4000u)), Fp8BitMove.Decode(Bits.Prmt(p0, p1, 0x5111u)),
        Fp8BitMove.Decode(Bits.Prmt(p2, p3, 0x4000u)), Fp8BitMove.Decode(Bits.Prmt(p2, p3, 0x5111u)), w.X, w.Y, sum);

    // Columns 2 and 3.
    private static F4 Upper(uint p0, uint p1, uint p2, uint p3, U2 w, F4 sum) => AttentionTiles.Multiply(
        Fp8BitMove.Decode(Bits.Prmt(p0, p1, 0x6222u)), Fp8BitMove.Decode(Bits.Prmt(p0, p1, 0x7333u)),
        Fp8BitMove.Decode(Bits.Prmt(p2, p3, 0x6222u)), Fp8BitMove.Decode(Bits.Prmt(p2, p3, 0x7333u)), w.X, w.Y, sum);
}
