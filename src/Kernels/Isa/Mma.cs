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

    /// <summary>Signed bytes, 32 columns, 32-bit integer sums that wrap.</summary>
    [IntrinsicImplementation, Ptx("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 %d, %0, %1, %2;")]
    public static U4 S8(U4 a, U2 b, U4 c)
    {
        float* elements = stackalloc float[6 * S8Decoder.Elements];
        Decode<S8Decoder>(a, b, elements);
        double* sums = stackalloc double[4];
        Multiply<S8Decoder>(elements, sums);
        return new U4 { X = c.X + (uint)(int)sums[0], Y = c.Y + (uint)(int)sums[1], Z = c.Z + (uint)(int)sums[2], W = c.W + (uint)(int)sums[3] };
    }

    /// <summary>
    /// E2M1 operands, 64 columns, float32 accumulators. Each 16 columns of a row of A and of a column of B have an E4M3 multiplier without a sign: four bytes
    /// a lane, the first columns' lowest, of the row and the column that <see cref="MmaFragment.AScaleRow"/> and <see cref="MmaFragment.BScaleColumn"/> say.
    /// </summary>
    [IntrinsicImplementation]
    [Ptx("mma.sync.aligned.m16n8k64.row.col.kind::mxf4nvf4.block_scale.scale_vec::4X.f32.e2m1.e2m1.f32.ue4m3 %d, %0, %1, %2, %3, {0, 0}, %4, {0, 0};", ExactArch = "120a")]
    public static F4 Nvfp4(U4 a, U2 b, F4 c, uint scalesA, uint scalesB)
    {
        // The lane's columns of each register lie in one group of 16, whose multipliers another lane of the four holds.
        uint* registers = stackalloc uint[] { a.X, a.Y, a.Z, a.W, b.X, b.Y };
        float* elements = stackalloc float[6 * E2M1Decoder.Elements];
        ulong* scales = WarpEmulation.Gather("mma.sync (e2m1 scales)", scalesA | (ulong)scalesB << 32);
        int lane = Warp.LaneIdx, first = lane & ~3;
        for (int r = 0; r < 6; r++)
        {
            int k = r < 4 ? MmaFragment.AColumn(lane, r, E2M1Decoder.Elements) : MmaFragment.BK(lane, r - 4, E2M1Decoder.Elements);
            uint word = r < 4 ? (uint)scales[first + (r & 1)] : (uint)(scales[first] >> 32);
            float scale = E4M3Decoder.Decode((word >> (8 * (k / 16))) & 0x7F);
            for (int i = 0; i < E2M1Decoder.Elements; i++)
                elements[r * E2M1Decoder.Elements + i] = E2M1Decoder.Decode(registers[r] >> (4 * i)) * scale;
        }
        return Multiply<E2M1Decoder>(elements, c);
    }

    /// <summary>
    /// E4M3 operands, 32 columns, float32 accumulators; a row of A and a column of B have a power of two as multiplier (UE8M0: 2 to the byte − 127, 255 is NaN), the lowest
    /// byte of the lanes that <see cref="MmaFragment.AScaleRow"/> and <see cref="MmaFragment.BScaleColumn"/> say.
    /// </summary>
    [IntrinsicImplementation]
    [Ptx("mma.sync.aligned.m16n8k32.row.col.kind::mxf8f6f4.block_scale.scale_vec::1X.f32.e4m3.e4m3.f32.ue8m0 %d, %0, %1, %2, %3, {0, 0}, %4, {0, 0};", ExactArch = "120a")]
    public static F4 ScaledE4M3(U4 a, U2 b, F4 c, uint scalesA, uint scalesB)
    {
        // All 32 columns have the same two multipliers: they multiply the sum.
        ulong* scales = WarpEmulation.Gather("mma.sync (e4m3 scales)", scalesA | (ulong)scalesB << 32);
        int lane = Warp.LaneIdx;
        double* factors = stackalloc double[4];
        for (int i = 0; i < 4; i++)
        {
            int row = MmaFragment.CRow(lane, i), column = MmaFragment.CColumn(lane, i);
            factors[i] = PowerOfTwo((byte)scales[(4 * (row % 8)) + (row / 8)]) * PowerOfTwo((byte)(scales[4 * column] >> 32));
        }
        float* elements = stackalloc float[6 * E4M3Decoder.Elements];
        Decode<E4M3Decoder>(a, b, elements);
        double* sums = stackalloc double[4];
        Multiply<E4M3Decoder>(elements, sums);
        return new F4 { X = Rounded(sums[0] * factors[0], c.X), Y = Rounded(sums[1] * factors[1], c.Y), Z = Rounded(sums[2] * factors[2], c.Z), W = Rounded(sums[3] * factors[3], c.W) };
    }

    private static double PowerOfTwo(byte code) => code == 0xFF ? double.NaN : Math.ScaleB(1, code - 127);

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

    private readonly struct S8Decoder : IDecoder
    {
        public static string Instruction => "mma.sync (s8)";

        public static int Elements => 4;

        public static float Decode(uint bits) => (sbyte)bits;
    }

    private readonly struct E2M1Decoder : IDecoder
    {
        public static string Instruction => "mma.sync (e2m1)";

        public static int Elements => 8;

        public static float Decode(uint bits) => Cvt.FromBf16(Formats.Nvfp4.DecodeCode(bits & 0xF));
    }

    private readonly struct E4M3Decoder : IDecoder
    {
        public static string Instruction => "mma.sync (e4m3)";

        public static int Elements => 4;

        public static float Decode(uint bits) => (bits & 0x7F) == 0x7F ? float.NaN : Formats.Nvfp4.GroupScale((byte)bits);
    }

    private static F4 Multiply<T>(U4 a, U2 b, F4 c)
        where T : struct, IDecoder
    {
        float* elements = stackalloc float[6 * T.Elements];
        Decode<T>(a, b, elements);
        return Multiply<T>(elements, c);
    }

    // A lane's elements of A, a register behind the other, and of B.
    private static void Decode<T>(U4 a, U2 b, float* elements)
        where T : struct, IDecoder
    {
        uint* registers = stackalloc uint[] { a.X, a.Y, a.Z, a.W, b.X, b.Y };
        for (int i = 0; i < 6 * T.Elements; i++)
            elements[i] = T.Decode(registers[i / T.Elements] >> (32 / T.Elements * (i % T.Elements)));
    }

    private static F4 Multiply<T>(float* elements, F4 c)
        where T : struct, IDecoder
    {
        double* sums = stackalloc double[4];
        Multiply<T>(elements, sums);
        return new F4 { X = Rounded(sums[0], c.X), Y = Rounded(sums[1], c.Y), Z = Rounded(sums[2], c.Z), W = Rounded(sums[3], c.W) };
    }

    private static float Rounded(double sum, float c) => Ieee.CanonicalNaN((float)(sum + c));

    // Every lane scatters its elements into both matrices, both with k contiguous, then sums its four outputs.
    private static void Multiply<T>(float* elements, double* sums)
        where T : struct, IDecoder
    {
        int k = 8 * T.Elements;
        float* matrixA = WarpEmulation.Begin<float>(T.Instruction, lanes: 32);
        float* matrixB = matrixA + Rows * k;
        int lane = Warp.LaneIdx;
        for (int r = 0; r < 4; r++)
            Scatter<T>(elements + r * T.Elements, matrixA + MmaFragment.ARow(lane, r) * k + MmaFragment.AColumn(lane, r, T.Elements));
        for (int r = 0; r < 2; r++)
            Scatter<T>(elements + (4 + r) * T.Elements, matrixB + MmaFragment.BColumn(lane) * k + MmaFragment.BK(lane, r, T.Elements));

        WarpEmulation.Meet();
        for (int i = 0; i < 4; i++)
        {
            float* row = matrixA + MmaFragment.CRow(lane, i) * k;
            float* column = matrixB + MmaFragment.CColumn(lane, i) * k;
            sums[i] = 0;
            for (int at = 0; at < k; at++)
                sums[i] += (double)row[at] * column[at];
        }
    }

    private static void Scatter<T>(float* elements, float* target)
        where T : struct, IDecoder
    {
        for (int i = 0; i < T.Elements; i++)
            target[i] = elements[i];
    }
}
