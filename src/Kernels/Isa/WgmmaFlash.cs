using ILGPU;
using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>
/// What attention does with the accumulators of <see cref="Wgmma"/> (sm_90a): <c>part</c>, 64 a thread, are scores of 64 rows and 128 positions, become weights and,
/// rounded to BF16 (<c>weight</c>, 32), the first operand of the second product, whose sums over 128 columns of values are <c>total</c>, 64 a thread.
/// </summary>
/// <remarks>
/// A result of 16 columns is, two neighbours a register, the operand of 16 columns (<see cref="MmaFragment"/>): weight i holds parts 2i and 2i + 1, and no lane gives another
/// anything. Of a lane's numbers those with an index of 0 or 1 modulo 4 belong to its upper row.
/// </remarks>
internal static unsafe class WgmmaFlash
{
    /// <summary>Scores or sums a thread.</summary>
    private const int Registers = 64;

    private const string Arch = "90a";

    // Sixteen positions a product: 2,048 bytes, 128 in a descriptor. Values are the second operand with columns neighbouring, not positions: 1 at the end.
    private const string Begin = "{ .reg .b64 b; mov.b64 b, %0; ";
    private const string Product = "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {[[64, total(#)]]}, ";
    private const string End = ", b, 1, 1, 1, 1; ";
    private const string Step = "add.s64 b, b, 128; ";

    [ThreadStatic]
    private static uint[]? weights;

    private static uint[] Weights => weights ??= new uint[Registers / 2];

    /// <summary>Declares the registers of the weights. Once a kernel, before any branch.</summary>
    [IntrinsicImplementation, Ptx(".reg .b32 weight<32>;", ExactArch = Arch)]
    public static void Declare()
    {
    }

    /// <summary>What the tensor cores must know of values: slabs of 64 columns × 128 positions, each position 128 bytes with swizzle, eight a kilobyte, slabs one behind the other.</summary>
    /// <param name="address">Shared address of the first position; a multiple of 1,024.</param>
    public static ulong Descriptor(uint address) => 0x4000_0040_0400_0000UL | (address >> 4);

    /// <summary>total = 0.</summary>
    [IntrinsicImplementation, Ptx("[[64: mov.b32 total(#), 0f00000000; ]]", ExactArch = Arch)]
    public static void Clear()
    {
        for (int i = 0; i < Registers; i++)
            Wgmma.SetTotal(i, 0);
    }

    /// <summary>Scores of the upper row at columns from <paramref name="upper"/> on, counted from the lane's first, become −∞; of the lower row likewise.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .pred sees; .reg .f32 none; mov.b32 none, 0fFF800000; [[16: setp.gt.s32 sees, %0, (8#); selp.f32 part(4#), part(4#), none, sees; setp.gt.s32 sees, %0, (8#+1); selp.f32 part(4#+1), part(4#+1), none, sees; setp.gt.s32 sees, %1, (8#); selp.f32 part(4#+2), part(4#+2), none, sees; setp.gt.s32 sees, %1, (8#+1); selp.f32 part(4#+3), part(4#+3), none, sees; ]]}", ExactArch = Arch)]
    public static void Mask(int upper, int lower)
    {
        for (int i = 0; i < Registers; i++)
            if ((i & 2) == 0 ? upper <= Column(i) : lower <= Column(i))
                Wgmma.SetPart(i, float.NegativeInfinity);
    }

    /// <summary>The largest score of the lane's rows and <paramref name="upper"/> or <paramref name="lower"/>; NaN counts as nothing.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .f32 p, q, r, s; mov.b32 p, %0; mov.b32 q, part1; mov.b32 r, %1; mov.b32 s, part3; max.f32 p, p, part0; max.f32 r, r, part2; [[15: max.f32 p, p, part(4#+4); max.f32 q, q, part(4#+5); max.f32 r, r, part(4#+6); max.f32 s, s, part(4#+7); ]] max.f32 %d.0, p, q; max.f32 %d.1, r, s; }", ExactArch = Arch)]
    public static F2 Largest(float upper, float lower)
    {
        for (int i = 0; i < Registers; i += 4)
        {
            upper = float.MaxNumber(upper, float.MaxNumber(Wgmma.Part(i), Wgmma.Part(i + 1)));
            lower = float.MaxNumber(lower, float.MaxNumber(Wgmma.Part(i + 2), Wgmma.Part(i + 3)));
        }
        return new F2 { X = upper, Y = lower };
    }

    /// <summary>Scores become weights, 2^(score · scale − upper) or − lower.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .f32 p, r; neg.f32 p, %1; neg.f32 r, %2; [[16: fma.rn.f32 part(4#), part(4#), %0, p; fma.rn.f32 part(4#+1), part(4#+1), %0, p; fma.rn.f32 part(4#+2), part(4#+2), %0, r; fma.rn.f32 part(4#+3), part(4#+3), %0, r; ex2.approx.ftz.f32 part(4#), part(4#); ex2.approx.ftz.f32 part(4#+1), part(4#+1); ex2.approx.ftz.f32 part(4#+2), part(4#+2); ex2.approx.ftz.f32 part(4#+3), part(4#+3); ]]}", ExactArch = Arch)]
    public static void Exponentiate(float scale, float upper, float lower)
    {
        for (int i = 0; i < Registers; i++)
            Wgmma.SetPart(i, Fast.Ex2(Fast.Fma(Wgmma.Part(i), scale, -((i & 2) == 0 ? upper : lower))));
    }

