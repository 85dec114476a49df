using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// RMSNorm: y[r, i] = bf16(x[r, i] · rsqrt(mean over i of x[r, i]² + eps) · gain[i]) in float32, optionally after x += addend.
/// One block a row (grid stride): a decode step has one row of a few thousand numbers, which one block reads in one or two
/// loads a thread; each thread reads again only what it has just read or written itself.
/// </summary>
internal static class RmsNorm
{
    internal struct Args
    {
        /// <summary>[Rows, Width] float32: the residual stream.</summary>
        public ArrayView<float> X;

        /// <summary>[Rows, Width] float32, added to X in place.</summary>
        public ArrayView<float> Addend;

        /// <summary>[Width] BF16.</summary>
        public ArrayView<ushort> Gain;

        /// <summary>[Rows, Width] BF16.</summary>
        public ArrayView<ushort> Output;

        public int Rows;
        public int Width;
        public float Epsilon;
    }

    public static void Run(Args a)
    {
        ArrayView<float> scratch = SharedMemory.Allocate<float>(BlockOps.MaxWarps);
        GridDependency.Release();
        GridDependency.Wait();
        for (long row = Grid.IdxX; row < a.Rows; row += Grid.DimX)
        {
            long start = row * a.Width;
            Normalize(a, start, BlockOps.Sum(Squares(a, start), scratch));
        }
    }

    /// <summary>This thread's part of a row's sum of squares.</summary>
    public static float Squares(Args a, long start)
    {
        float squares = 0;
        for (int i = Group.IdxX; i < a.Width; i += Group.DimX)
        {
            float x = a.X[start + i];
            squares = Fast.Fma(x, x, squares);
        }
        return squares;
    }

    public static void RunAdd(Args a)
    {
        ArrayView<float> scratch = SharedMemory.Allocate<float>(BlockOps.MaxWarps);
        GridDependency.Release();
        GridDependency.Wait();
        for (long row = Grid.IdxX; row < a.Rows; row += Grid.DimX)
        {
            long start = row * a.Width;
            float squares = 0;
            for (int i = Group.IdxX; i < a.Width; i += Group.DimX)
            {
                float x = a.X[start + i] + a.Addend[start + i];
                a.X[start + i] = x;
                squares = Fast.Fma(x, x, squares);
            }
            Normalize(a, start, BlockOps.Sum(squares, scratch));
        }
    }

    /// <summary>Writes this thread's part of a row; returns the row's factor.</summary>
    public static float Normalize(Args a, long start, float squares)
    {
        float scale = Fast.Rsqrt((squares / a.Width) + a.Epsilon);
        for (int i = Group.IdxX; i < a.Width; i += Group.DimX)
            a.Output[start + i] = Bf16.FromFloat(a.X[start + i] * scale * Bf16.ToFloat(a.Gain[i]));
        return scale;
    }
}
