using ILGPU;
using ILGPU.Algorithms;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// SwiGLU: y[r, i] = silu(gate[r, i]) · up[r, i] with silu(v) = v / (1 + e^−v), in float32, gate and up side by side in one
/// [R, 2·W] row. One thread an element, grid stride.
/// </summary>
internal static class GatedActivation
{
    internal struct Args
    {
        /// <summary>[Rows, 2·Width] BF16: gate, then up.</summary>
        public ArrayView<ushort> GateUp;

        /// <summary>[Rows, Width] BF16.</summary>
        public ArrayView<ushort> Output;

        public int Width;
    }

    public static void Run(Args a)
    {
        long stride = (long)Grid.DimX * Group.DimX;
        for (long i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < a.Output.Length; i += stride)
        {
            long row = i / a.Width;
            long gateIndex = i + (row * a.Width);
            float gate = Bf16.ToFloat(a.GateUp[gateIndex]);
            float up = Bf16.ToFloat(a.GateUp[gateIndex + a.Width]);
            a.Output[i] = Bf16.FromFloat(Silu(gate) * up);
        }
    }

    /// <summary>v / (1 + e^−v).</summary>
    public static float Silu(float v) => v / (1f + XMath.Exp(-v));
}
