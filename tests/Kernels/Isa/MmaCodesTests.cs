using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Kernels.Isa;

/// <summary>Products of codes against matrices in double precision, registers packed after the documentation.</summary>
public sealed class MmaCodesTests(CpuWarp warp) : IClassFixture<CpuWarp>
{
    private const int M = 16, N = 8, K = 32, Lanes = 32, LaneWords = 16;

    // The PTX ISA's own wording for .m16n8k32 with 8-bit A and B, by element: a0..a15, b0..b7, c0..c3, four elements of A and B a register.
    // Written apart from MmaFragment on purpose.
    private static (int Row, int Column) DocumentedA(int lane, int i) =>
        (i is >= 0 and < 4 or >= 8 and < 12 ? lane / 4 : lane / 4 + 8, lane % 4 * 4 + i % 4 + (i < 8 ? 0 : 16));

    private static (int K, int Column) DocumentedB(int lane, int i) => (lane % 4 * 4 + i % 4 + (i < 4 ? 0 : 16), lane / 4);

    private static (int Row, int Column) DocumentedC(int lane, int i) => (i < 2 ? lane / 4 : lane / 4 + 8, lane % 4 * 2 + i % 2);

    [Fact]
    public void Fragment_functions_agree_with_the_documentation()
    {
        for (int lane = 0; lane < Lanes; lane++)
        {
            for (int i = 0; i < 16; i++)
                Assert.Equal(DocumentedA(lane, i), (MmaFragment.ARow(lane, i / 4), MmaFragment.AColumn(lane, i / 4, 4) + i % 4));
            for (int i = 0; i < 8; i++)
                Assert.Equal(DocumentedB(lane, i), (MmaFragment.BK(lane, i / 4, 4) + i % 4, MmaFragment.BColumn(lane)));
            for (int i = 0; i < 32; i++)
                Assert.Equal(DocumentedA4(lane, i), (MmaFragment.ARow(lane, i / 8), MmaFragment.AColumn(lane, i / 8, 8) + i % 8));
            for (int i = 0; i < 16; i++)
                Assert.Equal(DocumentedB4(lane, i), (MmaFragment.BK(lane, i / 8, 8) + i % 8, MmaFragment.BColumn(lane)));
        }
    }

    /// <summary>Sixteen words a lane: A, B and C.</summary>
    internal static void MultiplyE4M3(ArrayView<uint> input, ArrayView<uint> output)
    {
        int lane = Group.IdxX, at = lane * LaneWords;
        Store(output, lane, Mma.E4M3(A(input, at), B(input, at), C(input, at)));
    }

    // Every code once in A and most of them in B: what the instruction makes of a code, and where it stands.
    [Fact]
    public void Multiplies_what_the_documentation_puts_into_registers()
    {
        var random = new Random(1);
        byte[] a = [.. Enumerable.Range(0, M * K).Select(i => Finite(i * 37))], b = [.. Enumerable.Range(0, N * K).Select(_ => Finite(random.Next()))];
        float[] c = RandomData.Gaussian(M * N, 2, 1000);
        float[] d = Run(a, b, c);
        for (int row = 0; row < M; row++)
        {
            for (int column = 0; column < N; column++)
            {
                double sum = c[row * N + column], magnitude = Math.Abs(sum);
                for (int k = 0; k < K; k++)
                {
                    double product = MatrixOracle.E4M3[a[row * K + k]] * MatrixOracle.E4M3[b[column * K + k]];
                    sum += product;
                    magnitude += Math.Abs(product);
                }
                Assert.Equal(sum, d[row * N + column], 1e-6 * magnitude);
            }
        }
    }

    [Fact]
    public void NaN_reaches_its_row_or_column_only()
    {
        byte[] a = new byte[M * K], b = new byte[N * K];
        Array.Fill(a, (byte)0x38);
        Array.Fill(b, (byte)0x38);
        (a[3 * K + 5], b[6 * K + 31]) = (0x7F, 0xFF);
        float[] d = Run(a, b, new float[M * N]);
        for (int i = 0; i < M * N; i++)
            Assert.Equal(i / N == 3 || i % N == 6 ? float.NaN : 32, d[i]);
    }

