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

/// <summary>How a block gets at the inputs of its product.</summary>
internal interface ITileInputs
{
    /// <summary>Whether there is one row, in shared memory.</summary>
    static abstract bool IsOneRow { get; }

    /// <summary>Whether sums are to be multiplied by what the norm's mean square gives.</summary>
    static abstract bool IsNormed { get; }
}

/// <summary>Up to 16 rows where they are.</summary>
internal readonly struct RowsInDevice : ITileInputs
{
    public static bool IsOneRow => false;

    public static bool IsNormed => false;
}

/// <summary>One row, copied into shared memory.</summary>
internal readonly struct RowCopied : ITileInputs
{
    public static bool IsOneRow => true;

    public static bool IsNormed => false;
}

/// <summary>
/// One row of the residual stream, times the norm's gains, in shared memory. The factor of the norm is the same for all K and
/// multiplies the finished sums, so that nothing waits for it.
/// </summary>
internal readonly struct RowNormed : ITileInputs
{
    public static bool IsOneRow => true;

    public static bool IsNormed => true;
}

/// <summary>What a block does before it multiplies: one row of inputs to shared memory.</summary>
internal static class TileRow
{
    /// <summary>Bytes in front of the row: one sum of squares a warp.</summary>
    public const int ScratchBytes = BlockOps.MaxWarps * sizeof(float);

    /// <summary>Copies words of x; a barrier must follow.</summary>
    public static void Copy(ArrayView<uint> x, ArrayView<uint> row)
    {
        for (int i = Group.IdxX * 4; i < row.Length; i += Group.DimX * 4)
            Mem.StoreShared(ref row[i], Mem.LoadL2(ref x[i]));
    }

    /// <summary>
    /// x · gain in BF16, and each warp's sum of squares of x; a barrier must follow. K is a multiple of 4. The order of the sum is
    /// fixed by K and the number of threads.
    /// </summary>
    public static void Norm(TileSource source, ArrayView<uint> row, ArrayView<float> scratch)
    {
        ArrayView<uint> residual = source.Residual.Cast<uint>(), gains = source.Gain.Cast<uint>();
        float squares = 0;
        for (int i = Group.IdxX * 2; i < row.Length; i += Group.DimX * 2)
        {
            U4 x = Mem.LoadL2(ref residual[2 * i]);
            uint gain0 = Mem.LoadReadOnly1(ref gains[i]), gain1 = Mem.LoadReadOnly1(ref gains[i + 1]);
            float x0 = Interop.IntAsFloat(x.X), x1 = Interop.IntAsFloat(x.Y), x2 = Interop.IntAsFloat(x.Z), x3 = Interop.IntAsFloat(x.W);
            squares = Fast.Fma(x3, x3, Fast.Fma(x2, x2, Fast.Fma(x1, x1, Fast.Fma(x0, x0, squares))));
            row[i] = Bf16.Pack(x0 * Bf16.Low(gain0), x1 * Bf16.High(gain0));
            row[i + 1] = Bf16.Pack(x2 * Bf16.Low(gain1), x3 * Bf16.High(gain1));
        }
        squares = WarpOps.Sum(squares);
        if (Warp.LaneIdx == 0)
            scratch[Group.IdxX >> 5] = squares;
    }

    /// <summary>The norm's factor, after the barrier.</summary>
    public static float Factor(TileSource source, int k, ArrayView<float> scratch)
    {
        float squares = 0;
        for (int warp = 0; warp < Group.DimX >> 5; warp++)
            squares += scratch[warp];
        return Fast.Rsqrt((squares / k) + source.Epsilon);
    }
}
