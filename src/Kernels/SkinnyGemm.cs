using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Products with at most 16 rows of x at the speed of the memory: y[m, n] = Σ_k x[m, k] · W[n, k] through tensor cores, the
/// weights as the 16-row operand and the rows of x as its 8 columns.
/// </summary>
/// <remarks>
/// A block computes 16 rows of W at a time; its warps take turns along K, 128 bytes of each row at a time (a chunk), and add
/// up through shared memory in warp order. Lane (g, t) loads 16-byte words of rows g and g + 8 straight into registers; a dot
/// product does not care how k is permuted as long as both operands agree, so a lane feeds its own consecutive codes to
/// consecutive mma's and needs no shuffles. Three chunks are in registers, each refilled right after it is multiplied, without
/// a branch or a copied register: either would make the warp wait for a load that it does not need yet. x comes through L1,
/// which the weights pass by. A column of an mma does not see the other columns and the plan looks at N and K only, so a row
/// of x has the same bits for every M of 1..16.
/// </remarks>
internal static class SkinnyGemm
{
    public const int Rows = 16;
    public const int MostWarps = 16;

    /// <summary>Most rows of x.</summary>
    public const int MostInputs = 2 * Columns;

    /// <summary>Columns of one tile of x; two tiles serve 9..16 rows.</summary>
    public const int Columns = 8;

    /// <summary>Dynamic shared memory of a block: one sum a warp, row and column.</summary>
    public static int SharedBytes(int warps, int m) => warps * (m > Columns ? 2 : 1) * Rows * Columns * sizeof(float);

    /// <summary>One lane's weights of a chunk: two words of row g, two of row g + 8, and their scales.</summary>
    private struct Chunk
    {
        public U4 Upper0, Upper1, Lower0, Lower1;
        public float UpperScale, LowerScale;
    }

    /// <summary>One lane's part of x for a chunk (a BF16 chunk uses the first half of each).</summary>
    private struct Inputs
    {
        public U4 X0, X1, X2, X3;
    }

    /// <summary>Where a lane reads: the first codes and scales of its two rows, its columns of x.</summary>
    private struct Place
    {
        public long Upper, Lower;
        public long UpperScales, LowerScales;
        public long Input0, Input1;
    }

    public static void Run<TFormat, TOutput, TTiles>(LinearArgs a)
        where TFormat : struct, IStreamedFormat
        where TOutput : struct, IOutput
        where TTiles : struct, ITiles
    {
        ArrayView<float> partials = SharedMemory.GetDynamic<byte>().Cast<float>();
        int lane = Group.IdxX & 31, warp = Group.IdxX >> 5, warps = Group.DimX >> 5;
        int tiles = (a.N + Rows - 1) >> 4;
        int chunks = a.K / TFormat.ChunkCodes;
        int column = (lane & 3) * TFormat.WordCodes;
        for (int tile = Grid.IdxX; tile < tiles; tile += Grid.DimX)
        {
            Place place = Locate<TFormat>(a, tile, lane >> 2, column);
            F4 sum0 = default, sum1 = default;
            int c = warp;
            if (c < chunks)
            {
                // Three chunks in registers, each refilled as soon as it is multiplied: no register is copied, so nothing
                // waits for a load but the multiplication that needs it. Past the end the last chunk is read again.
                int last = chunks - 1;
                Chunk first = Load<TFormat>(a, place, c);
                Chunk second = Load<TFormat>(a, place, IntrinsicMath.Min(c + warps, last));
                Chunk third = Load<TFormat>(a, place, IntrinsicMath.Min(c + (2 * warps), last));
                for (; c + (2 * warps) < chunks; c += 3 * warps)
                {
                    Multiply<TFormat, TTiles>(a, place, first, c, ref sum0, ref sum1);
                    first = Load<TFormat>(a, place, IntrinsicMath.Min(c + (3 * warps), last));
                    Multiply<TFormat, TTiles>(a, place, second, c + warps, ref sum0, ref sum1);
                    second = Load<TFormat>(a, place, IntrinsicMath.Min(c + (4 * warps), last));
                    Multiply<TFormat, TTiles>(a, place, third, c + (2 * warps), ref sum0, ref sum1);
                    third = Load<TFormat>(a, place, IntrinsicMath.Min(c + (5 * warps), last));
                }
                if (c < chunks)
                    Multiply<TFormat, TTiles>(a, place, first, c, ref sum0, ref sum1);
                if (c + warps < chunks)
                    Multiply<TFormat, TTiles>(a, place, second, c + warps, ref sum0, ref sum1);
            }
            // What is left of K is the turn of the warp after the last full chunk.
            if (chunks * TFormat.ChunkCodes < a.K && chunks % warps == warp)
                MultiplyRest<TFormat, TTiles>(a, place, chunks, column, ref sum0, ref sum1);
            SkinnySums.Publish<TTiles>(partials, warp, lane, sum0, 0);
            if (TTiles.Count == 2)
                SkinnySums.Publish<TTiles>(partials, warp, lane, sum1, 1);
            // All warps' sums of this tile are there before they are added.
            Group.Barrier();
            for (int i = Group.IdxX; i < Rows * Columns * TTiles.Count; i += Group.DimX)
                SkinnySums.Store<TOutput, TTiles>(a, partials, i, warps, tile);
            // They are read before the next tile overwrites them.
            Group.Barrier();
        }
    }