    /// <summary>Ten words a lane: A, B and C.</summary>
    internal static void MultiplyS8(ArrayView<uint> input, ArrayView<uint> output)
    {
        int lane = Group.IdxX, at = lane * LaneWords;
        U4 a = A(input, at);
        U2 b = B(input, at);
        var c = new U4 { X = input[at + 6], Y = input[at + 7], Z = input[at + 8], W = input[at + 9] };
        U4 d = Mma.S8(a, b, c);
        output[lane * 4] = d.X;
        output[lane * 4 + 1] = d.Y;
        output[lane * 4 + 2] = d.Z;
        output[lane * 4 + 3] = d.W;
    }

    // Bytes of every kind; sums from anywhere, so that some wrap.
    [Fact]
    public void Multiplies_signed_bytes_exactly()
    {
        var random = new Random(5);
        sbyte[] a = [.. Enumerable.Range(0, M * K).Select(i => (sbyte)(byte)(i * 37))], b = [.. Enumerable.Range(0, N * K).Select(_ => (sbyte)random.Next(-128, 128))];
        int[] c = [.. Enumerable.Range(0, M * N).Select(_ => random.Next(2) == 0 ? random.Next(int.MinValue, int.MaxValue) : int.MaxValue)];
        var input = new uint[Lanes * LaneWords];
        for (int lane = 0; lane < Lanes; lane++)
        {
            for (int i = 0; i < 16; i++)
                input[lane * LaneWords + i / 4] |= (uint)(byte)a[DocumentedA(lane, i).Row * K + DocumentedA(lane, i).Column] << (i % 4 * 8);
            for (int i = 0; i < 8; i++)
                input[lane * LaneWords + 4 + i / 4] |= (uint)(byte)b[DocumentedB(lane, i).Column * K + DocumentedB(lane, i).K] << (i % 4 * 8);
            for (int i = 0; i < 4; i++)
                input[lane * LaneWords + 6 + i] = (uint)c[DocumentedC(lane, i).Row * N + DocumentedC(lane, i).Column];
        }
        uint[] output = warp.Launch(MultiplyS8, input, M * N);
        for (int lane = 0; lane < Lanes; lane++)
        {
            for (int i = 0; i < 4; i++)
            {
                (int row, int column) = DocumentedC(lane, i);
                long sum = c[row * N + column];
                for (int k = 0; k < K; k++)
                    sum += a[row * K + k] * b[column * K + k];
                Assert.Equal((int)sum, (int)output[lane * 4 + i]);
            }
        }
    }

    // .m16n8k64 of 4-bit codes, eight elements a register: a0..a31, b0..b15.
    private static (int Row, int Column) DocumentedA4(int lane, int i) =>
        (i is >= 0 and < 8 or >= 16 and < 24 ? lane / 4 : lane / 4 + 8, lane % 4 * 8 + i % 8 + (i < 16 ? 0 : 32));

    private static (int K, int Column) DocumentedB4(int lane, int i) => (lane % 4 * 8 + i % 8 + (i < 8 ? 0 : 32), lane / 4);

    /// <summary>Sixteen words a lane: A, B, C and the multipliers of both.</summary>
    internal static void MultiplyNvfp4(ArrayView<uint> input, ArrayView<uint> output)
    {
        int lane = Group.IdxX, at = lane * LaneWords;
        Store(output, lane, Mma.Nvfp4(A(input, at), B(input, at), C(input, at), input[at + 10], input[at + 11]));
    }