    /// <summary>The sums of the lane's weights of its two rows.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .f32 p, q, r, s; mov.b32 p, part0; mov.b32 q, part1; mov.b32 r, part2; mov.b32 s, part3; [[15: add.rn.f32 p, p, part(4#+4); add.rn.f32 q, q, part(4#+5); add.rn.f32 r, r, part(4#+6); add.rn.f32 s, s, part(4#+7); ]] add.rn.f32 %d.0, p, q; add.rn.f32 %d.1, r, s; }", ExactArch = Arch)]
    public static F2 SumParts()
    {
        // In the order of the instructions: the even and the odd columns of each row.
        float p = Wgmma.Part(0), q = Wgmma.Part(1), r = Wgmma.Part(2), s = Wgmma.Part(3);
        for (int i = 4; i < Registers; i += 4)
        {
            p = Fast.Add(p, Wgmma.Part(i));
            q = Fast.Add(q, Wgmma.Part(i + 1));
            r = Fast.Add(r, Wgmma.Part(i + 2));
            s = Fast.Add(s, Wgmma.Part(i + 3));
        }
        return new F2 { X = Fast.Add(p, q), Y = Fast.Add(r, s) };
    }

    /// <summary>Weights rounded to BF16 become the operand of <see cref="Multiply"/>.</summary>
    [IntrinsicImplementation, Ptx("[[32: cvt.rn.bf16x2.f32 weight(#), part(2#+1), part(2#); ]]", ExactArch = Arch)]
    public static void Round()
    {
        for (int i = 0; i < Registers / 2; i++)
            Weights[i] = Bf16.Pack(Wgmma.Part(2 * i), Wgmma.Part((2 * i) + 1));
    }

    /// <summary>total[64, 128] += weight[64, 128] · V[128, 128].</summary>
    [IntrinsicImplementation, Ptx(Begin
        + Product + "{weight0, weight1, weight2, weight3}" + End + Step + Product + "{weight4, weight5, weight6, weight7}" + End + Step
        + Product + "{weight8, weight9, weight10, weight11}" + End + Step + Product + "{weight12, weight13, weight14, weight15}" + End + Step
        + Product + "{weight16, weight17, weight18, weight19}" + End + Step + Product + "{weight20, weight21, weight22, weight23}" + End + Step
        + Product + "{weight24, weight25, weight26, weight27}" + End + Step + Product + "{weight28, weight29, weight30, weight31}" + End + "}", ExactArch = Arch)]
    public static void Multiply(ulong values)
    {
        int lane = Warp.LaneIdx;
        uint* all = WarpEmulation.Begin<uint>("wgmma");
        for (int i = 0; i < Registers / 2; i++)
            all[(32 * i) + lane] = Weights[i];
        WarpEmulation.Meet();
        for (int i = 0; i < Registers; i++)
        {
            double sum = Wgmma.Total(i);
            for (int position = 0; position < 128; position++)
            {
                // Of the four lanes with this lane's rows: register bit 0 is the lower row, bit 1 eight positions further, the rest sixteen.
                int register = (4 * (position >> 4)) + (2 * ((position >> 3) & 1)) + ((i >> 1) & 1);
                uint pair = all[(32 * register) + (lane & ~3) + ((position >> 1) & 3)];
                float weight = (position & 1) == 0 ? Bf16.Low(pair) : Bf16.High(pair);
                sum += (double)weight * Cvt.FromBf16(*Value(values, position, Column(i) + (2 * (lane & 3))));
            }
            Wgmma.SetTotal(i, Ieee.CanonicalNaN((float)sum));
        }
    }

    /// <summary>total · (the factor of the lane's upper or lower row).</summary>
    [IntrinsicImplementation, Ptx("[[16: mul.rn.f32 total(4#), total(4#), %0; mul.rn.f32 total(4#+1), total(4#+1), %0; mul.rn.f32 total(4#+2), total(4#+2), %1; mul.rn.f32 total(4#+3), total(4#+3), %1; ]]", ExactArch = Arch)]
    public static void Scale(float upper, float lower)
    {
        for (int i = 0; i < Registers; i++)
            Wgmma.SetTotal(i, Fast.Mul(Wgmma.Total(i), (i & 2) == 0 ? upper : lower));
    }

    // A register's column from the lane's first.
    private static int Column(int register) => (8 * (register >> 2)) + (register & 1);

    // The descriptor's strides: eight positions, and 64 columns.
    private static ushort* Value(ulong descriptor, int position, int column)
    {
        uint start = (uint)(descriptor & 0x3FFF) << 4, columns = (uint)((descriptor >> 16) & 0x3FFF) << 4, positions = (uint)((descriptor >> 32) & 0x3FFF) << 4;
        uint address = start + (columns * (uint)(column >> 6)) + (positions * (uint)(position >> 3)) + (128 * (uint)(position & 7)) + (2 * (uint)(column & 63));
        return (ushort*)SharedWindow.Pointer(SharedWindow.Swizzle128(address));
    }
}
