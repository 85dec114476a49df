using ILGPU;
using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>
/// Products of a warpgroup whose first operand is decoded from FP8 on its way to the tensor cores (sm_90a): part[64, N] (+)= A[64, 32] · B[N, 32]ᵀ with A
/// in registers as BF16 and B in shared memory as <see cref="Wgmma"/> has it.
/// </summary>
/// <remarks>
/// <para>
/// A comes from a tile of 64 rows × 128 codes in shared memory with 128-byte swizzle, a quarter of its columns at a time: loaded (<c>raw</c>), then decoded into
/// registers of which two quarters have some (<c>code</c>, 8 each), since the tensor cores still read one's when the next is decoded. Like accumulators they have names, since a register that the compiler moves
/// makes it wait for the products that read it.
/// </para>
/// <para>
/// A lane (g, t) of warp w has of each 16 columns those that m16n8k16 gives it (<see cref="MmaFragment"/>): columns 2t, 2t + 1 and 2t + 8, 2t + 9 of rows 16·w + g
/// and 16·w + g + 8. Neighbouring columns are two bytes; eight rows are in eight different 16-byte words: no bank conflicts.
/// </para>
/// </remarks>
internal static unsafe class WgmmaMixed
{
    private const string Arch = "90a";

    // Two codes to F16, each half to float32, both to BF16: exact, and one instruction less than moving bits and multiplying.
    private const string Convert = "{ .reg .b16 codes, low, high; .reg .b32 halves; .reg .f32 l, h; [[8: cvt.u16.u32 codes, raw(#); cvt.rn.f16x2.e4m3x2 halves, codes; mov.b32 {low, high}, halves; cvt.f32.f16 l, low; cvt.f32.f16 h, high; ";
    private const string Load = "ld.shared.u16 raw(4#), [at]; ld.shared.u16 raw(4#+1), [at+1024]; ld.shared.u16 raw(4#+2), [at+8]; ld.shared.u16 raw(4#+3), [at+1032]; ]]}";

    private const string Begin = "{ .reg .pred adds, always; .reg .b64 b; .reg .b32 one; mov.b32 one, 1; setp.ne.b32 always, one, 0; setp.ne.b32 adds, %1, 0; mov.b64 b, %0; ";
    private const string EvenFirst = "{code0, code1, code2, code3}, b, adds, 1, 1, 0; add.s64 b, b, 2; ";
    private const string EvenSecond = "{code4, code5, code6, code7}, b, always, 1, 1, 0; }";
    private const string OddFirst = "{code8, code9, code10, code11}, b, adds, 1, 1, 0; add.s64 b, b, 2; ";
    private const string OddSecond = "{code12, code13, code14, code15}, b, always, 1, 1, 0; }";
    private const string N32 = "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {[[16, part(#)]]}, ";
    private const string N64 = "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {[[32, part(#)]]}, ";
    private const string N128 = "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {[[64, part(#)]]}, ";
    private const string N160 = "wgmma.mma_async.sync.aligned.m64n160k16.f32.bf16.bf16 {[[80, part(#)]]}, ";
    private const string N176 = "wgmma.mma_async.sync.aligned.m64n176k16.f32.bf16.bf16 {[[88, part(#)]]}, ";
    private const string N192 = "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {[[96, part(#)]]}, ";

    [ThreadStatic]
    private static uint[]? codes;

    [ThreadStatic]
    private static uint[]? raws;

    private static uint[] Codes => codes ??= new uint[16];

    private static uint[] Raws => raws ??= new uint[8];

    /// <summary>Declares the registers of A. Once a kernel, before any branch.</summary>
    [IntrinsicImplementation, Ptx(".reg .b32 code<16>; .reg .b32 raw<8>;", ExactArch = Arch)]
    public static void Declare()
    {
    }

