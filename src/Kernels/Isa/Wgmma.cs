using ILGPU;
using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>
/// Matrix products of a warpgroup on the tensor cores of sm_90a: D[64, N] += A[64, K] · B[N, K]ᵀ, both operands in shared memory as rows
/// of 128 bytes along K with 128-byte swizzle, K being those 128 bytes: 64 BF16 or 128 FP8 values.
/// </summary>
/// <remarks>
/// <para>
/// The products are asynchronous: the registers of D belong to the tensor cores between a product and the wait for it. As values of C# they
/// would be copied between calls, and a copied accumulator makes the compiler wait after every product; so they are registers with
/// names, declared once a kernel (<see cref="Declare"/>), that the methods here mention and nothing else sees: <c>total</c>, up to
/// 128 a thread, which hold the result, and <c>part</c>, up to 96, for sums over one scale block.
/// </para>
/// <para>
/// Warp w of the group has rows 16·w to 16·w + 15. Lane (g, t) = (lane / 4, lane % 4) has of each eight columns c = 8·i to 8·i + 7: register 4·i:
/// (row g, column 2t), 4·i + 1: (g, 2t + 1), 4·i + 2: (g + 8, 2t), 4·i + 3: (g + 8, 2t + 1), as in <see cref="MmaFragment"/>.
/// </para>
/// </remarks>
internal static unsafe class Wgmma
{
    private const string Arch = "90a";

    // Operands of one product: the first may overwrite D (argument 2 is 0), the others add. A step along K is 32 bytes: 2 in a descriptor.
    internal const string Begin = "{ .reg .pred adds, always; .reg .b64 a, b; .reg .b32 one; mov.b32 one, 1; setp.ne.b32 always, one, 0; setp.ne.b32 adds, %2, 0; mov.b64 a, %0; mov.b64 b, %1; ";
    internal const string Step = "add.s64 a, a, 2; add.s64 b, b, 2; ";
    private const string Bf16End = "1, 1, 0, 0; ";

    private const string Bf16N256 = "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {[[128, total(#)]]}, a, b, ";
    private const string Bf16N192 = "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {[[96, total(#)]]}, a, b, ";
    private const string Bf16N160 = "wgmma.mma_async.sync.aligned.m64n160k16.f32.bf16.bf16 {[[80, total(#)]]}, a, b, ";
    private const string Bf16N128 = "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {[[64, total(#)]]}, a, b, ";
    private const string Bf16N80 = "wgmma.mma_async.sync.aligned.m64n80k16.f32.bf16.bf16 {[[40, total(#)]]}, a, b, ";
    private const string Bf16N64 = "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {[[32, total(#)]]}, a, b, ";
    private const string PartBf16N128 = "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {[[64, part(#)]]}, a, b, ";

    [ThreadStatic]
    private static float[]? totals;

    [ThreadStatic]
    private static float[]? parts;

    private static float[] Totals => totals ??= new float[128];

    private static float[] Parts => parts ??= new float[96];

    /// <summary>Declares the accumulators. Once a kernel, before any branch.</summary>
    [IntrinsicImplementation, Ptx(".reg .f32 total<128>; .reg .f32 part<96>;", ExactArch = Arch)]
    public static void Declare()
    {
    }

    /// <summary>What the tensor cores must know of an operand: its address and that its rows are 128 bytes, swizzled, eight rows a kilobyte.</summary>
    /// <param name="address">Shared address of the first row; a multiple of 1,024.</param>
    public static ulong Descriptor(uint address) => DescriptorOfWord(address >> 4);

    /// <summary>The same by the number of the 16-byte word.</summary>
    public static ulong DescriptorOfWord(uint word) => 0x4000_0040_0001_0000UL | word;

    /// <summary>Orders the registers of D and the operands before the next product. First in each batch of products.</summary>
    [IntrinsicImplementation, Ptx("wgmma.fence.sync.aligned;", ExactArch = Arch)]
    public static void Fence()
    {
    }

    /// <summary>Closes the group of the products since the last commit.</summary>
    [IntrinsicImplementation, Ptx("wgmma.commit_group.sync.aligned;", ExactArch = Arch)]
    public static void Commit()
    {
    }

    /// <summary>Waits until at most <paramref name="groups"/> (a constant) of the latest groups are unfinished, in all lanes of the warp.</summary>
    [IntrinsicImplementation, Ptx("wgmma.wait_group.sync.aligned %c0;", ExactArch = Arch)]
    public static void Wait(int groups) => WarpOps.Barrier();

    /// <summary>total[64, 256] (+)= A[64, 64] · B[256, 64]ᵀ in BF16.</summary>
    [IntrinsicImplementation, Ptx(Begin + Bf16N256 + "adds, " + Bf16End + Step + Bf16N256 + "always, " + Bf16End + Step + Bf16N256 + "always, " + Bf16End + Step + Bf16N256 + "always, " + Bf16End + "}", ExactArch = Arch)]
    public static void MultiplyBf16N256(ulong a, ulong b, uint adds) => Multiply<Bf16Operand>(Totals, 256, a, b, adds);

