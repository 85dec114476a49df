using ILGPU;
using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>Warp-wide matrix products on the tensor cores: D[16, 8] = A[16, K]·B[K, 8] + C[16, 8] with 256 bits of K.</summary>
/// <remarks>
/// <see cref="MmaFragment"/> says which element stands where. The hardware's order and rounding of the sum are
/// unspecified. The emulation takes the products exactly, adds them in float64 in the order of k, then C, and rounds once
/// to float32: the last bits may differ from a GPU's, and more of them with E4M3, since cards keep about 14 bits of such a sum.
/// </remarks>
internal static unsafe class Mma
{
    private const int Rows = 16;

    /// <summary>BF16 operands, float32 accumulators.</summary>
    [IntrinsicImplementation, Ptx("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 %d, %0, %1, %2;")]
    public static F4 Bf16(U4 a, U2 b, F4 c) => Multiply<Bf16Decoder>(a, b, c);

    /// <summary>F16 operands, float32 accumulators.</summary>
    [IntrinsicImplementation, Ptx("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 %d, %0, %1, %2;")]
    public static F4 F16(U4 a, U2 b, F4 c) => Multiply<F16Decoder>(a, b, c);

    /// <summary>E4M3 operands, 32 columns, float32 accumulators. Compute capability 9.0 has no such unit and emulates it, slowly.</summary>
    [IntrinsicImplementation, Ptx("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 %d, %0, %1, %2;", MinArch = 89, MinVersion = 84)]
    public static F4 E4M3(U4 a, U2 b, F4 c) => Multiply<E4M3Decoder>(a, b, c);

    private interface IDecoder
    {
        static abstract string Instruction { get; }

        /// <summary>Elements a register.</summary>
        static abstract int Elements { get; }

        /// <summary>The lowest bits; what is above them does not count.</summary>
        static abstract float Decode(uint bits);
    }

    private readonly struct Bf16Decoder : IDecoder
    {
        public static string Instruction => "mma.sync (bf16)";

        public static int Elements => 2;

        public static float Decode(uint bits) => Cvt.FromBf16((ushort)bits);
    }

    private readonly struct F16Decoder : IDecoder
    {
        public static string Instruction => "mma.sync (f16)";

        public static int Elements => 2;

        public static float Decode(uint bits) => (float)BitConverter.UInt16BitsToHalf((ushort)bits);
    }

    private readonly struct E4M3Decoder : IDecoder
    {
        public static string Instruction => "mma.sync (e4m3)";

        public static int Elements => 4;

        public static float Decode(uint bits) => Cvt.F16Low(Cvt.E4M3x2LowToF16x2(bits & 0xFF));
    }

    private static F4 Multiply<T>(U4 a, U2 b, F4 c)
        where T : struct, IDecoder
    {
        // Every lane scatters its elements into both matrices, both with k contiguous, then sums its four outputs.
        int k = 8 * T.Elements;
        float* matrixA = WarpEmulation.Begin<float>(T.Instruction, lanes: 32);
        float* matrixB = matrixA + Rows * k;
        int lane = Warp.LaneIdx;
        uint* registers = stackalloc uint[] { a.X, a.Y, a.Z, a.W, b.X, b.Y };
        for (int r = 0; r < 4; r++)
            Scatter<T>(registers[r], matrixA + MmaFragment.ARow(lane, r) * k + MmaFragment.AColumn(lane, r, T.Elements));
        for (int r = 0; r < 2; r++)
            Scatter<T>(registers[4 + r], matrixB + MmaFragment.BColumn(lane) * k + MmaFragment.BK(lane, r, T.Elements));

        WarpEmulation.Meet();
        float* sums = stackalloc float[] { c.X, c.Y, c.Z, c.W };
        for (int i = 0; i < 4; i++)
        {
            float* row = matrixA + MmaFragment.CRow(lane, i) * k;
            float* column = matrixB + MmaFragment.CColumn(lane, i) * k;
            double sum = 0;
            for (int at = 0; at < k; at++)
                sum += (double)row[at] * column[at];
            sums[i] = Ieee.CanonicalNaN((float)(sum + sums[i]));
        }

        return new F4 { X = sums[0], Y = sums[1], Z = sums[2], W = sums[3] };
    }

    private static void Scatter<T>(uint register, float* elements)
        where T : struct, IDecoder
    {
        for (int i = 0; i < T.Elements; i++)
            elements[i] = T.Decode(register >> (32 / T.Elements * i));
    }
}