    // Every code, and another multiplier for each row or column and 16 of k; the lanes that are not asked for theirs hold NaN.
    [Fact]
    public void Multiplies_four_bits_with_the_multipliers_of_their_groups()
    {
        const int Columns = 64, Groups = Columns / 16;
        var random = new Random(3);
        int[] a = [.. Enumerable.Range(0, M * Columns).Select(i => i * 5 % 16)], b = [.. Enumerable.Range(0, N * Columns).Select(_ => random.Next(16))];
        byte[] scalesA = [.. Enumerable.Range(0, M * Groups).Select(i => (byte)(i * 2 % 0x7F))], scalesB = [.. Enumerable.Range(0, N * Groups).Select(i => (byte)(0x7E - i * 3))];
        float[] c = RandomData.Gaussian(M * N, 4, 1000);
        var input = new uint[Lanes * LaneWords];
        for (int lane = 0; lane < Lanes; lane++)
        {
            int at = lane * LaneWords;
            for (int i = 0; i < 32; i++)
                input[at + i / 8] |= (uint)a[DocumentedA4(lane, i).Row * Columns + DocumentedA4(lane, i).Column] << (i % 8 * 4);
            for (int i = 0; i < 16; i++)
                input[at + 4 + i / 8] |= (uint)b[DocumentedB4(lane, i).Column * Columns + DocumentedB4(lane, i).K] << (i % 8 * 4);
            for (int i = 0; i < 4; i++)
                input[at + 6 + i] = Interop.FloatAsInt(c[DocumentedC(lane, i).Row * N + DocumentedC(lane, i).Column]);
            // Selectors 0: rows g and g + 8 from the first two lanes of four, column g from the first.
            input[at + 10] = lane % 4 < 2 ? BitConverter.ToUInt32(scalesA, (lane / 4 + lane % 4 * 8) * Groups) : 0x7F7F7F7F;
            input[at + 11] = lane % 4 == 0 ? BitConverter.ToUInt32(scalesB, lane / 4 * Groups) : 0x7F7F7F7F;
        }
        uint[] output = warp.Launch(MultiplyNvfp4, input, M * N);
        for (int lane = 0; lane < Lanes; lane++)
        {
            for (int i = 0; i < 4; i++)
            {
                (int row, int column) = DocumentedC(lane, i);
                double sum = c[row * N + column], magnitude = Math.Abs(sum);
                for (int k = 0; k < Columns; k++)
                {
                    double product = MatrixOracle.E2M1[a[row * Columns + k]] * MatrixOracle.E4M3[scalesA[row * Groups + k / 16]] * MatrixOracle.E2M1[b[column * Columns + k]] * MatrixOracle.E4M3[scalesB[column * Groups + k / 16]];
                    sum += product;
                    magnitude += Math.Abs(product);
                }
                Assert.Equal(sum, Interop.IntAsFloat(output[lane * 4 + i]), 1e-6 * magnitude);
            }
        }
    }

    /// <summary>Sixteen words a lane: A, B, C and the multipliers of both.</summary>
    internal static void MultiplyScaledE4M3(ArrayView<uint> input, ArrayView<uint> output)
    {
        int lane = Group.IdxX, at = lane * LaneWords;
        Store(output, lane, Mma.ScaledE4M3(A(input, at), B(input, at), C(input, at), input[at + 10], input[at + 11]));
    }

