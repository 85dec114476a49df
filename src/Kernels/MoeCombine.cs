using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// residual[t, i] += Σ_j weights[t, j]·expertOutput[t·K + j, i] over j = 0..K − 1 in ascending order. One thread an element,
/// grid stride.
/// </summary>
internal static class MoeCombine
{
    internal struct Args
    {
        /// <summary>[Tokens·TopK, Width] float32.</summary>
        public ArrayView<float> ExpertOutput;

        /// <summary>[Tokens, TopK] float32.</summary>
        public ArrayView<float> Weights;

        /// <summary>[Tokens, Width] float32, updated in place.</summary>
        public ArrayView<float> Residual;

        public int TopK;
        public int Width;
    }

    public static void Run(Args a)
    {
        long stride = (long)Grid.DimX * Group.DimX;
        for (long i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < a.Residual.Length; i += stride)
        {
            long token = i / a.Width;
            long pair = token * a.TopK;
            long source = (pair * a.Width) + (i - (token * a.Width));
            float sum = a.Residual[i];
            for (int j = 0; j < a.TopK; j++)
            {
                sum = Fast.Fma(a.Weights[pair + j], a.ExpertOutput[source], sum);
                source += a.Width;
            }
            a.Residual[i] = sum;
        }
    }
}