    /// <summary>Where a lane's codes of a tile begin: row 16·w + g, its 16-byte word 0 where the swizzle puts it, byte 2t.</summary>
    /// <param name="tile">Shared address of the tile's first row; a multiple of 1,024.</param>
    public static uint LaneAddress(uint tile)
    {
        uint lane = (uint)Warp.LaneIdx, group = lane >> 2;
        return tile + ((((((uint)Group.IdxX >> 5) & 3) * 16) + group) * 128) + (group << 4) + ((lane & 3) * 2);
    }

    /// <summary>Loads the codes of columns 0 to 31.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .b32 at; [[2: xor.b32 at, %0, (16#); " + Load, ExactArch = Arch)]
    public static void Load0(uint address) => EmulateLoad(address, 0);

    /// <summary>Loads the codes of columns 32 to 63.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .b32 at; [[2: xor.b32 at, %0, (16#+32); " + Load, ExactArch = Arch)]
    public static void Load1(uint address) => EmulateLoad(address, 1);

    /// <summary>Loads the codes of columns 64 to 95.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .b32 at; [[2: xor.b32 at, %0, (16#+64); " + Load, ExactArch = Arch)]
    public static void Load2(uint address) => EmulateLoad(address, 2);

    /// <summary>Loads the codes of columns 96 to 127.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .b32 at; [[2: xor.b32 at, %0, (16#+96); " + Load, ExactArch = Arch)]
    public static void Load3(uint address) => EmulateLoad(address, 3);

    /// <summary>Decodes what was loaded into the even registers.</summary>
    [IntrinsicImplementation, Ptx(Convert + "cvt.rn.bf16x2.f32 code(#), h, l; ]]}", ExactArch = Arch)]
    public static void DecodeEven() => EmulateDecode(0);

    /// <summary>Decodes what was loaded into the odd registers.</summary>
    [IntrinsicImplementation, Ptx(Convert + "cvt.rn.bf16x2.f32 code(#+8), h, l; ]]}", ExactArch = Arch)]
    public static void DecodeOdd() => EmulateDecode(8);

    /// <summary>part[64, 32] (+)= even registers · B[32, 32]ᵀ.</summary>
    [IntrinsicImplementation, Ptx(Begin + N32 + EvenFirst + N32 + EvenSecond, ExactArch = Arch)]
    public static void MultiplyEvenN32(ulong b, uint adds) => Multiply(32, 0, b, adds);

    /// <summary>part[64, 32] (+)= odd registers · B[32, 32]ᵀ.</summary>
    [IntrinsicImplementation, Ptx(Begin + N32 + OddFirst + N32 + OddSecond, ExactArch = Arch)]
    public static void MultiplyOddN32(ulong b, uint adds) => Multiply(32, 8, b, adds);

    /// <summary>part[64, 64] (+)= even registers · B[64, 32]ᵀ.</summary>
    [IntrinsicImplementation, Ptx(Begin + N64 + EvenFirst + N64 + EvenSecond, ExactArch = Arch)]
    public static void MultiplyEvenN64(ulong b, uint adds) => Multiply(64, 0, b, adds);

    /// <summary>part[64, 64] (+)= odd registers · B[64, 32]ᵀ.</summary>
    [IntrinsicImplementation, Ptx(Begin + N64 + OddFirst + N64 + OddSecond, ExactArch = Arch)]
    public static void MultiplyOddN64(ulong b, uint adds) => Multiply(64, 8, b, adds);

    /// <summary>part[64, 128] (+)= even registers · B[128, 32]ᵀ.</summary>
    [IntrinsicImplementation, Ptx(Begin + N128 + EvenFirst + N128 + EvenSecond, ExactArch = Arch)]
    public static void MultiplyEvenN128(ulong b, uint adds) => Multiply(128, 0, b, adds);

    /// <summary>part[64, 128] (+)= odd registers · B[128, 32]ᵀ.</summary>
    [IntrinsicImplementation, Ptx(Begin + N128 + OddFirst + N128 + OddSecond, ExactArch = Arch)]
    public static void MultiplyOddN128(ulong b, uint adds) => Multiply(128, 8, b, adds);

