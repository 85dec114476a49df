using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>What all decoders of INT4 for BF16 inputs have in common: one multiplier a row and group of at least 128 columns, a chunk, and codes in units of 2⁻⁷.</summary>
internal interface IStreamedInt4 : IStreamedFormat
{
    static int IStreamedFormat.CodesPerWordShift => 3;

    static int IStreamedFormat.Terms => 1;

    static bool IStreamedFormat.IsF16 => false;

    static bool IStreamedFormat.HasTileScales => false;

    static bool IStreamedFormat.HasRowScales => true;

    static bool IStreamedFormat.HasGroupScales => false;

    static float IStreamedFormat.Correction => 128f;

    static U4 IStreamedFormat.Arrange(U4 x) => FourBitPairs.Arrange(x);
}

/// <summary>
/// INT4: a nibble is a BF16 number as it stands. Below the upper exponent bits, BF16's lowest eight bits count units of 2⁻¹³³, subnormal or not, so that a nibble at bit 0 is
/// worth its code times 2⁻¹³³ and one at bit 4 sixteen times as much: two pairs a shift. A code with its sign bit turned over is 8 + c; one multiply-add brings either to units of 2⁻⁷ and
/// subtracts the 8, exactly.
/// </summary>
internal readonly struct StreamedInt4 : IStreamedInt4
{
    // The nibbles of both halves at bit 0 and at bit 4, and their sign bits.
    private const uint LowerNibbles = 0x000F000F, UpperNibbles = 0x00F000F0, LowerSigns = 0x00080008, UpperSigns = 0x00800080;

    // 2¹²⁶, 2¹²² and −8 · 2⁻⁷ as BF16 pairs.
    private const uint LowerUnit = 0x7E807E80, UpperUnit = 0x7C807C80;
    public const uint Minus8 = 0xBD80BD80;

    // (a and b) xor c.
    private const int AndXor = 0x6A;

    public static bool HasZeroPoints => false;

    public static uint PrepareOperand(uint stored) => 0;

    public static U4 Decode(U4 word, int step, uint operand)
    {
        uint codes = FourBitPairs.Word(word, step), next = codes >> 8;
        U4 pairs;
        pairs.X = Lower(codes);
        pairs.Y = Upper(codes);
        pairs.Z = Lower(next);
        pairs.W = Upper(next);
        return pairs;
    }

    private static uint Lower(uint codes) => Cvt.FmaBf16x2(Bits.Lop3(codes, LowerNibbles, LowerSigns, AndXor), LowerUnit, Minus8);

    private static uint Upper(uint codes) => Cvt.FmaBf16x2(Bits.Lop3(codes, UpperNibbles, UpperSigns, AndXor), UpperUnit, Minus8);
}

/// <summary>
/// <see cref="StreamedInt4"/>, but the sign bits of a word are turned over before its nibbles are taken: an instruction more a word and two registers of constants fewer. <see cref="SkinnyGemm"/> spills none with two tiles of x then
/// (docs/kernels/gemv.md); the numbers are the same.
/// </summary>
internal readonly struct StreamedInt4SignsFirst : IStreamedInt4
{
    private const uint Signs = 0x88888888;

    public static bool HasZeroPoints => false;

    public static uint PrepareOperand(uint stored) => 0;

    // Unsigned codes with a zero point of 8.
    public static U4 Decode(U4 word, int step, uint operand) => StreamedInt4Zero.DecodeWord(FourBitPairs.Word(word, step) ^ Signs, StreamedInt4.Minus8);
}

/// <summary>
/// INT4 with zero points: unsigned codes are numbers as they stand, as <see cref="StreamedInt4"/>'s; the multiply-add subtracts the zero point, exactly.
/// </summary>
internal readonly struct StreamedInt4Zero : IStreamedInt4
{
    private const uint LowerNibbles = 0x000F000F, UpperNibbles = 0x00F000F0;

    // 2¹²⁶, 2¹²² and −2¹²⁶ as BF16 pairs.
    private const uint LowerUnit = 0x7E807E80, UpperUnit = 0x7C807C80, MinusUnit = 0xFE80FE80;

    public static bool HasZeroPoints => true;

    public static uint PrepareOperand(uint stored) => Cvt.FmaBf16x2(stored * 0x00010001u, MinusUnit, 0);

    public static U4 Decode(U4 word, int step, uint operand) => DecodeWord(FourBitPairs.Word(word, step), operand);

    /// <summary>Eight codes, less the zero point: <paramref name="operand"/> is minus it, times 2⁻⁷, twice.</summary>
    public static U4 DecodeWord(uint codes, uint operand)
    {
        uint next = codes >> 8;
        U4 pairs;
        pairs.X = Cvt.FmaBf16x2(codes & LowerNibbles, LowerUnit, operand);
        pairs.Y = Cvt.FmaBf16x2(codes & UpperNibbles, UpperUnit, operand);
        pairs.Z = Cvt.FmaBf16x2(next & LowerNibbles, LowerUnit, operand);
        pairs.W = Cvt.FmaBf16x2(next & UpperNibbles, UpperUnit, operand);
        return pairs;
    }
}

/// <summary>
/// <see cref="StreamedInt4Zero"/> by a shift more for eight codes: a code in the last mantissa bits of BF16's 128 times 2⁻⁷, less 1 and the zero point times 2⁻⁷, exactly. <see cref="SkinnyGemm"/> spills less with two tiles of x
/// then (docs/kernels/gemv.md); the numbers are the same.
/// </summary>
internal readonly struct StreamedInt4ZeroByShifts : IStreamedInt4
{
    private const uint Nibbles = 0x000F000F;

    // 128, 2⁻⁷ and −1 as BF16 pairs: a zero point in the last bits of the third makes it −1 − zero · 2⁻⁷.
    private const uint One28 = 0x43004300, Unit = 0x3C003C00, Minus1 = 0xBF80BF80;

    // (a and b) or c.
    private const int AndOr = 0xEA;

    public static bool HasZeroPoints => true;

    public static uint PrepareOperand(uint stored) => Minus1 | (stored * 0x00010001u);

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

    private static uint Pair(uint codes, uint operand) => Cvt.FmaBf16x2(Bits.Lop3(codes, Nibbles, One28, AndOr), Unit, operand);
}
