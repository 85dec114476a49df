using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Two numbers of a lane: one of row g of its warp's 16, one of row g + 8.</summary>
internal struct FlashRows
{
    public float Upper, Lower;
}

/// <summary>
/// A lane's part of 16 rows of queries × some columns, 16 or a multiple: scores (columns are positions) or outputs (columns are those of a
/// head). Compositions of <see cref="FlashBoth{TFirst, TSecond}"/> unroll every loop at compile time, so that all of it is registers and
/// offsets are constants.
/// </summary>
internal interface IFlashSums<TSelf>
    where TSelf : struct, IFlashSums<TSelf>
{
    /// <summary>Columns, a multiple of 16.</summary>
    static abstract int Columns { get; }

    /// <summary>Scores: adds 16 columns of the heads. Keys stand <see cref="FlashTiles.Pitch(int)"/> of <paramref name="headDim"/> bytes apart behind the lane's address.</summary>
    static abstract void AddKeys(ref TSelf scores, ArrayView<ushort> keys, int bytes, int headDim, U4 query);

    /// <summary>Outputs: adds 16 positions' values by their weights.</summary>
    static abstract void AddValues(ref TSelf outputs, ArrayView<ushort> values, int bytes, U4 weights);

    /// <summary>Scores that are weights by now: adds what they multiply to the outputs, and themselves to the mass.</summary>
    static abstract void Weigh<TOutputs>(TSelf weights, ref TOutputs outputs, ref F4 mass, ArrayView<ushort> values, int bytes, int headDim)
        where TOutputs : struct, IFlashSums<TOutputs>;

    /// <summary>Scores: columns from <paramref name="upper"/> or <paramref name="lower"/> on become −∞; both count from the lane's first column.</summary>
    static abstract void Mask(ref TSelf scores, int column, int upper, int lower);

    /// <summary>Scores: the larger of <paramref name="so"/> and the lane's largest; NaN stays.</summary>
    static abstract FlashRows Largest(TSelf scores, FlashRows so);

    /// <summary>Scores to weights: 2^(score · scale − shift).</summary>
    static abstract void Exponentiate(ref TSelf scores, float scale, FlashRows shift);

    /// <summary>Outputs: times a factor a row.</summary>
    static abstract void Multiply(ref TSelf outputs, FlashRows factors);

    /// <summary>Outputs: adds what is infinite or NaN of a position's values, from the lane's word of it on, to the rows that see it.</summary>
    static abstract void AddInfinities(ref TSelf outputs, ArrayView<uint> values, int word, bool upper, bool lower);

    /// <summary>Outputs to BF16, from the lane's word of each row on; a row whose word is negative is not stored.</summary>
    static abstract void Store(TSelf outputs, ArrayView<uint> target, int word, long upper, long lower);
}

/// <summary>Sixteen columns: two results of an mma. X and Y are columns 2t and 2t + 1 of row g, Z and W those of row g + 8.</summary>
internal struct FlashUnit : IFlashSums<FlashUnit>
{
    // 1 and 1 in BF16.
    private const uint Ones = 0x3F803F80;

    public F4 First, Second;

    public static int Columns => 16;

    public static void AddKeys(ref FlashUnit scores, ArrayView<ushort> keys, int bytes, int headDim, U4 query)
    {
        U4 rows = LdMatrix.X4At(ref keys[0], bytes);
        scores.First = Mma.Bf16(query, Pair(rows.X, rows.Y), scores.First);
        scores.Second = Mma.Bf16(query, Pair(rows.Z, rows.W), scores.Second);
    }

    public static void AddValues(ref FlashUnit outputs, ArrayView<ushort> values, int bytes, U4 weights)
    {
        U4 columns = LdMatrix.X4TransAt(ref values[0], bytes);
        outputs.First = Mma.Bf16(weights, Pair(columns.X, columns.Y), outputs.First);
        outputs.Second = Mma.Bf16(weights, Pair(columns.Z, columns.W), outputs.Second);
    }

