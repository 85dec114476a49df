using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>BF16: fragments come from shared memory as they are.</summary>
internal readonly struct TiledBf16 : ITiledFormat
{
    public static int CodesPerWordShift => 1;

    public static TiledOperands Operands => TiledOperands.Bf16;

    public static int Terms => 1;

    public static bool HasRowScales => false;

    public static bool HasOperands => false;

    public static bool HasMatrixScale => false;

    public static uint Operand(ScaleTable scales, int slab, int n, int k) => 0;

    public static float MatrixScale(ScaleTable scales, int slab) => 1f;

    public static F4 Multiply(U4 w, U2 x, F4 sum) => Mma.Bf16(w, x, sum);

    public static U2 DecodeInput(uint codes) => default;

    public static U2 Decode(U4 codes, int step, uint operand) => default;
}

/// <summary>E4M3 with a scale a block, decoded by bit moves: exact for every code that is not NaN, on every architecture.</summary>
internal readonly struct TiledFp8 : ITiledFormat
{
    // Magnitudes under BF16's top exponent bits; what makes values of them, as in Fp8BitMove.
    private const uint Magnitude = 0x07F007F0, TwoTo120 = 0x7B807B80, MinusZero = 0x80008000;

    public static int CodesPerWordShift => 2;

    public static TiledOperands Operands => TiledOperands.Bf16;

    public static int Terms => 1;

    public static bool HasRowScales => true;

    public static bool HasOperands => false;

    public static bool HasMatrixScale => false;

    public static uint Operand(ScaleTable scales, int slab, int n, int k) => 0;

    public static float MatrixScale(ScaleTable scales, int slab) => 1f;

    public static F4 Multiply(U4 w, U2 x, F4 sum) => Mma.Bf16(w, x, sum);

    public static U2 DecodeInput(uint codes) => default;

    public static U2 Decode(U4 codes, int step, uint operand)
    {
        // The codes 0, 2, 1, 3: pairs of neighbours are then those that bit moves decode.
        uint word = Bits.Prmt(FourBitPairs.Word(codes, step), 0, 0x3120u);
        U2 pairs = Fp8Pairs.Decode(word, 4, 4, Magnitude);
        pairs.X = Cvt.FmaBf16x2(pairs.X, TwoTo120, MinusZero);
        pairs.Y = Cvt.FmaBf16x2(pairs.Y, TwoTo120, MinusZero);
        return pairs;
    }
}

/// <summary>
/// The same numbers by <see cref="Fp8BitMove"/>: an instruction fewer for four codes. <see cref="SplitGemm"/> takes 4 % less time with it, <see cref="Gemm"/> with many rows 1 to 2 % more (docs/kernels/gemm.md).
/// </summary>
internal readonly struct TiledFp8Extended : ITiledFormat
{
    public static int CodesPerWordShift => 2;

    public static TiledOperands Operands => TiledOperands.Bf16;

    public static int Terms => 1;

    public static bool HasRowScales => true;

    public static bool HasOperands => false;

    public static bool HasMatrixScale => false;

    public static uint Operand(ScaleTable scales, int slab, int n, int k) => 0;

    public static float MatrixScale(ScaleTable scales, int slab) => 1f;

    public static F4 Multiply(U4 w, U2 x, F4 sum) => Mma.Bf16(w, x, sum);

    public static U2 DecodeInput(uint codes) => default;

    public static U2 Decode(U4 codes, int step, uint operand)
    {
        uint word = FourBitPairs.Word(codes, step);
        U2 pairs;
        pairs.X = Fp8BitMove.DecodePair(word, 0, default);
        pairs.Y = Fp8BitMove.DecodePair(word, 1, default);
        return pairs;
    }
}

/// <summary>Two terms of <see cref="TiledFp8"/>.</summary>
internal readonly struct TiledFp8TwoTerm : ITiledFormat
{
    public static int CodesPerWordShift => 2;

    public static TiledOperands Operands => TiledOperands.Bf16;

    public static int Terms => 2;

    public static bool HasRowScales => true;

    public static bool HasOperands => false;

    public static bool HasMatrixScale => false;

    public static uint Operand(ScaleTable scales, int slab, int n, int k) => 0;

    public static float MatrixScale(ScaleTable scales, int slab) => 1f;

    public static F4 Multiply(U4 w, U2 x, F4 sum) => Mma.Bf16(w, x, sum);

    public static U2 DecodeInput(uint codes) => default;

    public static U2 Decode(U4 codes, int step, uint operand) => TiledFp8.Decode(codes, step, operand);
}

/// <summary>
/// The two nibbles of a byte in the two halves of a word, ready to become mantissas of BF16 numbers around 128: the even column's
/// at bit 0, where it counts ones, the odd one's at bit 3 (from the codes shifted right by one), where it counts eights. One
/// fused multiply-add divides the latter by eight and subtracts what was added, exactly.
/// </summary>
internal static class TiledNibbles
{
    /// <summary>The bits of both nibbles.</summary>
    public const uint Mask = 0x0078000F;

    /// <summary>1 and ⅛ as a BF16 pair.</summary>
    public const uint Units = 0x3E003F80;

    /// <summary>128 twice.</summary>
    public const uint Base = 0x43004300;

    /// <summary>Byte <paramref name="index"/> (a constant) of the codes and of the shifted codes.</summary>
    public static uint Byte(uint codes, uint shifted, int index) => Bits.Prmt(codes, shifted, (uint)((index * 0x1011) | ((index + 4) << 8)));

