using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Quantises W[N, K] to E4M3 codes and E4M3 codes of what they leave over, each with one scale a block. A thread block takes a
/// scale block at a time: the largest magnitude, the largest residual, then both codes. Codes and scales of the residuals lie
/// behind those of the first term.
/// </summary>
internal static class QuantizeFp8TwoTerm
{
    public static void Run<TSource>(QuantizeArgs a)
        where TSource : struct, ISource
    {
        ArrayView<float> warpMaxima = SharedMemory.Allocate<float>(QuantizeBlocks.Threads);
        long blocks = (long)a.RowBlocks * a.Scales.Columns;
        for (long block = Grid.IdxX; block < blocks; block += Grid.DimX)
        {
            int rowBlock = (int)(block / a.Scales.Columns);
            var part = BlockPart.Of(a, rowBlock, (int)(block - ((long)rowBlock * a.Scales.Columns)));
            float largest = 0;
            for (int i = Group.IdxX; i < part.Count; i += Group.DimX)
                largest = IntrinsicMath.Max(largest, Float32.FiniteMagnitude(TSource.Load(a.Values, part.Index(a.K, i))));
            float scale = Fp8Code.Scale(QuantizeBlocks.BlockMax(warpMaxima, largest));
            largest = 0;
            for (int i = Group.IdxX; i < part.Count; i += Group.DimX)
                largest = IntrinsicMath.Max(largest, Float32.FiniteMagnitude(Fp8Code.Residual(TSource.Load(a.Values, part.Index(a.K, i)), scale)));
            float residualScale = Fp8Code.Scale(QuantizeBlocks.BlockMax(warpMaxima, largest));
            if (Group.IdxX == 0)
            {
                a.Scales.Blocks[block] = scale;
                a.Scales.Blocks[blocks + block] = residualScale;
            }
            for (int i = Group.IdxX; i < part.Count; i += Group.DimX)
            {
                long index = part.Index(a.K, i);
                float value = TSource.Load(a.Values, index);
                a.Codes[index] = Fp8Code.Encode(value, scale);
                a.Codes[((long)a.N * a.K) + index] = Fp8Code.Encode(Fp8Code.Residual(value, scale), residualScale);
            }
        }
    }
}
