using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Kernels.Isa;

public sealed class MmaTests(CpuWarp warp) : IClassFixture<CpuWarp>
{
    private const int M = 16, N = 8, K = 16;

    // The PTX ISA's own wording for .m16n8k16 with 16-bit A and B ("groupID = %laneid >> 2, threadID_in_group = %laneid % 4"),
    // by element: a0..a7, b0..b3, c0..c3, two elements of A and B a register. Written apart from MmaFragment on purpose.
    private static (int Row, int Column) DocumentedA(int lane, int i) =>
        (i is 0 or 1 or 4 or 5 ? lane / 4 : lane / 4 + 8, lane % 4 * 2 + i % 2 + (i < 4 ? 0 : 8));

    private static (int K, int Column) DocumentedB(int lane, int i) => (lane % 4 * 2 + i % 2 + (i < 2 ? 0 : 8), lane / 4);

    private static (int Row, int Column) DocumentedC(int lane, int i) => (i < 2 ? lane / 4 : lane / 4 + 8, lane % 4 * 2 + i % 2);

    [Fact]
    public void Fragment_functions_agree_with_the_documentation()
    {
        for (int lane = 0; lane < 32; lane++)
        {
            for (int i = 0; i < 8; i++)
                Assert.Equal(DocumentedA(lane, i), (MmaFragment.ARow(lane, i / 2), MmaFragment.AColumn(lane, i / 2) + i % 2));
            for (int i = 0; i < 4; i++)
                Assert.Equal(DocumentedB(lane, i), (MmaFragment.BK(lane, i / 2) + i % 2, MmaFragment.BColumn(lane)));
            for (int i = 0; i < 4; i++)
                Assert.Equal(DocumentedC(lane, i), (MmaFragment.CRow(lane, i), MmaFragment.CColumn(lane, i)));
        }
    }

    [Theory]
    [InlineData(5, 0, 1, 2)]
    [InlineData(5, 1, 9, 2)]
    [InlineData(5, 2, 1, 10)]
    [InlineData(5, 3, 9, 10)]
    [InlineData(31, 1, 15, 6)]
    [InlineData(31, 2, 7, 14)]
    public void Literal_positions_of_A(int lane, int register, int row, int column) =>
        Assert.Equal((row, column), (MmaFragment.ARow(lane, register), MmaFragment.AColumn(lane, register)));

