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

    /// <summary>[N, K] codes; rows start on whole bytes.</summary>
    public ArrayView<byte> Codes;

    /// <summary>[RowBlocks, Columns] in a format with block scales; group scales and one for the matrix in NVFP4.</summary>
    public ScaleTable Scales;

    public int N;
    public int K;

    /// <summary>Blocks along N.</summary>
    public int RowBlocks;
}

/// <summary>The elements of a scale block that lie in the matrix.</summary>
internal struct BlockPart
{
    public int Row;
    public int Column;
    public int Rows;
    public int Columns;

    public readonly int Count => Rows * Columns;

    public static BlockPart Of(QuantizeArgs a, int rowBlock, int columnBlock)
    {
        BlockPart part;
        part.Row = rowBlock << a.Scales.RowShift;
        part.Column = columnBlock << a.Scales.ColumnShift;
        part.Rows = IntrinsicMath.Min(1 << a.Scales.RowShift, a.N - part.Row);
        part.Columns = IntrinsicMath.Min(1 << a.Scales.ColumnShift, a.K - part.Column);
        return part;
    }

    /// <summary>Index of element <paramref name="i"/> in a matrix of <paramref name="k"/> columns.</summary>
    public readonly long Index(int k, int i)
    {
        int row = i / Columns;
        return ((long)(Row + row) * k) + Column + (i - (row * Columns));
    }
}

/// <summary>
/// Quantises W[N, K] to codes with one scale a block. A thread block takes a scale block at a time: first the largest
/// magnitude (a maximum, so its order does not matter), then the codes.
/// </summary>
internal static class QuantizeBlocks
{
    public const int Threads = 256;

    public static void Run<TCode, TSource>(QuantizeArgs a)
        where TCode : struct, IBlockCode
        where TSource : struct, ISource
    {
        ArrayView<float> warpMaxima = SharedMemory.Allocate<float>(Threads);
        long blocks = (long)a.RowBlocks * a.Scales.Columns;
        for (long block = Grid.IdxX; block < blocks; block += Grid.DimX)
        {
            int rowBlock = (int)(block / a.Scales.Columns);
            var part = BlockPart.Of(a, rowBlock, (int)(block - ((long)rowBlock * a.Scales.Columns)));
            float largest = 0;
            for (int i = Group.IdxX; i < part.Count; i += Group.DimX)
                largest = IntrinsicMath.Max(largest, Float32.FiniteMagnitude(TSource.Load(a.Values, part.Index(a.K, i))));
            float scale = TCode.Scale(BlockMax(warpMaxima, largest));
            if (Group.IdxX == 0)
                a.Scales.Blocks[block] = scale;
            // A thread writes whole bytes, so that no two write the same one.
            int bytes = (part.Columns + (1 << TCode.CodesPerByteShift) - 1) >> TCode.CodesPerByteShift;
            for (int i = Group.IdxX; i < part.Rows * bytes; i += Group.DimX)
            {
                int row = i / bytes, unit = i - (row * bytes);
                int column = unit << TCode.CodesPerByteShift;
                long index = ((long)(part.Row + row) * a.K) + part.Column + column;
                uint code = TCode.Encode(TSource.Load(a.Values, index), scale);
                if (TCode.CodesPerByteShift == 1 && column + 1 < part.Columns)
                    code |= (uint)TCode.Encode(TSource.Load(a.Values, index + 1), scale) << 4;
                long rowBytes = ((long)a.K + (1 << TCode.CodesPerByteShift) - 1) >> TCode.CodesPerByteShift;
                a.Codes[((part.Row + row) * rowBytes) + (part.Column >> TCode.CodesPerByteShift) + unit] = (byte)code;
            }
        }
    }

    /// <summary>The largest of a block's values, known to every thread.</summary>
    public static float BlockMax(ArrayView<float> warpMaxima, float value)
    {
        int warps = (Group.DimX + Warp.WarpSize - 1) / Warp.WarpSize;
        float largest = WarpOps.Max(value);
        if (Warp.LaneIdx == 0)
            warpMaxima[Group.IdxX / Warp.WarpSize] = largest;
        // All warps' maxima are there before anyone reads them.
        Block.Barrier();
        for (int warp = 0; warp < warps; warp++)
            largest = IntrinsicMath.Max(largest, warpMaxima[warp]);
        // They are read before the next block overwrites them.
        Block.Barrier();
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

/// <summary>value[n, k] = code · scale, plus the second term if any, rounded to float32 and to the output type. One thread an element.</summary>
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
            int n = 0, k = 0;
            long code = i;
            if (TFormat.IsScaled)
            {
                n = (int)(i / a.K);
                k = (int)(i - ((long)n * a.K));
                code = ((long)n * TFormat.RowCodes(a.K)) + k;
            }
            float value = Weight.Value<TFormat>(a.Codes, a.Scales, table, code, (0, n, k), (long)a.N * TFormat.RowCodes(a.K));
            if (TFormat.HasGroupScales)
                value *= TFormat.MatrixScale(a.Scales, 0);
            TOutput.Store(a.Values, i, value);
        }
    }
}