    /// <summary>The word of a step: two steps a word.</summary>
    public static uint Word(U4 codes, int step) => step < 2 ? codes.X : codes.Y;
}

/// <summary>INT4: sign bits turned over make codes unsigned; 136 (24 in the odd columns, after the division) is subtracted exactly.</summary>
internal readonly struct TiledInt4 : ITiledFormat
{
    // −136 and −24; the sign bits of the codes; (a and b) xor c.
    private const uint Less = 0xC1C0C308, Signs = 0x00400008;
    private const int AndXor = 0x6A;

    public static int CodesPerWordShift => 3;

    public static TiledOperands Operands => TiledOperands.Bf16;

    public static int Terms => 1;

    public static bool HasRowScales => true;

    public static bool HasOperands => false;

    public static bool HasMatrixScale => false;

    public static uint Operand(ScaleTable scales, int slab, int n, int k) => 0;

    public static float MatrixScale(ScaleTable scales, int slab) => 1f;

    public static F4 Multiply(U4 w, U2 x, F4 sum) => Mma.Bf16(w, x, sum);

    public static U2 DecodeInput(uint codes) => default;

    public static U2 Decode(U4 codes, int step, uint operand)
    {
        uint word = TiledNibbles.Word(codes, step);
        U2 pairs;
        pairs.X = Pair(word, (step & 1) * 2);
        pairs.Y = Pair(word, ((step & 1) * 2) + 1);
        return pairs;
    }

    private static uint Pair(uint word, int index) =>
        Cvt.FmaBf16x2(Bits.Lop3(TiledNibbles.Byte(word, word >> 1, index), TiledNibbles.Mask, TiledNibbles.Base ^ Signs, AndXor), TiledNibbles.Units, Less);
}

/// <summary>INT4 with zero points: the operand holds −128 − zero for the even columns and −16 − zero for the odd ones.</summary>
internal readonly struct TiledInt4Zero : ITiledFormat
{
    // (a and b) or c.
    private const int AndOr = 0xEA;

    // −128, whose mantissa counts ones, and −16, whose mantissa counts eighths.
    private const uint Less = 0xC180C300;

    public static int CodesPerWordShift => 3;

    public static TiledOperands Operands => TiledOperands.Bf16;

    public static int Terms => 1;

    public static bool HasRowScales => true;

    public static bool HasOperands => true;

    public static bool HasMatrixScale => false;

    public static uint Operand(ScaleTable scales, int slab, int n, int k)
    {
        uint zero = scales.ZeroPoint(slab, n, k);
        return Less | zero | (zero << 19);
    }

    public static float MatrixScale(ScaleTable scales, int slab) => 1f;

    public static F4 Multiply(U4 w, U2 x, F4 sum) => Mma.Bf16(w, x, sum);

    public static U2 DecodeInput(uint codes) => default;

    public static U2 Decode(U4 codes, int step, uint operand)
    {
        uint word = TiledNibbles.Word(codes, step);
        U2 pairs;
        pairs.X = Pair(word, (step & 1) * 2, operand);
        pairs.Y = Pair(word, ((step & 1) * 2) + 1, operand);
        return pairs;
    }

    private static uint Pair(uint word, int index, uint operand) =>
        Cvt.FmaBf16x2(Bits.Lop3(TiledNibbles.Byte(word, word >> 1, index), TiledNibbles.Mask, TiledNibbles.Base, AndOr), TiledNibbles.Units, operand);
}

/// <summary>
/// NVFP4: a nibble in the upper bits of a half, moved right by six below its sign, is the value times 2⁻¹²⁶. The lane's 16 codes are
/// one group: its scale, times 2¹¹⁹, is multiplied into every code, which is exact (<see cref="Nvfp4"/>).
/// </summary>
internal readonly struct TiledNvfp4 : ITiledFormat
{
    private const uint Magnitude = 0x01C001C0, MinusZero = 0x80008000;

    public static int CodesPerWordShift => 3;

    public static TiledOperands Operands => TiledOperands.Bf16;

    public static int Terms => 1;

    public static bool HasRowScales => false;

    public static bool HasOperands => true;

    public static bool HasMatrixScale => true;

    public static uint Operand(ScaleTable scales, int slab, int n, int k) =>
        StreamedNvfp4.PrepareOperand(scales.Groups[scales.Index(slab, n, k)] * 0x0101u);

    public static float MatrixScale(ScaleTable scales, int slab) => scales.Blocks[slab] * StreamedNvfp4.Correction;

    public static F4 Multiply(U4 w, U2 x, F4 sum) => Mma.Bf16(w, x, sum);

    public static U2 DecodeInput(uint codes) => default;

    public static U2 Decode(U4 codes, int step, uint operand)
    {
        uint word = TiledNibbles.Word(codes, step);
        U2 pairs;
        pairs.X = Pair(word, (step & 1) * 2, operand);
        pairs.Y = Pair(word, ((step & 1) * 2) + 1, operand);
        return pairs;
    }

    // The even column's nibble from the codes shifted left, the odd one's as it is, both at the top of a half.
    private static uint Pair(uint word, int index, uint operand)
    {
        uint spread = Bits.Prmt(word << 4, word, (uint)((index * 0x1111) | 0x4000));
        return Cvt.FmaBf16x2(((spread >> 6) & Magnitude) | (spread & MinusZero), operand, MinusZero);
    }
}