    // Rows beyond the matrix repeat its last row, columns of x beyond M the last one; they are not stored.
    private static Place Locate<TFormat>(LinearArgs a, int tile, int group, int column)
        where TFormat : struct, IStreamedFormat
    {
        int upper = IntrinsicMath.Min((tile * Rows) + group, a.N - 1), lower = IntrinsicMath.Min((tile * Rows) + group + 8, a.N - 1);
        Place place;
        place.Upper = ((long)upper * a.K) + column;
        place.Lower = ((long)lower * a.K) + column;
        place.UpperScales = a.ScaleIndex(0, upper, 0);
        place.LowerScales = a.ScaleIndex(0, lower, 0);
        place.Input0 = ((long)IntrinsicMath.Min(group, a.M - 1) * a.K) + column;
        place.Input1 = ((long)IntrinsicMath.Min(group + Columns, a.M - 1) * a.K) + column;
        return place;
    }

    private static Chunk Load<TFormat>(LinearArgs a, Place place, int chunk)
        where TFormat : struct, IStreamedFormat
    {
        Chunk loaded = default;
        ArrayView<uint> words = a.Codes.Cast<uint>();
        long k = (long)chunk * TFormat.ChunkCodes;
        long upper = (place.Upper + k) >> TFormat.CodesPerWordShift, lower = (place.Lower + k) >> TFormat.CodesPerWordShift;
        // The second word of a row's 128 bytes lies 64 bytes on.
        loaded.Upper0 = Mem.LoadStream(ref words[upper]);
        loaded.Upper1 = Mem.LoadStream(ref words[upper + 16]);
        loaded.Lower0 = Mem.LoadStream(ref words[lower]);
        loaded.Lower1 = Mem.LoadStream(ref words[lower + 16]);
        LoadScales<TFormat>(a, place, chunk, ref loaded);
        return loaded;
    }

    private static void LoadScales<TFormat>(LinearArgs a, Place place, int chunk, ref Chunk loaded)
        where TFormat : struct, IStreamedFormat
    {
        if (TFormat.IsScaled)
        {
            int block = (chunk * TFormat.ChunkCodes) >> a.ColumnShift;
            loaded.UpperScale = a.Scales[place.UpperScales + block];
            loaded.LowerScale = a.Scales[place.LowerScales + block];
        }
    }

