using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>
/// INT4 with zero points: unsigned codes are numbers as they stand, as <see cref="StreamedInt4"/>'s; the multiply-add subtracts the zero point, exactly. Groups have
/// at least 128 columns, a chunk.
/// </summary>
internal readonly struct StreamedInt4Zero : IStreamedFormat
{
    private const uint LowerNibbles = 0x000F000F, UpperNibbles = 0x00F000F0;

    // 2¹²⁶, 2¹²² and −2¹²⁶ as BF16 pairs.
    private const uint LowerUnit = 0x7E807E80, UpperUnit = 0x7C807C80, MinusUnit = 0xFE80FE80;

    public static int CodesPerWordShift => 3;

    public static int Terms => 1;

    public static bool IsF16 => false;

    public static bool HasTileScales => false;

    public static bool HasRowScales => true;

    public static bool HasGroupScales => false;

    public static bool HasZeroPoints => true;

    public static float Correction => 128f;

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

    public static U4 Arrange(U4 x) => FourBitPairs.Arrange(x);
}

/// <summary>
/// <see cref="StreamedInt4Zero"/> by a shift more for eight codes: a code in the last mantissa bits of BF16's 128 times 2⁻⁷, less 1 and the zero point times 2⁻⁷, exactly. <see cref="SkinnyGemm"/> spills less with two tiles of x
/// then (docs/kernels/gemv.md); the numbers are the same.
/// </summary>
internal readonly struct StreamedInt4ZeroByShifts : IStreamedFormat
{
    private const uint Nibbles = 0x000F000F;

    // 128, 2⁻⁷ and −1 as BF16 pairs: a zero point in the last bits of the third makes it −1 − zero · 2⁻⁷.
    private const uint One28 = 0x43004300, Unit = 0x3C003C00, Minus1 = 0xBF80BF80;

    // (a and b) or c.
    private const int AndOr = 0xEA;

    public static int CodesPerWordShift => StreamedInt4Zero.CodesPerWordShift;

    public static int Terms => StreamedInt4Zero.Terms;

    public static bool IsF16 => StreamedInt4Zero.IsF16;

    public static bool HasTileScales => StreamedInt4Zero.HasTileScales;

    public static bool HasRowScales => StreamedInt4Zero.HasRowScales;

    public static bool HasGroupScales => StreamedInt4Zero.HasGroupScales;

    public static bool HasZeroPoints => StreamedInt4Zero.HasZeroPoints;

    public static float Correction => StreamedInt4Zero.Correction;

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

    public static U4 Arrange(U4 x) => StreamedInt4Zero.Arrange(x);

    private static uint Pair(uint codes, uint operand) => Cvt.FmaBf16x2(Bits.Lop3(codes, Nibbles, One28, AndOr), Unit, operand);
}
