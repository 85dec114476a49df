using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Quantises W[N, K] to unsigned four-bit codes with a scale and a zero point a block. A thread block takes two neighbouring
/// scale blocks, whose zero points share a byte: of each first the range (maxima, so their order does not matter), then the codes.
/// </summary>
internal static class QuantizeInt4Zero
{
    public static void Run<TSource>(QuantizeArgs a)
        where TSource : struct, ISource
    {
        ArrayView<float> warpMaxima = SharedMemory.Allocate<float>(QuantizeBlocks.Threads);
        int pairs = (a.Scales.Columns + 1) >> 1;
        for (long item = Grid.IdxX; item < (long)a.RowBlocks * pairs; item += Grid.DimX)
        {
            int rowBlock = (int)(item / pairs);
            int columnBlock = (int)(item - ((long)rowBlock * pairs)) * 2;
            uint zeros = Block<TSource>(a, warpMaxima, rowBlock, columnBlock);
            if (columnBlock + 1 < a.Scales.Columns)
                zeros |= Block<TSource>(a, warpMaxima, rowBlock, columnBlock + 1) << 4;
            if (Group.IdxX == 0)
                a.Scales.ZeroPoints[item] = (byte)zeros;
        }
    }

    // Scale and codes of one block; the result is its zero point, known to every thread.
    private static uint Block<TSource>(QuantizeArgs a, ArrayView<float> warpMaxima, int rowBlock, int columnBlock)
        where TSource : struct, ISource
    {
        var part = BlockPart.Of(a, rowBlock, columnBlock);
        float above = 0, below = 0;
        for (int i = Group.IdxX; i < part.Count; i += Group.DimX)
        {
            float value = TSource.Load(a.Values, part.Index(a.K, i));
            above = IntrinsicMath.Max(above, Int4ZeroCode.Above(value));
            below = IntrinsicMath.Max(below, Int4ZeroCode.Above(-value));
        }
        above = QuantizeBlocks.BlockMax(warpMaxima, above);
        below = QuantizeBlocks.BlockMax(warpMaxima, below);
        float scale = Int4ZeroCode.Scale(above, below);
        int zero = Int4ZeroCode.Zero(below, scale);
        if (Group.IdxX == 0)
            a.Scales.Blocks[((long)rowBlock * a.Scales.Columns) + columnBlock] = scale;
        // A thread writes whole bytes, so that no two write the same one.
        int bytes = (part.Columns + 1) >> 1;
        long rowBytes = ((long)a.K + 1) >> 1;
        for (int i = Group.IdxX; i < part.Rows * bytes; i += Group.DimX)
        {
            int row = i / bytes, unit = i - (row * bytes);
            long index = ((long)(part.Row + row) * a.K) + part.Column + (2 * unit);
            uint code = Int4ZeroCode.Encode(TSource.Load(a.Values, index), scale, zero);
            if ((2 * unit) + 1 < part.Columns)
                code |= Int4ZeroCode.Encode(TSource.Load(a.Values, index + 1), scale, zero) << 4;
            a.Codes[((part.Row + row) * rowBytes) + (part.Column >> 1) + unit] = (byte)code;
        }
        return (uint)zero;
    }
}
