using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>
/// E4M3 codes by bit moves alone: a code's seven magnitude bits below BF16's upper exponent bits and its sign on top are the
/// value times 2⁻¹²⁰, subnormals included. The pairs are codes (0, 2) and (1, 3): a byte is then already in the half that it
/// is moved within. Inputs are multiplied by 2⁶⁰, since products of 2⁻¹²⁰ would be float32 subnormals; that overflows for
/// |x| ≥ 2⁶⁸, far beyond any activation. The rest of the power, 2⁶⁰, goes with the scale.
/// </summary>
internal readonly struct StreamedFp8 : IStreamedFormat
{
    private const uint Magnitude = 0x07F007F0, Signs = 0x80808080, MinusZero = 0x80008000;

    // 2⁶⁰ as a BF16 pair: exponent 127 + 60 = 0xBB, shifted to bit 7.
    private const uint TwoTo60 = 0x5D805D80;

    // Bit by bit: the third operand chooses the first where it is 1, else the second.
    private const int Select = 0xE4;

    public static int CodesPerWordShift => 2;

    public static bool IsF16 => false;

    public static bool HasTileScales => true;

    public static bool HasRowScales => false;

    public static bool HasGroupScales => false;

    public static bool HasZeroPoints => false;

    public static float Correction => 1152921504606846976f;

    public static uint PrepareOperand(uint stored) => 0;

    public static U4 Decode(U4 word, int step, uint operand)
    {
        uint first = step == 0 ? word.X : word.Z, second = step == 0 ? word.Y : word.W;
        // The other codes' signs fall on bits that the magnitude covers.
        uint firstSigns = first & Signs, secondSigns = second & Signs;
        U4 pairs;
        pairs.X = Bits.Lop3(first << 4, firstSigns << 8, Magnitude, Select);
        pairs.Y = Bits.Lop3(first >> 4, firstSigns, Magnitude, Select);
        pairs.Z = Bits.Lop3(second << 4, secondSigns << 8, Magnitude, Select);
        pairs.W = Bits.Lop3(second >> 4, secondSigns, Magnitude, Select);
        return pairs;
    }

    public static U4 Arrange(U4 x)
    {
        U4 pairs;
        pairs.X = Cvt.FmaBf16x2(Bits.Prmt(x.X, x.Y, 0x5410u), TwoTo60, MinusZero);
        pairs.Y = Cvt.FmaBf16x2(Bits.Prmt(x.X, x.Y, 0x7632u), TwoTo60, MinusZero);
        pairs.Z = Cvt.FmaBf16x2(Bits.Prmt(x.Z, x.W, 0x5410u), TwoTo60, MinusZero);
        pairs.W = Cvt.FmaBf16x2(Bits.Prmt(x.Z, x.W, 0x7632u), TwoTo60, MinusZero);
        return pairs;
    }
}