    /// <summary>part[64, 160] (+)= even registers · B[160, 32]ᵀ.</summary>
    [IntrinsicImplementation, Ptx(Begin + N160 + EvenFirst + N160 + EvenSecond, ExactArch = Arch)]
    public static void MultiplyEvenN160(ulong b, uint adds) => Multiply(160, 0, b, adds);

    /// <summary>part[64, 160] (+)= odd registers · B[160, 32]ᵀ.</summary>
    [IntrinsicImplementation, Ptx(Begin + N160 + OddFirst + N160 + OddSecond, ExactArch = Arch)]
    public static void MultiplyOddN160(ulong b, uint adds) => Multiply(160, 8, b, adds);

    /// <summary>part[64, 176] (+)= even registers · B[176, 32]ᵀ.</summary>
    [IntrinsicImplementation, Ptx(Begin + N176 + EvenFirst + N176 + EvenSecond, ExactArch = Arch)]
    public static void MultiplyEvenN176(ulong b, uint adds) => Multiply(176, 0, b, adds);

    /// <summary>part[64, 176] (+)= odd registers · B[176, 32]ᵀ.</summary>
    [IntrinsicImplementation, Ptx(Begin + N176 + OddFirst + N176 + OddSecond, ExactArch = Arch)]
    public static void MultiplyOddN176(ulong b, uint adds) => Multiply(176, 8, b, adds);

    /// <summary>part[64, 192] (+)= even registers · B[192, 32]ᵀ.</summary>
    [IntrinsicImplementation, Ptx(Begin + N192 + EvenFirst + N192 + EvenSecond, ExactArch = Arch)]
    public static void MultiplyEvenN192(ulong b, uint adds) => Multiply(192, 0, b, adds);

    /// <summary>part[64, 192] (+)= odd registers · B[192, 32]ᵀ.</summary>
    [IntrinsicImplementation, Ptx(Begin + N192 + OddFirst + N192 + OddSecond, ExactArch = Arch)]
    public static void MultiplyOddN192(ulong b, uint adds) => Multiply(192, 8, b, adds);

    private static void EmulateLoad(uint address, int quarter)
    {
        for (int i = 0; i < 8; i++)
            Raws[i] = *(ushort*)SharedWindow.Pointer((address ^ (uint)((2 * quarter) + (i >> 2) << 4)) + (uint)(((i & 1) * 1024) + ((i & 2) * 4)));
    }

    private static void EmulateDecode(int first)
    {
        for (int i = 0; i < 8; i++)
        {
            uint halves = Cvt.E4M3x2LowToF16x2(Raws[i]);
            Codes[first + i] = Cvt.Bf16x2(Cvt.F16High(halves), Cvt.F16Low(halves));
        }
    }

    // Each thread sums its own elements in float64 and rounds once; the hardware's order and rounding are unspecified.
    private static void Multiply(int columns, int first, ulong b, uint adds)
    {
        int lane = Warp.LaneIdx;
        var a = new float[2, 32];
        for (int i = 0; i < 8; i++)
        {
            uint* all = WarpEmulation.Gather("wgmma", Codes[first + i]);
            // Of the four lanes with this lane's rows; register i & 1: upper or lower row, i & 2: columns 8 further, i >> 2: 16 further.
            for (int t = 0; t < 4; t++)
            {
                uint pair = all[(lane & ~3) + t];
                int column = (16 * (i >> 2)) + (4 * (i & 2)) + (2 * t);
                a[i & 1, column] = Cvt.FromBf16((ushort)pair);
                a[i & 1, column + 1] = Cvt.FromBf16((ushort)(pair >> 16));
            }
        }
        for (int i = 0; i < columns / 2; i++)
        {
            int row = MmaFragment.CColumn(lane, i & 3) + (8 * (i >> 2));
            double sum = adds == 0 ? 0 : Wgmma.Part(i);
            for (int k = 0; k < 32; k++)
                sum += (double)a[(i >> 1) & 1, k] * Cvt.FromBf16(*(ushort*)Wgmma.Element(b, row, 2 * k));
            Wgmma.SetPart(i, Ieee.CanonicalNaN((float)sum));
        }
    }
}