    // Another power of two for each row and column, one of them NaN; in the other bytes, and in lanes that are not asked for theirs, NaN.
    [Fact]
    public void Multiplies_codes_with_the_powers_of_two_of_their_rows_and_columns()
    {
        var random = new Random(6);
        byte[] a = [.. Enumerable.Range(0, M * K).Select(i => Finite(i * 37))], b = [.. Enumerable.Range(0, N * K).Select(_ => Finite(random.Next()))];
        byte[] scalesA = [.. Enumerable.Range(0, M).Select(i => (byte)(i == 11 ? 0xFF : i == 2 ? 0 : 119 + i))], scalesB = [.. Enumerable.Range(0, N).Select(i => (byte)(i == 5 ? 227 : 130 - i))];
        float[] c = RandomData.Gaussian(M * N, 7, 1000);
        // Products of the row whose multiplier is the least would be nothing beside them.
        c.AsSpan(2 * N, N).Clear();
        uint[] input = Registers(a, b, c);
        for (int lane = 0; lane < Lanes; lane++)
        {
            // Selectors 0: rows g and g + 8 from the first two lanes of four, column g from the first.
            input[lane * LaneWords + 10] = 0xFFFFFF00 | (lane % 4 < 2 ? scalesA[lane / 4 + lane % 4 * 8] : 0xFFu);
            input[lane * LaneWords + 11] = 0xFFFFFF00 | (lane % 4 == 0 ? scalesB[lane / 4] : 0xFFu);
        }
        float[] d = Sums(warp.Launch(MultiplyScaledE4M3, input, M * N));
        for (int row = 0; row < M; row++)
        {
            for (int column = 0; column < N; column++)
            {
                double sum = c[row * N + column], magnitude = Math.Abs(sum), factor = row == 11 ? double.NaN : Math.ScaleB(1, scalesA[row] + scalesB[column] - 254);
                for (int k = 0; k < K; k++)
                {
                    double product = MatrixOracle.E4M3[a[row * K + k]] * MatrixOracle.E4M3[b[column * K + k]] * factor;
                    sum += product;
                    magnitude += Math.Abs(product);
                }
                Assert.Equal(row == 11, float.IsNaN(d[row * N + column]));
                if (row != 11)
                    Assert.Equal(sum, d[row * N + column], 1e-6 * magnitude);
            }
        }
    }

    private static U4 A(ArrayView<uint> input, int at) => new() { X = input[at], Y = input[at + 1], Z = input[at + 2], W = input[at + 3] };

    private static U2 B(ArrayView<uint> input, int at) => new() { X = input[at + 4], Y = input[at + 5] };

    private static F4 C(ArrayView<uint> input, int at) =>
        new() { X = Interop.IntAsFloat(input[at + 6]), Y = Interop.IntAsFloat(input[at + 7]), Z = Interop.IntAsFloat(input[at + 8]), W = Interop.IntAsFloat(input[at + 9]) };

    private static void Store(ArrayView<uint> output, int lane, F4 d)
    {
        output[lane * 4] = Interop.FloatAsInt(d.X);
        output[lane * 4 + 1] = Interop.FloatAsInt(d.Y);
        output[lane * 4 + 2] = Interop.FloatAsInt(d.Z);
        output[lane * 4 + 3] = Interop.FloatAsInt(d.W);
    }

    private static byte Finite(int code) => (byte)((code & 0x7F) == 0x7F ? 0x7E : code);

    // A row-major, B with k contiguous.
    private float[] Run(byte[] a, byte[] b, float[] c) => Sums(warp.Launch(MultiplyE4M3, Registers(a, b, c), M * N));

    private static uint[] Registers(byte[] a, byte[] b, float[] c)
    {
        var input = new uint[Lanes * LaneWords];
        for (int lane = 0; lane < Lanes; lane++)
        {
            for (int i = 0; i < 16; i++)
                input[lane * LaneWords + i / 4] |= (uint)a[DocumentedA(lane, i).Row * K + DocumentedA(lane, i).Column] << (i % 4 * 8);
            for (int i = 0; i < 8; i++)
                input[lane * LaneWords + 4 + i / 4] |= (uint)b[DocumentedB(lane, i).Column * K + DocumentedB(lane, i).K] << (i % 4 * 8);
            for (int i = 0; i < 4; i++)
                input[lane * LaneWords + 6 + i] = Interop.FloatAsInt(c[DocumentedC(lane, i).Row * N + DocumentedC(lane, i).Column]);
        }
        return input;
    }

    private static float[] Sums(uint[] output)
    {
        var d = new float[M * N];
        for (int lane = 0; lane < Lanes; lane++)
            for (int i = 0; i < 4; i++)
                d[DocumentedC(lane, i).Row * N + DocumentedC(lane, i).Column] = Interop.IntAsFloat(output[lane * 4 + i]);
        return d;
    }
}
