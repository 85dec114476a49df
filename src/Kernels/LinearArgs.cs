using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Arguments of every kernel that multiplies by weights: y[M, N] = x[M, K] · W[N, K]ᵀ, or with one matrix an expert,
/// y[p] = W[expert(p)] · x[p / RowsPerInput].
/// </summary>
internal struct LinearArgs
{
    /// <summary>[Slabs, N, K] codes; rows start on whole bytes.</summary>
    public ArrayView<byte> Codes;

    /// <summary>The multipliers of the codes.</summary>
    public ScaleTable ScaleTable;

    /// <summary>[M / RowsPerInput, K] BF16.</summary>
    public ArrayView<ushort> X;

    /// <summary>The multipliers of x where it is quantised; X then holds its codes (skinny kernel, and tiles with codes on both sides).</summary>
    public ScaleTable InputScales;

    /// <summary>[M, YStride] BF16 or float32.</summary>
    public ArrayView<byte> Y;

    /// <summary>[M] the expert of each row (grouped GEMV).</summary>
    public ArrayView<int> Experts;

    /// <summary>[M] rows sorted by expert (grouped GEMM).</summary>
    public ArrayView<int> Order;

    /// <summary>[ExpertCount + 1] where each expert's rows begin in <see cref="Order"/> (grouped GEMM).</summary>
    public ArrayView<int> Offsets;

    /// <summary>[N] BF16 that is added to each row, by kernels that do.</summary>
    public ArrayView<ushort> Bias;

    /// <summary>[M, N] BF16 that is added to y, by kernels that do.</summary>
    public ArrayView<ushort> Residual;

    public int M;
    public int N;

    /// <summary>Columns; in tiles with codes on both sides 16 bits of these.</summary>
    public int K;

    /// <summary>Elements between rows of Y.</summary>
    public int YStride;

    /// <summary>Rows of Y that read the same row of X: top-k for the first projection of experts, else 1.</summary>
    public int RowsPerInput;

    public int ExpertCount;

    /// <summary>Whether Y is float32, not BF16 (GEMM; other kernels have it as a type argument); 0 or 1.</summary>
    public int IsFloat32;

    /// <summary>Whether every eight columns of a row of Y begin at a multiple of 16 bytes (GEMM); 0 or 1.</summary>
    public int WideStores;

    /// <summary>Blocks that have a whole tile each, where the others have parts of one (<see cref="Gemm.RunInParts"/>).</summary>
    public int WholeTiles;

    /// <inheritdoc cref="ScaleTable.Blocks"/>
    public readonly ArrayView<float> Scales => ScaleTable.Blocks;

    /// <inheritdoc cref="ScaleTable.ColumnShift"/>
    public readonly int ColumnShift => ScaleTable.ColumnShift;

    /// <inheritdoc cref="ScaleTable.Index"/>
    public readonly long ScaleIndex(int slab, int n, int k) => ScaleTable.Index(slab, n, k);
}

/// <summary>Whether rows choose among several matrices.</summary>
internal interface IRowMap
{
    static abstract bool IsGrouped { get; }
}

/// <summary>All rows are multiplied by one matrix.</summary>
internal readonly struct OneMatrix : IRowMap
{
    public static bool IsGrouped => false;
}

/// <summary>Each row is multiplied by its expert's matrix.</summary>
internal readonly struct ExpertMatrices : IRowMap
{
    public static bool IsGrouped => true;
}

/// <summary>Element type of an output.</summary>
internal interface IOutput
{
    static abstract void Store(ArrayView<byte> y, long index, float value);

    /// <summary>Eight neighbours whose address is a multiple of 16 bytes.</summary>
    static abstract void StoreOctet(ArrayView<byte> y, long index, F4 low, F4 high);
}

/// <summary>BF16, rounded to nearest even.</summary>
internal readonly struct Bf16Output : IOutput
{
    public static void Store(ArrayView<byte> y, long index, float value) => y.Cast<ushort>()[index] = Bf16.FromFloat(value);

    public static void StoreOctet(ArrayView<byte> y, long index, F4 low, F4 high)
    {
        U4 bits;
        bits.X = Cvt.Bf16x2(low.Y, low.X);
        bits.Y = Cvt.Bf16x2(low.W, low.Z);
        bits.Z = Cvt.Bf16x2(high.Y, high.X);
        bits.W = Cvt.Bf16x2(high.W, high.Z);
        Mem.StoreGlobal(ref y.Cast<uint>()[index >> 1], bits);
    }
}

/// <summary>float32.</summary>
internal readonly struct Float32Output : IOutput
{
    public static void Store(ArrayView<byte> y, long index, float value) => y.Cast<float>()[index] = value;

    public static void StoreOctet(ArrayView<byte> y, long index, F4 low, F4 high)
    {
        ArrayView<uint> words = y.Cast<uint>();
        Mem.StoreGlobal(ref words[index], Bits(low));
        Mem.StoreGlobal(ref words[index + 4], Bits(high));
    }

    /// <summary>The four numbers of bits.</summary>
    public static F4 Values(U4 bits)
    {
        F4 v;
        v.X = Interop.IntAsFloat(bits.X);
        v.Y = Interop.IntAsFloat(bits.Y);
        v.Z = Interop.IntAsFloat(bits.Z);
        v.W = Interop.IntAsFloat(bits.W);
        return v;
    }

    /// <summary>The bits of four numbers.</summary>
    public static U4 Bits(F4 v)
    {
        U4 bits;
        bits.X = Interop.FloatAsInt(v.X);
        bits.Y = Interop.FloatAsInt(v.Y);
        bits.Z = Interop.FloatAsInt(v.Z);
        bits.W = Interop.FloatAsInt(v.W);
        return bits;
    }
}

/// <summary>
/// Whether rows can be read in 16-byte words. The plan decides: it knows the addresses and K.
/// </summary>
internal interface IAccess
{
    static abstract bool IsVectorised { get; }
}

/// <summary>Every row of x and W starts on a 16-byte boundary and is a whole number of words long.</summary>
internal readonly struct VectorAccess : IAccess
{
    public static bool IsVectorised => true;
}

/// <summary>Any start, any K: element by element.</summary>
internal readonly struct ElementAccess : IAccess
{
    public static bool IsVectorised => false;
}

/// <summary>The threads that share one dot product.</summary>
internal interface ILanes
{
    static abstract int Count { get; }

    static abstract int Index { get; }

    /// <summary>Sum over the threads, known to the one with index 0.</summary>
    static abstract float Sum(float partial);
}

/// <summary>A warp, reduced by a butterfly of shuffles.</summary>
internal readonly struct WarpLanes : ILanes
{
    public static int Count => Warp.WarpSize;

    public static int Index => Warp.LaneIdx;

    public static float Sum(float partial) => WarpOps.Sum(partial);
}

/// <summary>One thread alone: needs no warp features.</summary>
internal readonly struct SingleLane : ILanes
{
    public static int Count => 1;

    public static int Index => 0;

    public static float Sum(float partial) => partial;
}
