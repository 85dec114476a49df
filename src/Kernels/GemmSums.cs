using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>A lane's fragments of up to four times 16 rows of W and one step of 16 columns.</summary>
internal struct GemmFragments
{
    public U4 Row0, Row1, Row2, Row3;
}

/// <summary>What a lane multiplies its sums by: of each of two fragments the row g and the row g + 8.</summary>
internal struct GemmScales
{
    public float Upper0, Lower0, Upper1, Lower1;
}

/// <summary>
/// What a lane knows of the E4M3 multipliers of 64 columns, four groups of 16, the first in the lowest byte: of two fragments of W and of two of x
/// (<see cref="Mma.Nvfp4"/> says of which rows).
/// </summary>
internal struct GroupScales
{
    public uint Row0, Row1, First, Second;
}

/// <summary>
/// A lane's sums for two fragments of x (8 rows each) and some fragments of W (16 rows each). W is the operand of 16 rows, so that
/// decoded codes may go to any register and a fragment of x is a pair of neighbouring ones.
/// </summary>
internal interface IGemmPair<TSelf>
    where TSelf : struct, IGemmPair<TSelf>
{
    /// <summary>Fragments of W.</summary>
    static abstract int WeightTiles { get; }

    /// <summary>Adds the products of one step with both fragments of x.</summary>
    static abstract void Step<TFormat>(ref TSelf sums, GemmFragments w, U2 first, U2 second)
        where TFormat : struct, ITiledFormat;

    /// <summary>The same with E2M1 codes and their multipliers.</summary>
    static abstract void Step(ref TSelf sums, GemmFragments w, U2 first, U2 second, GroupScales scales);

    /// <summary>sums += part · scales.</summary>
    static abstract void Fold(ref TSelf sums, TSelf part, GemmScales scales);

    /// <summary>sums += part · inputs, which multiply the lane's rows of x: two of the first fragment, two of the second.</summary>
    static abstract void FoldInputs(ref TSelf sums, TSelf part, F4 inputs);

    /// <summary>Writes the sums to y's tile in shared memory, whose rows are <paramref name="pitch"/> bytes apart.</summary>
    static abstract void Publish(TSelf sums, ArrayView<uint> target, int bytes, int pitch);
}

/// <summary>A lane's sums for 16 rows of W and two fragments of x.</summary>
internal struct GemmPair1 : IGemmPair<GemmPair1>
{
    public F4 First, Second;

    public static int WeightTiles => 1;

    public static void Step<TFormat>(ref GemmPair1 sums, GemmFragments w, U2 first, U2 second)
        where TFormat : struct, ITiledFormat
    {
        sums.First = TFormat.Multiply(w.Row0, first, sums.First);
        sums.Second = TFormat.Multiply(w.Row0, second, sums.Second);
    }

    public static void Step(ref GemmPair1 sums, GemmFragments w, U2 first, U2 second, GroupScales scales)
    {
        sums.First = Mma.Nvfp4(w.Row0, first, sums.First, scales.Row0, scales.First);
        sums.Second = Mma.Nvfp4(w.Row0, second, sums.Second, scales.Row0, scales.Second);
    }

    public static void Fold(ref GemmPair1 sums, GemmPair1 part, GemmScales scales)
    {
        sums.First = Fold(sums.First, part.First, scales.Upper0, scales.Lower0);
        sums.Second = Fold(sums.Second, part.Second, scales.Upper0, scales.Lower0);
    }

    public static void FoldInputs(ref GemmPair1 sums, GemmPair1 part, F4 inputs)
    {
        sums.First = FoldInputs(sums.First, part.First, inputs.X, inputs.Y);
        sums.Second = FoldInputs(sums.Second, part.Second, inputs.Z, inputs.W);
    }

    public static void Publish(GemmPair1 sums, ArrayView<uint> target, int bytes, int pitch)
    {
        Publish(sums.First, target, bytes, pitch);
        Publish(sums.Second, target, bytes + (8 * pitch), pitch);
    }

    /// <summary>Registers X and Y belong to row g of W, Z and W to row g + 8.</summary>
    public static F4 Fold(F4 sum, F4 part, float upper, float lower)
    {
        sum.X = Fast.Fma(part.X, upper, sum.X);
        sum.Y = Fast.Fma(part.Y, upper, sum.Y);
        sum.Z = Fast.Fma(part.Z, lower, sum.Z);
        sum.W = Fast.Fma(part.W, lower, sum.W);
        return sum;
    }

    /// <summary>Registers X and Z belong to an even row of x, Y and W to the next.</summary>
    public static F4 FoldInputs(F4 sum, F4 part, float even, float odd)
    {
        sum.X = Fast.Fma(part.X, even, sum.X);
        sum.Y = Fast.Fma(part.Y, odd, sum.Y);
        sum.Z = Fast.Fma(part.Z, even, sum.Z);
        sum.W = Fast.Fma(part.W, odd, sum.W);
        return sum;
    }

    /// <summary>X and Z belong to an even row of x, Y and W to the next; rows of W are columns of y.</summary>
    public static void Publish(F4 sum, ArrayView<uint> target, int bytes, int pitch)
    {
        const int EightColumns = 8 * sizeof(float);
        Mem.StoreSharedAt(ref target[0], bytes, sum.X);
        Mem.StoreSharedAt(ref target[0], bytes + pitch, sum.Y);
        Mem.StoreSharedAt(ref target[0], bytes + EightColumns, sum.Z);
        Mem.StoreSharedAt(ref target[0], bytes + pitch + EightColumns, sum.W);
    }
}