    private static void Multiply<TFormat, TTiles>(LinearArgs a, Place place, Chunk chunk, int c, ref F4 sum0, ref F4 sum1)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        sum0 = Accumulate<TFormat>(sum0, Multiply<TFormat>(chunk, LoadInputs<TFormat>(a, place.Input0, c)), chunk);
        if (TTiles.Count == 2)
            sum1 = Accumulate<TFormat>(sum1, Multiply<TFormat>(chunk, LoadInputs<TFormat>(a, place.Input1, c)), chunk);
    }

    // A chunk of which K covers only the first words: the others are zeros on both sides.
    private static void MultiplyRest<TFormat, TTiles>(LinearArgs a, Place place, int chunk, int column, ref F4 sum0, ref F4 sum1)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        ArrayView<uint> words = a.Codes.Cast<uint>(), x = a.X.Cast<uint>();
        Chunk rest = default;
        Inputs inputs0 = default, inputs1 = default;
        long k = (long)chunk * TFormat.ChunkCodes;
        // Inputs of a lane's second word begin 4·WordCodes values on, two in a 32-bit word.
        int second = 2 * TFormat.WordCodes;
        if (k + column < a.K)
        {
            rest.Upper0 = Mem.LoadStream(ref words[(place.Upper + k) >> TFormat.CodesPerWordShift]);
            rest.Lower0 = Mem.LoadStream(ref words[(place.Lower + k) >> TFormat.CodesPerWordShift]);
            LoadHalf<TFormat>(x, (place.Input0 + k) >> 1, ref inputs0.X0, ref inputs0.X1);
            LoadHalf<TFormat>(x, (place.Input1 + k) >> 1, ref inputs1.X0, ref inputs1.X1);
        }
        if (k + column + (4 * TFormat.WordCodes) < a.K)
        {
            rest.Upper1 = Mem.LoadStream(ref words[((place.Upper + k) >> TFormat.CodesPerWordShift) + 16]);
            rest.Lower1 = Mem.LoadStream(ref words[((place.Lower + k) >> TFormat.CodesPerWordShift) + 16]);
            LoadHalf<TFormat>(x, ((place.Input0 + k) >> 1) + second, ref inputs0.X2, ref inputs0.X3);
            LoadHalf<TFormat>(x, ((place.Input1 + k) >> 1) + second, ref inputs1.X2, ref inputs1.X3);
        }
        LoadScales<TFormat>(a, place, chunk, ref rest);
        sum0 = Accumulate<TFormat>(sum0, Multiply<TFormat>(rest, inputs0), rest);
        if (TTiles.Count == 2)
            sum1 = Accumulate<TFormat>(sum1, Multiply<TFormat>(rest, inputs1), rest);
    }

    private static void LoadHalf<TFormat>(ArrayView<uint> x, long start, ref U4 first, ref U4 second)
        where TFormat : struct, IStreamedFormat
    {
        first = Mem.LoadReadOnly(ref x[start]);
        if (TFormat.WordCodes == 16)
            second = Mem.LoadReadOnly(ref x[start + 4]);
    }

    private static Inputs LoadInputs<TFormat>(LinearArgs a, long input, int c)
        where TFormat : struct, IStreamedFormat
    {
        Inputs inputs = default;
        ArrayView<uint> x = a.X.Cast<uint>();
        long first = (input + ((long)c * TFormat.ChunkCodes)) >> 1;
        int second = 2 * TFormat.WordCodes;
        LoadHalf<TFormat>(x, first, ref inputs.X0, ref inputs.X1);
        LoadHalf<TFormat>(x, first + second, ref inputs.X2, ref inputs.X3);
        return inputs;
    }

    private static F4 Multiply<TFormat>(Chunk w, Inputs x)
        where TFormat : struct, IStreamedFormat
    {
        F4 sum = default;
        if (TFormat.WordCodes == 8)
        {
            sum = MultiplyBf16(w.Upper0, w.Lower0, x.X0, sum);
            return MultiplyBf16(w.Upper1, w.Lower1, x.X2, sum);
        }
        sum = MultiplyWord<TFormat>(w.Upper0.X, w.Lower0.X, x.X0.X, x.X0.Y, sum);
        sum = MultiplyWord<TFormat>(w.Upper0.Y, w.Lower0.Y, x.X0.Z, x.X0.W, sum);
        sum = MultiplyWord<TFormat>(w.Upper0.Z, w.Lower0.Z, x.X1.X, x.X1.Y, sum);
        sum = MultiplyWord<TFormat>(w.Upper0.W, w.Lower0.W, x.X1.Z, x.X1.W, sum);
        sum = MultiplyWord<TFormat>(w.Upper1.X, w.Lower1.X, x.X2.X, x.X2.Y, sum);
        sum = MultiplyWord<TFormat>(w.Upper1.Y, w.Lower1.Y, x.X2.Z, x.X2.W, sum);
        sum = MultiplyWord<TFormat>(w.Upper1.Z, w.Lower1.Z, x.X3.X, x.X3.Y, sum);
        return MultiplyWord<TFormat>(w.Upper1.W, w.Lower1.W, x.X3.Z, x.X3.W, sum);
    }

    private static F4 MultiplyBf16(U4 upper, U4 lower, U4 x, F4 sum)
    {
        sum = Multiply(upper.X, lower.X, upper.Y, lower.Y, x.X, x.Y, sum);
        return Multiply(upper.Z, lower.Z, upper.W, lower.W, x.Z, x.W, sum);
    }

    private static F4 MultiplyWord<TFormat>(uint upper, uint lower, uint x01, uint x23, F4 sum)
        where TFormat : struct, IStreamedFormat
    {
        U2 u = TFormat.DecodeWord(upper), l = TFormat.DecodeWord(lower), x = TFormat.ArrangeInputs(x01, x23);
        return Multiply(u.X, l.X, u.Y, l.Y, x.X, x.Y, sum);
    }

    private static F4 Multiply(uint a0, uint a1, uint a2, uint a3, uint x0, uint x1, F4 sum)
    {
        U4 weights;
        weights.X = a0;
        weights.Y = a1;
        weights.Z = a2;
        weights.W = a3;
        U2 inputs;
        inputs.X = x0;
        inputs.Y = x1;
        return Mma.Bf16(weights, inputs, sum);
    }

    // Registers X and Y belong to row g, Z and W to row g + 8.
    private static F4 Accumulate<TFormat>(F4 sum, F4 part, Chunk scales)
        where TFormat : struct, IStreamedFormat
    {
        float upper = TFormat.IsScaled ? scales.UpperScale * TFormat.Correction : 1f;
        float lower = TFormat.IsScaled ? scales.LowerScale * TFormat.Correction : 1f;
        sum.X = Fast.Fma(part.X, upper, sum.X);
        sum.Y = Fast.Fma(part.Y, upper, sum.Y);
        sum.Z = Fast.Fma(part.Z, lower, sum.Z);
        sum.W = Fast.Fma(part.W, lower, sum.W);
        return sum;
    }
}