    /// <summary>total[64, 192] (+)= A[64, 64] · B[192, 64]ᵀ in BF16.</summary>
    [IntrinsicImplementation, Ptx(Begin + Bf16N192 + "adds, " + Bf16End + Step + Bf16N192 + "always, " + Bf16End + Step + Bf16N192 + "always, " + Bf16End + Step + Bf16N192 + "always, " + Bf16End + "}", ExactArch = Arch)]
    public static void MultiplyBf16N192(ulong a, ulong b, uint adds) => Multiply<Bf16Operand>(Totals, 192, a, b, adds);

    /// <summary>total[64, 160] (+)= A[64, 64] · B[160, 64]ᵀ in BF16.</summary>
    [IntrinsicImplementation, Ptx(Begin + Bf16N160 + "adds, " + Bf16End + Step + Bf16N160 + "always, " + Bf16End + Step + Bf16N160 + "always, " + Bf16End + Step + Bf16N160 + "always, " + Bf16End + "}", ExactArch = Arch)]
    public static void MultiplyBf16N160(ulong a, ulong b, uint adds) => Multiply<Bf16Operand>(Totals, 160, a, b, adds);

    /// <summary>total[64, 128] (+)= A[64, 64] · B[128, 64]ᵀ in BF16.</summary>
    [IntrinsicImplementation, Ptx(Begin + Bf16N128 + "adds, " + Bf16End + Step + Bf16N128 + "always, " + Bf16End + Step + Bf16N128 + "always, " + Bf16End + Step + Bf16N128 + "always, " + Bf16End + "}", ExactArch = Arch)]
    public static void MultiplyBf16N128(ulong a, ulong b, uint adds) => Multiply<Bf16Operand>(Totals, 128, a, b, adds);

    /// <summary>total[64, 80] (+)= A[64, 64] · B[80, 64]ᵀ in BF16.</summary>
    [IntrinsicImplementation, Ptx(Begin + Bf16N80 + "adds, " + Bf16End + Step + Bf16N80 + "always, " + Bf16End + Step + Bf16N80 + "always, " + Bf16End + Step + Bf16N80 + "always, " + Bf16End + "}", ExactArch = Arch)]
    public static void MultiplyBf16N80(ulong a, ulong b, uint adds) => Multiply<Bf16Operand>(Totals, 80, a, b, adds);

    /// <summary>total[64, 64] (+)= A[64, 64] · B[64, 64]ᵀ in BF16.</summary>
    [IntrinsicImplementation, Ptx(Begin + Bf16N64 + "adds, " + Bf16End + Step + Bf16N64 + "always, " + Bf16End + Step + Bf16N64 + "always, " + Bf16End + Step + Bf16N64 + "always, " + Bf16End + "}", ExactArch = Arch)]
    public static void MultiplyBf16N64(ulong a, ulong b, uint adds) => Multiply<Bf16Operand>(Totals, 64, a, b, adds);

    /// <summary>part[64, 128] (+)= A[64, 64] · B[128, 64]ᵀ in BF16.</summary>
    [IntrinsicImplementation, Ptx(Begin + PartBf16N128 + "adds, " + Bf16End + Step + PartBf16N128 + "always, " + Bf16End + Step + PartBf16N128 + "always, " + Bf16End + Step + PartBf16N128 + "always, " + Bf16End + "}", ExactArch = Arch)]
    public static void MultiplyPartBf16N128(ulong a, ulong b, uint adds) => Multiply<Bf16Operand>(Parts, 128, a, b, adds);

    /// <summary>total = 0, for up to 192 columns.</summary>
    [IntrinsicImplementation, Ptx("[[96: mov.b32 total(#), 0f00000000; ]]", ExactArch = Arch)]
    public static void Clear() => Array.Clear(Totals);

    /// <summary>total += part · multiplier, for columns 0 to 31.</summary>
    [IntrinsicImplementation, Ptx("[[16: fma.rn.f32 total(#), part(#), %0, total(#); ]]", ExactArch = Arch)]
    public static void PromoteHalf(float multiplier) => Promote(0, 16, multiplier, multiplier);

    /// <summary>total += part · (the multiplier of the lane's upper or lower row), for columns 0 to 63.</summary>
    [IntrinsicImplementation, Ptx("[[8: fma.rn.f32 total(4#+0), part(4#+0), %0, total(4#+0); fma.rn.f32 total(4#+1), part(4#+1), %0, total(4#+1); fma.rn.f32 total(4#+2), part(4#+2), %1, total(4#+2); fma.rn.f32 total(4#+3), part(4#+3), %1, total(4#+3); ]]", ExactArch = Arch)]
    public static void Promote0(float upper, float lower) => Promote(0, upper, lower);

