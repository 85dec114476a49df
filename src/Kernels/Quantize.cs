using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Element type of unquantised weights.</summary>
internal interface ISource
{
    static abstract float Load(ArrayView<byte> source, long index);
}

/// <summary>float32.</summary>
internal readonly struct Float32Source : ISource
{
    public static float Load(ArrayView<byte> source, long index) => source.Cast<float>()[index];
}

/// <summary>BF16.</summary>
internal readonly struct Bf16Source : ISource
{
    public static float Load(ArrayView<byte> source, long index) => Bf16.ToFloat(source.Cast<ushort>()[index]);
}

/// <summary>Arguments of quantising and dequantising kernels.</summary>
internal struct QuantizeArgs
{
    /// <summary>[N, K] unquantised values.</summary>
    public ArrayView<byte> Values;

    /// <summary>[N, K] codes.</summary>
    public ArrayView<byte> Codes;

    /// <summary>[RowBlocks, ColumnBlocks].</summary>
    public ArrayView<float> Scales;

    public int N;
    public int K;
    public int RowShift;
    public int ColumnShift;
    public int ColumnBlocks;
    public int RowBlocks;
}

/// <summary>
/// The arithmetic of FP8 blocks, one definition for device and host: scale = amax / 448 in float32 over the finite values,
/// code = RNE(x / scale) with IEEE division. A block without finite non-zero values, or whose scale would underflow, has
/// scale 1. Infinities saturate to ±448, NaN stays NaN.
/// </summary>
internal static class Fp8Arithmetic
{
    private const float MaxCode = 448f;

    /// <summary>|x| where it counts for the largest magnitude, else 0.</summary>
    public static float Magnitude(float x)
    {
        uint bits = Interop.FloatAsInt(x) & 0x7FFFFFFFu;
        return bits < 0x7F800000u ? Interop.IntAsFloat(bits) : 0f;
    }

    public static float Scale(float largest)
    {
        float scale = Fast.Div(largest, MaxCode);
        return scale > 0f ? scale : 1f;
    }

    public static byte Encode(float x, float scale) => (byte)(Cvt.E4M3x2(0f, Fast.Div(x, scale)) & 0xFF);
}

/// <summary>
/// Quantises W[N, K] to FP8 with one scale a block. A thread block takes a scale block at a time: first the largest
/// magnitude (a maximum, so its order does not matter), then the codes.
/// </summary>
internal static class QuantizeFp8
{
    public const int Threads = 256;

    public static void Run<TSource>(QuantizeArgs a)
        where TSource : struct, ISource
    {
        ArrayView<float> warpMaxima = SharedMemory.Allocate<float>(Threads);
        long blocks = (long)a.RowBlocks * a.ColumnBlocks;
        for (long block = Grid.IdxX; block < blocks; block += Grid.DimX)
        {
            int rowBlock = (int)(block / a.ColumnBlocks);
            int columnBlock = (int)(block - ((long)rowBlock * a.ColumnBlocks));
            int firstRow = rowBlock << a.RowShift, firstColumn = columnBlock << a.ColumnShift;
            int rows = IntrinsicMath.Min(1 << a.RowShift, a.N - firstRow);
            int columns = IntrinsicMath.Min(1 << a.ColumnShift, a.K - firstColumn);
            float largest = 0;
            for (int i = Group.IdxX; i < rows * columns; i += Group.DimX)
                largest = IntrinsicMath.Max(largest, Fp8Arithmetic.Magnitude(TSource.Load(a.Values, Index(a, firstRow, firstColumn, columns, i))));
            float scale = Fp8Arithmetic.Scale(BlockMax(warpMaxima, largest));
            if (Group.IdxX == 0)
                a.Scales[block] = scale;
            for (int i = Group.IdxX; i < rows * columns; i += Group.DimX)
            {
                long index = Index(a, firstRow, firstColumn, columns, i);
                a.Codes[index] = Fp8Arithmetic.Encode(TSource.Load(a.Values, index), scale);
            }
        }
    }

    private static long Index(QuantizeArgs a, int firstRow, int firstColumn, int columns, int i)
    {
        int row = i / columns;
        return ((long)(firstRow + row) * a.K) + firstColumn + (i - (row * columns));
    }

    private static float BlockMax(ArrayView<float> warpMaxima, float value)
    {
        int warps = (Group.DimX + Warp.WarpSize - 1) / Warp.WarpSize;
        float largest = WarpOps.Max(value);
        if (Warp.LaneIdx == 0)
            warpMaxima[Group.IdxX / Warp.WarpSize] = largest;
        // All warps' maxima are there before anyone reads them.
        Group.Barrier();
        for (int warp = 0; warp < warps; warp++)
            largest = IntrinsicMath.Max(largest, warpMaxima[warp]);
        // They are read before the next block overwrites them.
        Group.Barrier();
        return largest;
    }
}

/// <summary>Rounds W[N, K] to BF16, one thread an element.</summary>
internal static class QuantizeBf16
{
    public static void Run<TSource>(QuantizeArgs a)
        where TSource : struct, ISource
    {
        long stride = (long)Grid.DimX * Group.DimX;
        ArrayView<ushort> codes = a.Codes.Cast<ushort>();
        for (long i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < (long)a.N * a.K; i += stride)
            codes[i] = Bf16.FromFloat(TSource.Load(a.Values, i));
    }
}

/// <summary>value[n, k] = code · scale: one rounding to the output type. One thread an element.</summary>
internal static class Dequantize
{
    public static void Run<TFormat, TOutput>(QuantizeArgs a)
        where TFormat : struct, IWeightFormat
        where TOutput : struct, IOutput
    {
        ArrayView<ushort> table = TFormat.PrepareTable();
        long stride = (long)Grid.DimX * Group.DimX;
        for (long i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < (long)a.N * a.K; i += stride)
        {
            float value = Bf16.ToFloat(TFormat.DecodeOne(a.Codes, i, table));
            if (TFormat.IsScaled)
            {
                int n = (int)(i / a.K);
                int k = (int)(i - ((long)n * a.K));
                value *= a.Scales[((long)(n >> a.RowShift) * a.ColumnBlocks) + (k >> a.ColumnShift)];
            }
            TOutput.Store(a.Values, i, value);
        }
    }
}