/// <summary>The same for 32 rows of W.</summary>
internal struct GemmPair2 : IGemmPair<GemmPair2>
{
    private const int SixteenColumns = 16 * sizeof(float);

    public F4 First0, First1, Second0, Second1;

    public static int WeightTiles => 2;

    public static void Step<TFormat>(ref GemmPair2 sums, GemmFragments w, U2 first, U2 second)
        where TFormat : struct, ITiledFormat
    {
        sums.First0 = TFormat.Multiply(w.Row0, first, sums.First0);
        sums.First1 = TFormat.Multiply(w.Row1, first, sums.First1);
        sums.Second0 = TFormat.Multiply(w.Row0, second, sums.Second0);
        sums.Second1 = TFormat.Multiply(w.Row1, second, sums.Second1);
    }

    public static void Step(ref GemmPair2 sums, GemmFragments w, U2 first, U2 second, GroupScales scales)
    {
        sums.First0 = Mma.Nvfp4(w.Row0, first, sums.First0, scales.Row0, scales.First);
        sums.First1 = Mma.Nvfp4(w.Row1, first, sums.First1, scales.Row1, scales.First);
        sums.Second0 = Mma.Nvfp4(w.Row0, second, sums.Second0, scales.Row0, scales.Second);
        sums.Second1 = Mma.Nvfp4(w.Row1, second, sums.Second1, scales.Row1, scales.Second);
    }

    public static void Fold(ref GemmPair2 sums, GemmPair2 part, GemmScales scales)
    {
        sums.First0 = GemmPair1.Fold(sums.First0, part.First0, scales.Upper0, scales.Lower0);
        sums.First1 = GemmPair1.Fold(sums.First1, part.First1, scales.Upper1, scales.Lower1);
        sums.Second0 = GemmPair1.Fold(sums.Second0, part.Second0, scales.Upper0, scales.Lower0);
        sums.Second1 = GemmPair1.Fold(sums.Second1, part.Second1, scales.Upper1, scales.Lower1);
    }

    public static void FoldInputs(ref GemmPair2 sums, GemmPair2 part, F4 inputs)
    {
        sums.First0 = GemmPair1.FoldInputs(sums.First0, part.First0, inputs.X, inputs.Y);
        sums.First1 = GemmPair1.FoldInputs(sums.First1, part.First1, inputs.X, inputs.Y);
        sums.Second0 = GemmPair1.FoldInputs(sums.Second0, part.Second0, inputs.Z, inputs.W);
        sums.Second1 = GemmPair1.FoldInputs(sums.Second1, part.Second1, inputs.Z, inputs.W);
    }

    public static void Publish(GemmPair2 sums, ArrayView<uint> target, int bytes, int pitch)
    {
        GemmPair1.Publish(sums.First0, target, bytes, pitch);
        GemmPair1.Publish(sums.First1, target, bytes + SixteenColumns, pitch);
        GemmPair1.Publish(sums.Second0, target, bytes + (8 * pitch), pitch);
        GemmPair1.Publish(sums.Second1, target, bytes + (8 * pitch) + SixteenColumns, pitch);
    }
}

/// <summary>The same for 64 rows of W, of BF16 alone: nothing is folded.</summary>
internal struct GemmPair4 : IGemmPair<GemmPair4>
{
    private const int ThirtyTwoColumns = 32 * sizeof(float);

    public GemmPair2 Upper, Lower;

    public static int WeightTiles => 4;

    public static void Step<TFormat>(ref GemmPair4 sums, GemmFragments w, U2 first, U2 second)
        where TFormat : struct, ITiledFormat
    {
        GemmPair2.Step<TFormat>(ref sums.Upper, w, first, second);
        w.Row0 = w.Row2;
        w.Row1 = w.Row3;
        GemmPair2.Step<TFormat>(ref sums.Lower, w, first, second);
    }

    public static void Step(ref GemmPair4 sums, GemmFragments w, U2 first, U2 second, GroupScales scales)
    {
        GemmPair2.Step(ref sums.Upper, w, first, second, scales);
        w.Row0 = w.Row2;
        w.Row1 = w.Row3;
        GemmPair2.Step(ref sums.Lower, w, first, second, scales);
    }

    public static void Fold(ref GemmPair4 sums, GemmPair4 part, GemmScales scales)
    {
        GemmPair2.Fold(ref sums.Upper, part.Upper, scales);
        GemmPair2.Fold(ref sums.Lower, part.Lower, scales);
    }

    public static void FoldInputs(ref GemmPair4 sums, GemmPair4 part, F4 inputs)
    {
        GemmPair2.FoldInputs(ref sums.Upper, part.Upper, inputs);
        GemmPair2.FoldInputs(ref sums.Lower, part.Lower, inputs);
    }

    public static void Publish(GemmPair4 sums, ArrayView<uint> target, int bytes, int pitch)
    {
        GemmPair2.Publish(sums.Upper, target, bytes, pitch);
        GemmPair2.Publish(sums.Lower, target, bytes + ThirtyTwoColumns, pitch);
    }
}
