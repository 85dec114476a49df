using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>The inputs of a streamed product: rows of x, or one row of the residual stream that is still to be normed.</summary>
internal struct TileSource
{
    /// <summary>[Rows, K] BF16, unless inputs are normed by the kernel itself.</summary>
    public ArrayView<ushort> X;

    /// <summary>[K] float32 where inputs are normed.</summary>
    public ArrayView<float> Residual;

    /// <summary>[K] BF16, the gains of that norm.</summary>
    public ArrayView<ushort> Gain;

    public float Epsilon;
}

/// <summary>The state space that inputs are read from.</summary>
internal interface ITileMemory
{
    static abstract U4 Load(ref uint p);
}

/// <summary>Device memory, through L1: blocks beside each other read the same rows.</summary>
internal readonly struct DeviceTileMemory : ITileMemory
{
    public static U4 Load(ref uint p) => Mem.LoadGlobal(ref p);
}

/// <summary>The block's shared memory.</summary>
internal readonly struct SharedTileMemory : ITileMemory
{
    public static U4 Load(ref uint p) => Mem.LoadShared(ref p);
}

/// <summary>How the one row of inputs of a block gets into shared memory.</summary>
internal interface ITileInputs
{
    /// <summary>Whether sums are to be multiplied by what the norm's mean square gives.</summary>
    static abstract bool IsNormed { get; }
}

/// <summary>The row is copied.</summary>
internal readonly struct RowCopied : ITileInputs
{
    public static bool IsNormed => false;
}

/// <summary>
/// A row of the residual stream, times the norm's gains. The factor of the norm is the same for all K and
/// multiplies the finished sums, so that nothing waits for it.
/// </summary>
internal readonly struct RowNormed : ITileInputs
{
    public static bool IsNormed => true;
}

/// <summary>Four parts of a residual stream in a thread's registers.</summary>
internal struct TileRowStates
{
    public U4 Part0, Part1, Part2, Part3;
}

/// <summary>The gains beside them.</summary>
internal struct TileRowGains
{
    public U2 Part0, Part1, Part2, Part3;
}

/// <summary>What a block does before it multiplies: one row of inputs to shared memory.</summary>
internal static class TileRow
{
    /// <summary>Bytes in front of the row: one sum of squares a warp.</summary>
    public const int ScratchBytes = BlockOps.MaxWarps * sizeof(float);

    /// <summary>Copies words of x, two requests at a time; a barrier must follow.</summary>
    public static void Copy(ArrayView<uint> x, ArrayView<uint> row)
    {
        int step = Group.DimX * 4, last = (int)row.Length - 4;
        for (int i = Group.IdxX * 4; i < row.Length; i += 2 * step)
        {
            U4 first = Mem.LoadL2(ref x[i]), second = Mem.LoadL2(ref x[IntrinsicMath.Min(i + step, last)]);
            Mem.StoreShared(ref row[i], first);
            if (i + step <= last)
                Mem.StoreShared(ref row[i + step], second);
        }
    }

    /// <summary>The same by all warps but the first, three requests at a time.</summary>
    public static void CopyBesideFirst(ArrayView<uint> x, ArrayView<uint> row)
    {
        int step = (Group.DimX - 32) * 4, last = (int)row.Length - 4;
        for (int i = (Group.IdxX - 32) * 4; i < row.Length; i += 3 * step)
        {
            int i1 = IntrinsicMath.Min(i + step, last), i2 = IntrinsicMath.Min(i + (2 * step), last);
            U4 first = Mem.LoadL2(ref x[i]), second = Mem.LoadL2(ref x[i1]), third = Mem.LoadL2(ref x[i2]);
            Mem.StoreShared(ref row[i], first);
            Mem.StoreShared(ref row[i1], second);
            Mem.StoreShared(ref row[i2], third);
        }
    }

    /// <summary>Requests the gains of a thread's first four parts of the row. They are weights: a kernel may ask for them before it waits.</summary>
    public static TileRowGains LoadGains(TileSource source, int words)
    {
        ArrayView<uint> gains = source.Gain.Cast<uint>();
        TileRowGains loaded;
        loaded.Part0 = Gain(gains, words, 0);
        loaded.Part1 = Gain(gains, words, 1);
        loaded.Part2 = Gain(gains, words, 2);
        loaded.Part3 = Gain(gains, words, 3);
        return loaded;
    }

