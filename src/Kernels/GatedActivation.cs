using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;
using ILGPU.Algorithms;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// SwiGLU: y[r, i] = silu(gate[r, i]) · up[r, i] with silu(v) = v / (1 + e^−v), in float32, gate and up side by side in one
/// [R, 2·W] row. One block a row, grid stride; a thread takes eight neighbours at a time where rows are whole 16-byte words.
/// </summary>
internal static class GatedActivation
{
    internal struct Args
    {
        /// <summary>[Rows, 2·Width] BF16: gate, then up.</summary>
        public ArrayView<ushort> GateUp;

        /// <summary>[Rows, Width] BF16.</summary>
        public ArrayView<ushort> Output;

        public int Rows;
        public int Width;

        /// <summary>Whether rows of both are whole 16-byte words; 0 or 1.</summary>
        public int WideRows;
    }

    public static void Run(Args a)
    {
        for (long row = Grid.IdxX; row < a.Rows; row += Grid.DimX)
        {
            long gate = row * 2 * a.Width, up = gate + a.Width, target = row * a.Width;
            if (a.WideRows != 0)
            {
                for (int i = Group.IdxX * 8; i < a.Width; i += Group.DimX * 8)
                    Eight(a, gate + i, up + i, target + i);
            }
            else
            {
                for (int i = Group.IdxX; i < a.Width; i += Group.DimX)
                    a.Output[target + i] = Bf16.FromFloat(Silu(Bf16.ToFloat(a.GateUp[gate + i])) * Bf16.ToFloat(a.GateUp[up + i]));
            }
        }
    }

    private static void Eight(Args a, long gate, long up, long target)
    {
        ArrayView<uint> inputs = a.GateUp.Cast<uint>();
        U4 g = Mem.LoadGlobal(ref inputs[gate >> 1]), u = Mem.LoadGlobal(ref inputs[up >> 1]);
        g.X = Two(g.X, u.X);
        g.Y = Two(g.Y, u.Y);
        g.Z = Two(g.Z, u.Z);
        g.W = Two(g.W, u.W);
        Mem.StoreGlobal(ref a.Output.Cast<uint>()[target >> 1], g);
    }

    private static uint Two(uint gate, uint up) =>
        Cvt.Bf16x2(Silu(Bf16.High(gate)) * Bf16.High(up), Silu(Bf16.Low(gate)) * Bf16.Low(up));

    /// <summary>v / (1 + e^−v).</summary>
    public static float Silu(float v) => v / (1f + XMath.Exp(-v));
}
