// temporary

using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>
/// INT4: below BF16's 128, whose last mantissa bit counts ones, a code with its sign bit turned over makes 136 + c; the 136 is
/// subtracted exactly. Groups have at least 128 columns, a chunk.
/// </summary>
internal readonly struct OldInt4 : IStreamedFormat
{
    private const uint Nibbles = 0x000F000F, Ones = 0x3F803F80;

    // 128 with the sign bit of a code, and −136, as BF16 pairs.
    private const uint TurnedBase = 0x43084308, Minus136 = 0xC308C308;

    // (a and b) xor c.
    private const int AndXor = 0x6A;

    public static int CodesPerWordShift => 3;

    public static bool IsF16 => false;

    public static bool HasTileScales => false;

    public static bool HasRowScales => true;

    public static bool HasGroupScales => false;

    public static bool HasZeroPoints => false;

    public static float Correction => 1f;

    public static uint PrepareOperand(uint stored) => 0;

    public static U4 Decode(U4 word, int step, uint operand)
    {
        uint codes = FourBitPairs.Word(word, step);
        U4 pairs;
        pairs.X = Pair(codes);
        pairs.Y = Pair(codes >> 4);
        pairs.Z = Pair(codes >> 8);
        pairs.W = Pair(codes >> 12);
        return pairs;
    }

    public static U4 Arrange(U4 x) => FourBitPairs.Arrange(x);

    private static uint Pair(uint codes) => Cvt.FmaBf16x2(Bits.Lop3(codes, Nibbles, TurnedBase, AndXor), Ones, Minus136);
}

/// <summary>
/// INT4 with zero points: unsigned codes in the last mantissa bits of BF16's 128, less 128 and the zero point, exactly. Groups have
/// at least 128 columns, a chunk.
/// </summary>
internal readonly struct OldInt4Zero : IStreamedFormat
{
    private const uint Nibbles = 0x000F000F, Ones = 0x3F803F80;

    // 128 and −128 as BF16 pairs: a zero point in the last bits of the second makes it −128 − zero.
    private const uint One28 = 0x43004300, Minus128 = 0xC300C300;

    // (a and b) or c.
    private const int AndOr = 0xEA;

    public static int CodesPerWordShift => 3;

    public static bool IsF16 => false;

    public static bool HasTileScales => false;

    public static bool HasRowScales => true;

    public static bool HasGroupScales => false;

    public static bool HasZeroPoints => true;

    public static float Correction => 1f;

    public static uint PrepareOperand(uint stored) => Minus128 | (stored * 0x00010001u);

    public static U4 Decode(U4 word, int step, uint operand)
    {
        uint codes = FourBitPairs.Word(word, step);
        U4 pairs;
        pairs.X = Pair(codes, operand);
        pairs.Y = Pair(codes >> 4, operand);
        pairs.Z = Pair(codes >> 8, operand);
        pairs.W = Pair(codes >> 12, operand);
        return pairs;
    }

    public static U4 Arrange(U4 x) => FourBitPairs.Arrange(x);

    private static uint Pair(uint codes, uint operand) => Cvt.FmaBf16x2(Bits.Lop3(codes, Nibbles, One28, AndOr), Ones, operand);
}

/// <summary>
/// NVFP4: a code's magnitude below BF16's upper exponent bits is the value times 2⁻¹²⁶, subnormal ½ included. One integer
/// multiplication moves the magnitude and the sign at once (the two copies of the code do not touch), and the group's scale
/// times 2¹¹⁹ brings the value into range: code · scale · 2⁻⁷, exactly, since two significant bits times four are at most six.
/// </summary>
internal readonly struct OldNvfp4 : IStreamedFormat
{
    private const uint Nibbles = 0x000F000F, NextNibbles = 0x00F000F0;

    // Copies of a nibble whose magnitude begins at bit 6 and whose sign ends at bit 15.
    private const uint FromBit0 = (1 << 6) | (1 << 12), FromBit4 = (1 << 2) | (1 << 8);
    private const uint SignAndMagnitude = 0x81C081C0;

    // BF16 pairs.
    private const uint TwoTo120 = 0x7B807B80, TwoTo119 = 0x7B007B00, MinusZero = 0x80008000;

    public static int CodesPerWordShift => 3;

    public static bool IsF16 => false;

    public static bool HasTileScales => false;

    public static bool HasRowScales => false;

    public static bool HasGroupScales => true;

    public static bool HasZeroPoints => false;

    public static float Correction => 128f;

    public static uint PrepareOperand(uint stored)
    {
        // Byte 0 to bits 8–15, byte 1 to bits 24–31; E4M3's magnitude below BF16's upper exponent bits is the value times 2⁻¹²⁰.
        uint spread = Bits.Prmt(stored, 0, 0x1404u);
        uint moved = ((spread >> 4) & 0x07F007F0u) | (spread & MinusZero);
        return Cvt.FmaBf16x2(Cvt.FmaBf16x2(moved, TwoTo120, MinusZero), TwoTo119, MinusZero);
    }

    public static U4 Decode(U4 word, int step, uint operand)
    {
        uint codes = FourBitPairs.Word(word, step);
        uint upper = codes >> 8;
        uint scale = step < 2 ? Bits.Prmt(operand, 0, 0x1010u) : Bits.Prmt(operand, 0, 0x3232u);
        U4 pairs;
        pairs.X = Pair(codes & Nibbles, FromBit0, scale);
        pairs.Y = Pair(codes & NextNibbles, FromBit4, scale);
        pairs.Z = Pair(upper & Nibbles, FromBit0, scale);
        pairs.W = Pair(upper & NextNibbles, FromBit4, scale);
        return pairs;
    }

    public static U4 Arrange(U4 x) => FourBitPairs.Arrange(x);

    // −0 as the addend keeps the sign of a zero product.
    private static uint Pair(uint nibbles, uint copies, uint scale) => Cvt.FmaBf16x2((nibbles * copies) & SignAndMagnitude, scale, MinusZero);
}
