using GpuKit.Ilgpu.Kernels.Formats;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Quantises W[N, K] to NVFP4 in three launches: the largest magnitude of the matrix, its scale, then one thread a group of 16
/// columns. The maximum is an integer atomic on the bits of non-negative floats, which order alike: exact in any order.
/// </summary>
internal static class QuantizeNvfp4
{
    public const int Threads = 256;

    private const int GroupSize = 16;

    /// <summary>Raises Scales.Blocks[0], zero at first, to the largest finite magnitude.</summary>
    public static void FindLargest<TSource>(QuantizeArgs a)
        where TSource : struct, ISource
    {
        ArrayView<float> warpMaxima = SharedMemory.Allocate<float>(Threads);
        long stride = (long)Grid.DimX * Group.DimX;
        float largest = 0;
        for (long i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < (long)a.N * a.K; i += stride)
            largest = IntrinsicMath.Max(largest, Float32.FiniteMagnitude(TSource.Load(a.Values, i)));
        largest = QuantizeBlocks.BlockMax(warpMaxima, largest);
        if (Group.IdxX == 0)
            Atomic.Max(ref a.Scales.Blocks.Cast<int>()[0], (int)Interop.FloatAsInt(largest));
    }

    /// <summary>Turns the largest magnitude into the matrix's scale.</summary>
    public static void SetScale(QuantizeArgs a)
    {
        if (Grid.IdxX == 0 && Group.IdxX == 0)
            a.Scales.Blocks[0] = Nvfp4Code.MatrixScale(a.Scales.Blocks[0]);
    }

    /// <summary>Group scales and codes.</summary>
    public static void Encode<TSource>(QuantizeArgs a)
        where TSource : struct, ISource
    {
        float matrixScale = a.Scales.Blocks[0];
        long groups = (long)a.N * a.Scales.Columns, stride = (long)Grid.DimX * Group.DimX;
        for (long group = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; group < groups; group += stride)
        {
            int row = (int)(group / a.Scales.Columns);
            int column = (int)(group - ((long)row * a.Scales.Columns)) * GroupSize;
            int columns = IntrinsicMath.Min(GroupSize, a.K - column);
            long start = ((long)row * a.K) + column;
            float largest = 0;
            for (int i = 0; i < columns; i++)
                largest = IntrinsicMath.Max(largest, Float32.FiniteMagnitude(TSource.Load(a.Values, start + i)));
            byte groupScale = Nvfp4Code.GroupScale(largest, matrixScale);
            a.Scales.Groups[group] = groupScale;
            float scale = matrixScale * Nvfp4.GroupScale(groupScale);
            long bytes = ((long)row * (((long)a.K + 1) >> 1)) + (column >> 1);
            for (int i = 0; i < columns; i += 2)
            {
                uint code = Nvfp4Code.Encode(TSource.Load(a.Values, start + i), scale);
                if (i + 1 < columns)
                    code |= Nvfp4Code.Encode(TSource.Load(a.Values, start + i + 1), scale) << 4;
                a.Codes[bytes + (i >> 1)] = (byte)code;
            }
        }
    }
}
