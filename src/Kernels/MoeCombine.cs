using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// residual[t, i] += Σ_j weights[t, j]·expertOutput[t·K + j, i] over j = 0..K − 1 in ascending order. One block a token,
/// grid stride; a thread takes four neighbours at a time where rows are whole 16-byte words.
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

        public int Tokens;
        public int TopK;
        public int Width;

        /// <summary>Whether rows of both are whole 16-byte words; 0 or 1.</summary>
        public int WideRows;
    }

    public static void Run(Args a)
    {
        for (long token = Grid.IdxX; token < a.Tokens; token += Grid.DimX)
        {
            long pair = token * a.TopK, target = token * a.Width, source = pair * a.Width;
            if (a.WideRows != 0)
            {
                for (int i = Group.IdxX * 4; i < a.Width; i += Group.DimX * 4)
                    Four(a, pair, source + i, target + i);
            }
            else
            {
                for (int i = Group.IdxX; i < a.Width; i += Group.DimX)
                {
                    float sum = a.Residual[target + i];
                    for (int j = 0; j < a.TopK; j++)
                        sum = Fast.Fma(a.Weights[pair + j], a.ExpertOutput[source + i + ((long)j * a.Width)], sum);
                    a.Residual[target + i] = sum;
                }
            }
        }
    }

    private static void Four(Args a, long pair, long source, long target)
    {
        ArrayView<uint> outputs = a.ExpertOutput.Cast<uint>(), residual = a.Residual.Cast<uint>();
        U4 sums = Mem.LoadGlobal(ref residual[target]);
        for (int j = 0; j < a.TopK; j++)
        {
            float weight = a.Weights[pair + j];
            U4 values = Mem.LoadGlobal(ref outputs[source + ((long)j * a.Width)]);
            sums.X = Add(weight, values.X, sums.X);
            sums.Y = Add(weight, values.Y, sums.Y);
            sums.Z = Add(weight, values.Z, sums.Z);
            sums.W = Add(weight, values.W, sums.W);
        }
        Mem.StoreGlobal(ref residual[target], sums);
    }

    private static uint Add(float weight, uint value, uint sum) =>
        Interop.FloatAsInt(Fast.Fma(weight, Interop.IntAsFloat(value), Interop.IntAsFloat(sum)));
}