    /// <summary>Registers packed by the host after the documentation; input 16 words a lane: A, B, C, and BF16 or F16.</summary>
    internal static void MultiplyPacked(ArrayView<uint> input, ArrayView<uint> output)
    {
        int lane = Group.IdxX, at = lane * 16;
        var a = new U4 { X = input[at], Y = input[at + 1], Z = input[at + 2], W = input[at + 3] };
        var b = new U2 { X = input[at + 4], Y = input[at + 5] };
        var c = new F4
        {
            X = Interop.IntAsFloat(input[at + 6]),
            Y = Interop.IntAsFloat(input[at + 7]),
            Z = Interop.IntAsFloat(input[at + 8]),
            W = Interop.IntAsFloat(input[at + 9]),
        };
        F4 d = input[at + 10] == 0 ? Mma.Bf16(a, b, c) : Mma.F16(a, b, c);
        output[lane * 4] = Interop.FloatAsInt(d.X);
        output[lane * 4 + 1] = Interop.FloatAsInt(d.Y);
        output[lane * 4 + 2] = Interop.FloatAsInt(d.Z);
        output[lane * 4 + 3] = Interop.FloatAsInt(d.W);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Multiplies_what_the_documentation_puts_into_registers(bool f16)
    {
        Operands x = Operands.Random(f16);
        var input = new uint[32 * 16];
        for (int lane = 0; lane < 32; lane++)
        {
            for (int i = 0; i < 8; i++)
                input[lane * 16 + i / 2] |= (uint)x.Encode(x.A[DocumentedA(lane, i).Row, DocumentedA(lane, i).Column]) << (i % 2 * 16);
            for (int i = 0; i < 4; i++)
            {
                input[lane * 16 + 4 + i / 2] |= (uint)x.Encode(x.B[DocumentedB(lane, i).K, DocumentedB(lane, i).Column]) << (i % 2 * 16);
                input[lane * 16 + 6 + i] = Interop.FloatAsInt((float)x.C[DocumentedC(lane, i).Row, DocumentedC(lane, i).Column]);
            }

            input[lane * 16 + 10] = f16 ? 1u : 0;
        }

        uint[] output = warp.Launch(MultiplyPacked, input, 128);
        for (int lane = 0; lane < 32; lane++)
        {
            for (int i = 0; i < 4; i++)
            {
                (int row, int column) = DocumentedC(lane, i);
                Assert.Equal(x.Expected(row, column), Interop.IntAsFloat(output[lane * 4 + i]), 1e-6 * x.Magnitude);
            }
        }
    }

    /// <summary>Row-major A, then B with k contiguous, one BF16 a word, loaded and stored by MmaFragment.</summary>
    internal static void MultiplyMatrices(ArrayView<uint> input, ArrayView<uint> output)
    {
        int lane = Group.IdxX;
        uint r0 = LoadA(input, lane, 0), r1 = LoadA(input, lane, 1), r2 = LoadA(input, lane, 2), r3 = LoadA(input, lane, 3);
        Multiply(new U4 { X = r0, Y = r1, Z = r2, W = r3 }, input, output);
    }

    /// <summary>The same with registers 1 and 2 of A exchanged.</summary>
    internal static void MultiplyMatricesExchanged(ArrayView<uint> input, ArrayView<uint> output)
    {
        int lane = Group.IdxX;
        uint r0 = LoadA(input, lane, 0), r1 = LoadA(input, lane, 1), r2 = LoadA(input, lane, 2), r3 = LoadA(input, lane, 3);
        Multiply(new U4 { X = r0, Y = r2, Z = r1, W = r3 }, input, output);
    }

    /// <summary>The same from shared memory by ldmatrix: A by x4, B by x2 (k contiguous, so not transposed).</summary>
    internal static void MultiplyMatricesByLdMatrix(ArrayView<uint> input, ArrayView<uint> output)
    {
        ArrayView<ushort> shared = SharedMemory.Allocate<U4>(48).Cast<ushort>();
        int lane = Group.IdxX;
        for (int i = lane; i < 384; i += 32)
            shared[i] = (ushort)input[i];
        Group.Barrier();

        // Matrices in register order: rows 0–7 and 8–15 of k 0–7, then of k 8–15.
        U4 a = LdMatrix.X4(ref shared[lane % 16 * K + lane / 16 * 8]);
        U2 b = LdMatrix.X2(ref shared[M * K + lane % 8 * K + lane / 8 % 2 * 8]);
        Store(output, lane, Mma.Bf16(a, b, default));
    }

    [Fact]
    public void Matrices_with_four_different_quadrants()
    {
        Operands x = Operands.Random(f16: false);
        Assert.Equal(0, WrongElements(x, warp.Launch(MultiplyMatrices, x.Words(), M * N)));
        Assert.Equal(0, WrongElements(x, warp.Launch(MultiplyMatricesByLdMatrix, x.Words(), M * N)));
    }

    [Fact]
    public void Exchanging_registers_1_and_2_of_A_is_noticed()
    {
        Operands x = Operands.Random(f16: false);
        Assert.InRange(WrongElements(x, warp.Launch(MultiplyMatricesExchanged, x.Words(), M * N)), 120, 128);
    }

    [Fact]
    public void Infinities_and_NaN()
    {
        // Row 0: ∞·1 + … = ∞; row 1: ∞·1 − ∞·1 = NaN; row 2 untouched.
        Operands x = Operands.Random(f16: false);
        for (int n = 0; n < N; n++)
            x.B[0, n] = x.B[9, n] = 1;
        x.A[0, 0] = x.A[1, 0] = double.PositiveInfinity;
        x.A[1, 9] = double.NegativeInfinity;
        uint[] output = warp.Launch(MultiplyMatrices, x.Words(), M * N);
        for (int n = 0; n < N; n++)
        {
            Assert.Equal(0x7F800000u, output[n]);
            Assert.Equal(0x7FFFFFFFu, output[N + n]);
            Assert.True(float.IsFinite(Interop.IntAsFloat(output[2 * N + n])));
        }
    }

    private static uint LoadA(ArrayView<uint> input, int lane, int register)
    {
        int at = MmaFragment.ARow(lane, register) * K + MmaFragment.AColumn(lane, register);
        return input[at] | input[at + 1] << 16;
    }

    private static void Multiply(U4 a, ArrayView<uint> input, ArrayView<uint> output)
    {
        int lane = Group.IdxX, at = M * K + MmaFragment.BColumn(lane) * K;
        int k0 = at + MmaFragment.BK(lane, 0), k1 = at + MmaFragment.BK(lane, 1);
        var b = new U2 { X = input[k0] | input[k0 + 1] << 16, Y = input[k1] | input[k1 + 1] << 16 };
        Store(output, lane, Mma.Bf16(a, b, default));
    }

    private static void Store(ArrayView<uint> output, int lane, F4 d)
    {
        output[MmaFragment.CRow(lane, 0) * N + MmaFragment.CColumn(lane, 0)] = Interop.FloatAsInt(d.X);
        output[MmaFragment.CRow(lane, 1) * N + MmaFragment.CColumn(lane, 1)] = Interop.FloatAsInt(d.Y);
        output[MmaFragment.CRow(lane, 2) * N + MmaFragment.CColumn(lane, 2)] = Interop.FloatAsInt(d.Z);
        output[MmaFragment.CRow(lane, 3) * N + MmaFragment.CColumn(lane, 3)] = Interop.FloatAsInt(d.W);
    }

    private static int WrongElements(Operands x, uint[] output)
    {
        int wrong = 0;
        for (int i = 0; i < M * N; i++)
        {
            if (Math.Abs(Interop.IntAsFloat(output[i]) - x.Product(i / N, i % N)) > 1e-6 * x.Magnitude)
                wrong++;
        }

        return wrong;
    }

    // A's quadrants differ in size (1, 2, 4, 8) and B varies along k, so that no exchange of registers cancels.
    private sealed class Operands(bool f16)
    {
        public double[,] A { get; } = new double[M, K];

        public double[,] B { get; } = new double[K, N];

        public double[,] C { get; } = new double[M, N];

        public double Magnitude => 8 * 4 * K;

        public static Operands Random(bool f16)
        {
            var random = new Random(1);
            var x = new Operands(f16);
            for (int i = 0; i < M * K; i++)
                x.A[i / K, i % K] = x.Round((random.NextDouble() + 0.5) * (1 << (i / K / 8 * 2 + i % K / 8)));
            for (int i = 0; i < K * N; i++)
                x.B[i / N, i % N] = x.Round((random.NextDouble() - 0.5) * (1 + i / N) / 4);
            for (int i = 0; i < M * N; i++)
                x.C[i / N, i % N] = x.Round(random.NextDouble() * 4 - 2);
            return x;
        }

        public ushort Encode(double value) =>
            f16 ? BitConverter.HalfToUInt16Bits((System.Half)value) : ((BFloat16)(float)value).Bits;

        public double Product(int row, int column) => Enumerable.Range(0, K).Sum(k => A[row, k] * B[k, column]);

        public double Expected(int row, int column) => Product(row, column) + C[row, column];

        public uint[] Words()
        {
            var words = new uint[M * K + N * K];
            for (int i = 0; i < M * K; i++)
                words[i] = Encode(A[i / K, i % K]);
            for (int i = 0; i < N * K; i++)
                words[M * K + i] = Encode(B[i % K, i / K]);
            return words;
        }

        private double Round(double value) =>
            f16 ? (double)(System.Half)value : (float)(BFloat16)(float)value;
    }
}
