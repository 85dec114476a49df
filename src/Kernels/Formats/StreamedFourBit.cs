using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>
/// Four-bit codes are decoded in the pairs (0, 4), (1, 5), (2, 6) and (3, 7) of a 32-bit word: a nibble is then already in the
/// half that it is moved within.
/// </summary>
internal static class FourBitPairs
{
    /// <summary>Eight inputs in that order.</summary>
    public static U4 Arrange(U4 x)
    {
        U4 pairs;
        pairs.X = Bits.Prmt(x.X, x.Z, 0x5410u);
        pairs.Y = Bits.Prmt(x.X, x.Z, 0x7632u);
        pairs.Z = Bits.Prmt(x.Y, x.W, 0x5410u);
        pairs.W = Bits.Prmt(x.Y, x.W, 0x7632u);
        return pairs;
    }

    /// <summary>The 32-bit word of a step.</summary>
    public static uint Word(U4 word, int step) => step == 0 ? word.X : step == 1 ? word.Y : step == 2 ? word.Z : word.W;
}

/// <summary>
/// INT4 for INT4 inputs: a code in the upper half of a byte is sixteen times its value as a signed number, so the bytes of a word are the codes of its odd columns, and those of the word
/// shifted by four bits its even ones: the first two registers of what is decoded, for a product of 32 columns of bytes.
/// </summary>
internal readonly struct StreamedInt4Bytes : IStreamedFormat
{
    /// <summary>log2 of what a product of two codes is multiplied by.</summary>
    public const int ProductShift = 8;

    private const uint Codes = 0xF0F0F0F0;

    public static int CodesPerWordShift => 3;

    public static int Terms => 1;

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
        U4 bytes = default;
        bytes.X = (codes * 16) & Codes;
        bytes.Y = codes & Codes;
        return bytes;
    }

    public static U4 Arrange(U4 x) => x;
}

/// <summary>
/// NVFP4: a code's magnitude below BF16's upper exponent bits is the value times 2⁻¹²⁶, subnormal ½ included, and its sign stands six places too low. Signs or magnitudes of
/// two nibbles of a half are moved apart at once, into places that nothing else needs; then each pair is one shift and one mask. The group's scale
/// times 2¹¹⁹ brings the value into range: code · scale · 2⁻⁷, exactly, since two significant bits times four are at most six.
/// </summary>
internal readonly struct StreamedNvfp4 : IStreamedFormat
{
    private const uint SignAndMagnitude = 0x81C081C0;

    // Where the signs of the lower two nibbles of a half go, six places up, and the magnitudes of the upper two, six places down.
    private const uint MovedSigns = 0x22002200, MovedMagnitudes = 0x01DC01DC;

    // Bit by bit: the third operand chooses the first where it is 1, else the second.
    private const int Select = 0xE4;

    // BF16 pairs.
    private const uint TwoTo120 = 0x7B807B80, TwoTo119 = 0x7B007B00, MinusZero = 0x80008000;

    private const uint ScaleMagnitude = 0x07F007F0;

    public static int CodesPerWordShift => 3;

    public static int Terms => 1;

    public static bool IsF16 => false;

    public static bool HasTileScales => false;

    public static bool HasRowScales => false;

    public static bool HasGroupScales => true;

    public static bool HasZeroPoints => false;

    public static float Correction => 128f;

    // E4M3's magnitude below BF16's upper exponent bits is the value times 2⁻¹²⁰. Scales have no sign, or are zero.
    public static uint PrepareOperand(uint stored)
    {
        uint moved = (Bits.Prmt(stored, 0, 0x4140u) * 16) & ScaleMagnitude;
        return Cvt.FmaBf16x2(Cvt.FmaBf16x2(moved, TwoTo120, MinusZero), TwoTo119, MinusZero);
    }

    public static U4 Decode(U4 word, int step, uint operand)
    {
        uint codes = FourBitPairs.Word(word, step);
        uint lower = Bits.Lop3(codes * 64, codes, MovedSigns, Select), upper = Bits.Lop3(codes >> 6, codes, MovedMagnitudes, Select);
        uint scale = step < 2 ? Bits.Prmt(operand, 0, 0x1010u) : Bits.Prmt(operand, 0, 0x3232u);
        U4 pairs;
        pairs.X = Scaled(lower * 64, scale);
        pairs.Y = Scaled(lower * 4, scale);
        pairs.Z = Scaled(upper * 16, scale);
        pairs.W = Scaled(upper, scale);
        return pairs;
    }

    public static U4 Arrange(U4 x) => FourBitPairs.Arrange(x);

    // −0 as the addend keeps the sign of a zero product.
    private static uint Scaled(uint pair, uint scale) => Cvt.FmaBf16x2(pair & SignAndMagnitude, scale, MinusZero);
}