    /// <summary>total += part · (the multiplier of the lane's upper or lower row), for columns 64 to 127.</summary>
    [IntrinsicImplementation, Ptx("[[8: fma.rn.f32 total(4#+32), part(4#+32), %0, total(4#+32); fma.rn.f32 total(4#+33), part(4#+33), %0, total(4#+33); fma.rn.f32 total(4#+34), part(4#+34), %1, total(4#+34); fma.rn.f32 total(4#+35), part(4#+35), %1, total(4#+35); ]]", ExactArch = Arch)]
    public static void Promote1(float upper, float lower) => Promote(32, upper, lower);

    /// <summary>total += part · (the multiplier of the lane's upper or lower row), for columns 128 to 191.</summary>
    [IntrinsicImplementation, Ptx("[[8: fma.rn.f32 total(4#+64), part(4#+64), %0, total(4#+64); fma.rn.f32 total(4#+65), part(4#+65), %0, total(4#+65); fma.rn.f32 total(4#+66), part(4#+66), %1, total(4#+66); fma.rn.f32 total(4#+67), part(4#+67), %1, total(4#+67); ]]", ExactArch = Arch)]
    public static void Promote2(float upper, float lower) => Promote(64, upper, lower);

    private static void Promote(int first, float upper, float lower) => Promote(first, 32, upper, lower);

    /// <summary>total += part · multiplier for some registers (emulation only).</summary>
    internal static void Promote(int first, int count, float upper, float lower)
    {
        for (int i = first; i < first + count; i++)
            Totals[i] = Fast.Fma(Parts[i], (i & 2) == 0 ? upper : lower, Totals[i]);
    }

    /// <summary>Register <paramref name="index"/> of the totals (emulation only).</summary>
    internal static float Total(int index) => Totals[index];

    /// <summary>Register <paramref name="index"/> of the sums over one block (emulation only).</summary>
    internal static float Part(int index) => Parts[index];

    /// <summary>Sets it (emulation only).</summary>
    internal static void SetPart(int index, float value) => Parts[index] = value;

    /// <summary>Sets register <paramref name="index"/> of the totals (emulation only).</summary>
    internal static void SetTotal(int index, float value) => Totals[index] = value;

    /// <summary>Byte <paramref name="k"/> of a row of an operand in shared memory (emulation only).</summary>
    internal static byte* Element(ulong descriptor, int row, int k) =>
        SharedWindow.Pointer(SharedWindow.Swizzle128(((uint)(descriptor & 0x3fff) << 4) + (uint)((row * 128) + k)));

    internal interface IOperand
    {
        static abstract int Bytes { get; }

        static abstract float Load(byte* element);
    }

    private readonly struct Bf16Operand : IOperand
    {
        public static int Bytes => 2;

        public static float Load(byte* element) => Cvt.FromBf16(*(ushort*)element);
    }

    internal readonly struct Fp8Operand : IOperand
    {
        public static int Bytes => 1;

        public static float Load(byte* element) => (float)BitConverter.UInt16BitsToHalf((ushort)Cvt.F16x2FromE4M3x2(*element));
    }

    private static void Multiply<T>(float[] sums, int columns, ulong a, ulong b, uint adds)
        where T : struct, IOperand =>
        Multiply<T>((sums, 0), columns, (a, b, 128), adds);

    /// <summary>part[64, columns] from a register on (+)= A · Bᵀ over some bytes of K (emulation only).</summary>
    internal static void MultiplyParts<T>(int first, int columns, (ulong A, ulong B, int Bytes) operands, uint adds)
        where T : struct, IOperand =>
        Multiply<T>((Parts, first), columns, operands, adds);

    // Each thread sums its own elements in float64 and rounds once; the hardware's order and rounding are unspecified.
    private static void Multiply<T>((float[] Registers, int First) sums, int columns, (ulong A, ulong B, int Bytes) operands, uint adds)
        where T : struct, IOperand
    {
        int warp = (Group.IdxX >> 5) & 3, lane = Warp.LaneIdx;
        for (int i = 0; i < columns / 2; i++)
        {
            int row = (16 * warp) + MmaFragment.CRow(lane, i & 3), column = (8 * (i >> 2)) + MmaFragment.CColumn(lane, i & 3);
            double sum = adds == 0 ? 0 : sums.Registers[sums.First + i];
            for (int k = 0; k < operands.Bytes; k += T.Bytes)
                sum += (double)T.Load(Element(operands.A, row, k)) * T.Load(Element(operands.B, column, k));
            sums.Registers[sums.First + i] = Ieee.CanonicalNaN((float)sum);
        }
    }
}