    // A result of 16 columns is, rounded, the operand of 16 columns: no lane gives another anything.
    public static void Weigh<TOutputs>(FlashUnit weights, ref TOutputs outputs, ref F4 mass, ArrayView<ushort> values, int bytes, int headDim)
        where TOutputs : struct, IFlashSums<TOutputs>
    {
        U4 rounded;
        rounded.X = Bf16.Pack(weights.First.X, weights.First.Y);
        rounded.Y = Bf16.Pack(weights.First.Z, weights.First.W);
        rounded.Z = Bf16.Pack(weights.Second.X, weights.Second.Y);
        rounded.W = Bf16.Pack(weights.Second.Z, weights.Second.W);
        TOutputs.AddValues(ref outputs, values, bytes, rounded);
        // The mass is one more column, whose values are all 1: what is added is what is multiplied by, in the same order.
        mass = Mma.Bf16(rounded, Pair(Ones, Ones), mass);
    }

    public static void Mask(ref FlashUnit scores, int column, int upper, int lower)
    {
        scores.First = Masked(scores.First, column, upper, lower);
        scores.Second = Masked(scores.Second, column + 8, upper, lower);
    }

    public static FlashRows Largest(FlashUnit scores, FlashRows so)
    {
        so.Upper = Fast.Max(so.Upper, Fast.Max(Fast.Max(scores.First.X, scores.First.Y), Fast.Max(scores.Second.X, scores.Second.Y)));
        so.Lower = Fast.Max(so.Lower, Fast.Max(Fast.Max(scores.First.Z, scores.First.W), Fast.Max(scores.Second.Z, scores.Second.W)));
        return so;
    }

    public static void Exponentiate(ref FlashUnit scores, float scale, FlashRows shift)
    {
        scores.First = Powers(scores.First, scale, shift);
        scores.Second = Powers(scores.Second, scale, shift);
    }

    public static void Multiply(ref FlashUnit outputs, FlashRows factors)
    {
        outputs.First = Scaled(outputs.First, factors);
        outputs.Second = Scaled(outputs.Second, factors);
    }

    public static void AddInfinities(ref FlashUnit outputs, ArrayView<uint> values, int word, bool upper, bool lower)
    {
        outputs.First = WithInfinities(outputs.First, values[word], upper, lower);
        outputs.Second = WithInfinities(outputs.Second, values[word + 4], upper, lower);
    }

    public static void Store(FlashUnit outputs, ArrayView<uint> target, int word, long upper, long lower)
    {
        if (upper >= 0)
        {
            target[upper + word] = Bf16.Pack(outputs.First.X, outputs.First.Y);
            target[upper + word + 4] = Bf16.Pack(outputs.Second.X, outputs.Second.Y);
        }
        if (lower >= 0)
        {
            target[lower + word] = Bf16.Pack(outputs.First.Z, outputs.First.W);
            target[lower + word + 4] = Bf16.Pack(outputs.Second.Z, outputs.Second.W);
        }
    }

    /// <summary>A result of an mma times a factor a row.</summary>
    public static F4 Scaled(F4 sum, FlashRows factors)
    {
        sum.X *= factors.Upper;
        sum.Y *= factors.Upper;
        sum.Z *= factors.Lower;
        sum.W *= factors.Lower;
        return sum;
    }

    private static F4 WithInfinities(F4 sum, uint pair, bool upper, bool lower)
    {
        float low = FlashInfinities.OfLow(pair), high = FlashInfinities.OfHigh(pair);
        sum.X += upper ? low : 0;
        sum.Y += upper ? high : 0;
        sum.Z += lower ? low : 0;
        sum.W += lower ? high : 0;
        return sum;
    }

    private static F4 Masked(F4 scores, int column, int upper, int lower)
    {
        scores.X = column < upper ? scores.X : float.NegativeInfinity;
        scores.Y = column + 1 < upper ? scores.Y : float.NegativeInfinity;
        scores.Z = column < lower ? scores.Z : float.NegativeInfinity;
        scores.W = column + 1 < lower ? scores.W : float.NegativeInfinity;
        return scores;
    }