    /// <summary>Requests a thread's first four parts of the residual stream: together, or each would wait for the memory, and before weights, or they would queue behind them.</summary>
    public static TileRowStates LoadStates(TileSource source, int words)
    {
        ArrayView<uint> residual = source.Residual.Cast<uint>();
        TileRowStates loaded;
        loaded.Part0 = State(residual, words, 0);
        loaded.Part1 = State(residual, words, 1);
        loaded.Part2 = State(residual, words, 2);
        loaded.Part3 = State(residual, words, 3);
        return loaded;
    }

    /// <summary>
    /// x · gain in BF16, and each warp's sum of squares of x; a barrier must follow. K is a multiple of 4. The order of the sum is
    /// fixed by K and the number of threads.
    /// </summary>
    public static void Norm(TileSource source, ArrayView<uint> row, ArrayView<float> scratch, TileRowStates states, TileRowGains gains) =>
        AddSquares(scratch, Scale(source, row, states, gains));

    /// <summary>The first half of <see cref="Norm"/>: the row, and a thread's sum of squares.</summary>
    public static float Scale(TileSource source, ArrayView<uint> row, TileRowStates states, TileRowGains gains)
    {
        ArrayView<uint> residual = source.Residual.Cast<uint>(), allGains = source.Gain.Cast<uint>();
        int words = (int)row.Length, step = Group.DimX * 2;
        float squares = Scale(row, 0, states.Part0, gains.Part0, 0);
        squares = Scale(row, 1, states.Part1, gains.Part1, squares);
        squares = Scale(row, 2, states.Part2, gains.Part2, squares);
        squares = Scale(row, 3, states.Part3, gains.Part3, squares);
        for (int part = 4; (part * step) + (Group.IdxX * 2) < words; part++)
            squares = Scale(row, part, Mem.LoadL2(ref residual[2 * Place(words, part)]), Gain(allGains, words, part), squares);
        return squares;
    }

    /// <summary>The second half: each warp's sum. Whole warps call.</summary>
    public static void AddSquares(ArrayView<float> scratch, float squares)
    {
        squares = WarpOps.Sum(squares);
        if (Warp.LaneIdx == 0)
            scratch[Group.IdxX >> 5] = squares;
    }

    // Two words of the row a thread; past its end the last ones.
    private static int Place(int words, int part) => IntrinsicMath.Min((part * Group.DimX * 2) + (Group.IdxX * 2), words - 2);

    // Past the end nothing is read: many blocks asking for one line would wait for each other.
    private static U4 State(ArrayView<uint> residual, int words, int part) =>
        Mem.LoadL2If(ref residual[2 * Place(words, part)], (part * Group.DimX * 2) + (Group.IdxX * 2) < words ? 1u : 0u);

    private static U2 Gain(ArrayView<uint> gains, int words, int part)
    {
        int i = Place(words, part);
        U2 gain;
        gain.X = Mem.LoadReadOnly1(ref gains[i]);
        gain.Y = Mem.LoadReadOnly1(ref gains[i + 1]);
        return gain;
    }

    private static float Scale(ArrayView<uint> row, int part, U4 x, U2 gain, float squares)
    {
        int i = (part * Group.DimX * 2) + (Group.IdxX * 2);
        if (i >= row.Length)
            return squares;
        float x0 = Interop.IntAsFloat(x.X), x1 = Interop.IntAsFloat(x.Y), x2 = Interop.IntAsFloat(x.Z), x3 = Interop.IntAsFloat(x.W);
        row[i] = Bf16.Pack(x0 * Bf16.Low(gain.X), x1 * Bf16.High(gain.X));
        row[i + 1] = Bf16.Pack(x2 * Bf16.Low(gain.Y), x3 * Bf16.High(gain.Y));
        return Fast.Fma(x3, x3, Fast.Fma(x2, x2, Fast.Fma(x1, x1, Fast.Fma(x0, x0, squares))));
    }

    /// <summary>The norm's factor, after the barrier, in the order of <see cref="WarpOps.Sum"/>. Whole warps call.</summary>
    public static float Factor(TileSource source, int k, ArrayView<float> scratch)
    {
        int lane = Group.IdxX & 31;
        float squares = lane < Group.DimX >> 5 ? scratch[lane] : 0;
        return Fast.Rsqrt((WarpOps.Sum(squares) / k) + source.Epsilon);
    }
}
