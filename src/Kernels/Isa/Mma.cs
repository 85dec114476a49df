using ILGPU;
using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>Warp-wide matrix products on the tensor cores: D[16, 8] = A[16, 16]·B[16, 8] + C[16, 8].</summary>
/// <remarks>
/// <see cref="MmaFragment"/> says which element stands where. The hardware's order and rounding of the sum are
/// unspecified. The emulation takes the products exactly, adds them in float64 from k = 0 to 15, then C, and rounds once
/// to float32: the last bits may differ from a GPU's.
/// </remarks>
internal static unsafe class Mma
{
    private const int K = 16, Rows = 16;

    /// <summary>BF16 operands, float32 accumulators.</summary>
    [IntrinsicImplementation, Ptx("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 %d, %0, %1, %2;")]
    public static F4 Bf16(U4 a, U2 b, F4 c) => Multiply<Bf16Decoder>(a, b, c);

    /// <summary>F16 operands, float32 accumulators.</summary>
    [IntrinsicImplementation, Ptx("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 %d, %0, %1, %2;")]
    public static F4 F16(U4 a, U2 b, F4 c) => Multiply<F16Decoder>(a, b, c);

    private interface IDecoder
    {
        static abstract string Instruction { get; }

        static abstract float Decode(ushort bits);
    }

    private readonly struct Bf16Decoder : IDecoder
    {
        public static string Instruction => "mma.sync (bf16)";

        public static float Decode(ushort bits) => Cvt.FromBf16(bits);
    }

    private readonly struct F16Decoder : IDecoder
    {
        public static string Instruction => "mma.sync (f16)";

        public static float Decode(ushort bits) => (float)BitConverter.UInt16BitsToHalf(bits);
    }

    private static F4 Multiply<T>(U4 a, U2 b, F4 c)
        where T : struct, IDecoder
    {
        // Every lane scatters its elements into both matrices, both with k contiguous, then sums its four outputs.
        float* matrixA = WarpEmulation.Begin<float>(T.Instruction, lanes: 32);
        float* matrixB = matrixA + Rows * K;
        int lane = Warp.LaneIdx;
        uint* registers = stackalloc uint[] { a.X, a.Y, a.Z, a.W, b.X, b.Y };
        for (int r = 0; r < 4; r++)
            Scatter<T>(registers[r], matrixA + MmaFragment.ARow(lane, r) * K + MmaFragment.AColumn(lane, r));
        for (int r = 0; r < 2; r++)
            Scatter<T>(registers[4 + r], matrixB + MmaFragment.BColumn(lane) * K + MmaFragment.BK(lane, r));

        WarpEmulation.Meet();
        float* sums = stackalloc float[] { c.X, c.Y, c.Z, c.W };
        for (int i = 0; i < 4; i++)
        {
            float* row = matrixA + MmaFragment.CRow(lane, i) * K;
            float* column = matrixB + MmaFragment.CColumn(lane, i) * K;
            double sum = 0;
            for (int k = 0; k < K; k++)
                sum += (double)row[k] * column[k];
            sums[i] = Ieee.CanonicalNaN((float)(sum + sums[i]));
        }

        return new F4 { X = sums[0], Y = sums[1], Z = sums[2], W = sums[3] };
    }

    private static void Scatter<T>(uint register, float* pair)
        where T : struct, IDecoder
    {
        pair[0] = T.Decode((ushort)register);
        pair[1] = T.Decode((ushort)(register >> 16));
    }
}