    private static F4 Powers(F4 scores, float scale, FlashRows shift)
    {
        scores.X = Fast.Ex2(Fast.Fma(scores.X, scale, -shift.Upper));
        scores.Y = Fast.Ex2(Fast.Fma(scores.Y, scale, -shift.Upper));
        scores.Z = Fast.Ex2(Fast.Fma(scores.Z, scale, -shift.Lower));
        scores.W = Fast.Ex2(Fast.Fma(scores.W, scale, -shift.Lower));
        return scores;
    }

    private static U2 Pair(uint x, uint y)
    {
        U2 pair;
        pair.X = x;
        pair.Y = y;
        return pair;
    }
}

/// <summary>The columns of one and then those of another.</summary>
internal struct FlashBoth<TFirst, TSecond> : IFlashSums<FlashBoth<TFirst, TSecond>>
    where TFirst : struct, IFlashSums<TFirst>
    where TSecond : struct, IFlashSums<TSecond>
{
    public TFirst First;
    public TSecond Second;

    public static int Columns => TFirst.Columns + TSecond.Columns;

    public static void AddKeys(ref FlashBoth<TFirst, TSecond> scores, ArrayView<ushort> keys, int bytes, int headDim, U4 query)
    {
        TFirst.AddKeys(ref scores.First, keys, bytes, headDim, query);
        TSecond.AddKeys(ref scores.Second, keys, bytes + (TFirst.Columns * FlashTiles.Pitch(headDim)), headDim, query);
    }

    public static void AddValues(ref FlashBoth<TFirst, TSecond> outputs, ArrayView<ushort> values, int bytes, U4 weights)
    {
        TFirst.AddValues(ref outputs.First, values, bytes, weights);
        TSecond.AddValues(ref outputs.Second, values, bytes + (TFirst.Columns * sizeof(ushort)), weights);
    }

    public static void Weigh<TOutputs>(FlashBoth<TFirst, TSecond> weights, ref TOutputs outputs, ref F4 mass, ArrayView<ushort> values, int bytes, int headDim)
        where TOutputs : struct, IFlashSums<TOutputs>
    {
        TFirst.Weigh(weights.First, ref outputs, ref mass, values, bytes, headDim);
        TSecond.Weigh(weights.Second, ref outputs, ref mass, values, bytes + (TFirst.Columns * FlashTiles.Pitch(headDim)), headDim);
    }

    public static void Mask(ref FlashBoth<TFirst, TSecond> scores, int column, int upper, int lower)
    {
        TFirst.Mask(ref scores.First, column, upper, lower);
        TSecond.Mask(ref scores.Second, column + TFirst.Columns, upper, lower);
    }

    public static FlashRows Largest(FlashBoth<TFirst, TSecond> scores, FlashRows so) => TSecond.Largest(scores.Second, TFirst.Largest(scores.First, so));

    public static void Exponentiate(ref FlashBoth<TFirst, TSecond> scores, float scale, FlashRows shift)
    {
        TFirst.Exponentiate(ref scores.First, scale, shift);
        TSecond.Exponentiate(ref scores.Second, scale, shift);
    }

    public static void Multiply(ref FlashBoth<TFirst, TSecond> outputs, FlashRows factors)
    {
        TFirst.Multiply(ref outputs.First, factors);
        TSecond.Multiply(ref outputs.Second, factors);
    }

    public static void AddInfinities(ref FlashBoth<TFirst, TSecond> outputs, ArrayView<uint> values, int word, bool upper, bool lower)
    {
        TFirst.AddInfinities(ref outputs.First, values, word, upper, lower);
        TSecond.AddInfinities(ref outputs.Second, values, word + (TFirst.Columns / 2), upper, lower);
    }

    public static void Store(FlashBoth<TFirst, TSecond> outputs, ArrayView<uint> target, int word, long upper, long lower)
    {
        TFirst.Store(outputs.First, target, word, upper, lower);
        TSecond.Store(outputs.Second, target, word + (TFirst.Columns / 2), upper, lower);
    }
}
