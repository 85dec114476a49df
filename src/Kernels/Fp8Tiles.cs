using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// E4M3 codes with a scale a row, as <see cref="Fp8Cells"/> stores them. Codes become BF16 exactly on their way to the tensor cores; a key's scale multiplies its scores, a value's its
/// weights before they are rounded, and the mass counts what a rounded product is worth.
/// </summary>
internal readonly struct Fp8Tiles : IAttentionTiles<Fp8Tiles>
{
    // Where a scale stands behind a new head's codes in shared memory.
    private const int ScaleWord = 32;

    // Below it a weight's product may vanish, and nothing that it multiplies matters.
    private const float LeastScale = 7.888609e-31f;

    public static bool HasScales => true;

    public static int HalfWords => 16;

    public static int ColumnStep => 1;

    public static int Column(int lane) => (lane >> 2) * 2;

    private static int RowWords<THead>()
        where THead : struct, IHeadWidth => 16 * THead.Halves;

    public static void CopyKeys<THead>(ArrayView<uint> keys, DecodeAttentionArgs a, AttentionRows rows, int lane)
        where THead : struct, IHeadWidth
    {
        int word = (lane & 3) * 4, slot = lane * 4;
        long upper = (rows.Upper * RowWords<THead>()) + word, lower = (rows.Lower * RowWords<THead>()) + word;
        CpAsync.Copy16(ref keys[slot], ref a.Keys[upper]);
        CpAsync.Copy16(ref keys[slot + 128], ref a.Keys[lower]);
        if (THead.Halves == 2)
        {
            CpAsync.Copy16(ref keys[slot + 256], ref a.Keys[upper + 16]);
            CpAsync.Copy16(ref keys[slot + 384], ref a.Keys[lower + 16]);
        }
    }

    public static AttentionScales LoadScales(DecodeAttentionArgs a, AttentionRows rows)
    {
        AttentionScales scales;
        scales.UpperKey = Scale(a.KeyScales, rows.Upper);
        scales.LowerKey = Scale(a.KeyScales, rows.Lower);
        scales.UpperValue = Scale(a.ValueScales, rows.Upper);
        scales.LowerValue = Scale(a.ValueScales, rows.Lower);
        return scales;
    }

    // Past L1: the last launch left an old row there.
    private static float Scale(ArrayView<float> scales, long row) => Interop.IntAsFloat(Mem.LoadL2Word(ref scales.Cast<uint>()[row]));

    // 16 neighbouring columns a lane.
    public static AttentionQueries LoadQueries<THead>(ArrayView<uint> heads, int lane)
        where THead : struct, IHeadWidth => AttentionTiles.LoadQueries<THead>(heads, ((lane >> 2) * AttentionTiles.HeadWords) + ((lane & 3) * 8), 4);

    public static void StoreKey<THead>(DecodeAttentionArgs a, ArrayView<uint> head, long row, int lane)
        where THead : struct, IHeadWidth => Store<THead>(head, a.Keys, a.KeyScales, row, lane);

    public static void StoreValue<THead>(DecodeAttentionArgs a, ArrayView<uint> head, U2 value, long row, int lane)
        where THead : struct, IHeadWidth
    {
        head[lane] = value.X;
        if (THead.Halves == 2)
            head[lane + 32] = value.Y;
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

    public static void PlaceKey<THead>(ArrayView<uint> keys, ArrayView<uint> heads, int before, int lane)
        where THead : struct, IHeadWidth
    {
        if (before != 0 && before != 8)
            return;
        int word = (DecodeAttention.MostGroup * AttentionTiles.HeadWords) + ((lane & 3) * 4), slot = (lane * 4) + (before * 16);
        Mem.StoreShared(ref keys[slot], Mem.LoadShared(ref heads[word]));
        if (THead.Halves == 2)
            Mem.StoreShared(ref keys[slot + 256], Mem.LoadShared(ref heads[word + 16]));
    }

    public static AttentionScales PlaceScales(ArrayView<uint> heads, AttentionScales scales, int before)
    {
        const int Key = DecodeAttention.MostGroup * AttentionTiles.HeadWords;
        float key = Interop.IntAsFloat(heads[Key + ScaleWord]), value = Interop.IntAsFloat(heads[Key + AttentionTiles.HeadWords + ScaleWord]);
        scales.UpperKey = before == 0 ? key : scales.UpperKey;
        scales.LowerKey = before == 8 ? key : scales.LowerKey;
        scales.UpperValue = OfRow(scales.UpperValue, value, before);
        scales.LowerValue = OfRow(scales.LowerValue, value, before - 8);
        return scales;
    }

    public static F4 Scores<THead>(ArrayView<uint> keys, AttentionQueries queries, AttentionScales scales, int lane)
        where THead : struct, IHeadWidth
    {
        int slot = lane * 4;
        U4 upper = Mem.LoadSharedAt(ref keys[slot], 0), lower = Mem.LoadSharedAt(ref keys[slot], 512);
        F4 scores = Multiply(upper, lower, queries.Q0, queries.Q1);
        if (THead.Halves == 2)
        {
            upper = Mem.LoadSharedAt(ref keys[slot], 1024);
            lower = Mem.LoadSharedAt(ref keys[slot], 1536);
            scores = AttentionTiles.Sum(scores, Multiply(upper, lower, queries.Q2, queries.Q3));
        }
        scores.X *= scales.UpperKey;
        scores.Y *= scales.UpperKey;
        scores.Z *= scales.LowerKey;
        scores.W *= scales.LowerKey;
        return scores;
    }

    // Before the new token's row, in it, or behind it.
    private static float OfRow(float loaded, float own, int before) => Fast.Max(before > 0 ? loaded : before == 0 ? own : 1f, LeastScale);

    // 16 columns of the rows g and g + 8.
    private static F4 Multiply(U4 upper, U4 lower, U4 x0, U4 x1)
    {
        F4 sum = AttentionTiles.Multiply(Eight(upper.X, upper.Y), Eight(lower.X, lower.Y), x0, default);
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

    // Two codes are one number to ldmatrix: a lane gets the columns 2g and 2g + 1 of two positions, the rows g and g + 8 of the operand; the upper lanes name the rows of the second tile.
    public static int ValueWord<THead>(int slice, int lane)
        where THead : struct, IHeadWidth => ((lane >> 4) * AttentionRing.TileWords<THead, Fp8Tiles>()) + ((lane & 15) * AttentionRing.PitchWords<THead, Fp8Tiles>()) + (slice * 4);

    public static AttentionProducts Multiply<THead>(ArrayView<uint> values, int word, int bytes, U4 weights)
        where THead : struct, IHeadWidth
    {
        U4 v = LdMatrix.X4TransAt(ref values.Cast<ushort>()[2 * word], bytes);
        AttentionProducts products;
        products.First = AttentionTiles.Multiply(Even(v.X), Odd(v.X), Even(v.Y), Odd(v.Y), weights.X, weights.Y, default);
        products.Second = AttentionTiles.Multiply(Even(v.Z), Odd(v.Z), Even(v.W), Odd(v.W), weights.Z, weights.W, default);
        return products;
    }

    private static uint Even(uint codes) => Fp8BitMove.Decode(Bits.Prmt(codes, 0, 0xA280u));

    private static uint Odd(uint codes) => Fp8BitMove.Decode(Bits.Prmt(codes, 0, 0xB391u));
}
