using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Half-rotation of x[t, h, :] by the angles of position first + t: the pair (x_i, x_{i + D/2}) becomes
/// (x_i·cos − x_{i+D/2}·sin, x_{i+D/2}·cos + x_i·sin), in place. One thread a pair, grid stride: a pair has one owner.
/// </summary>
internal static class Rotary
{
    internal struct Args
    {
        /// <summary>[Tokens, Heads, 2·Half] BF16.</summary>
        public ArrayView<ushort> X;

        /// <summary>[Positions, Half] float32.</summary>
        public ArrayView<float> Cos;

        /// <summary>[Positions, Half] float32.</summary>
        public ArrayView<float> Sin;

        /// <summary>[1]: position of the first token.</summary>
        public ArrayView<int> Position;

        public int Tokens;
        public int Heads;
        public int Half;
        public int Positions;
    }

    public static void Run(Args a)
    {
        long pairs = (long)a.Tokens * a.Heads * a.Half;
        long stride = (long)Grid.DimX * Group.DimX;
        for (long pair = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; pair < pairs; pair += stride)
        {
            long row = pair / a.Half;
            long i = pair - (row * a.Half);
            long position = a.Position[0] + (row / a.Heads);
            bool inside = position >= 0 && position < a.Positions;
            long angle = inside ? (position * a.Half) + i : i;
            float cos = inside ? a.Cos[angle] : float.NaN;
            float sin = inside ? a.Sin[angle] : float.NaN;
            long low = (row * 2 * a.Half) + i;
            float x = Bf16.ToFloat(a.X[low]);
            float y = Bf16.ToFloat(a.X[low + a.Half]);
            a.X[low] = Bf16.FromFloat(Fast.Fma(x, cos, -(y * sin)));
            a.X[low + a.Half] = Bf16.FromFloat(Fast.Fma(y, cos, x * sin));
        }
    }
}
