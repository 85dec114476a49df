using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>
/// E4M3 codes are decoded in the pairs (0, 2) and (1, 3) of a 32-bit word: a byte is then already in the half that it is moved
/// within.
/// </summary>
internal static class Fp8Pairs
{
    private const uint Signs = 0x80808080;

    // Bit by bit: the third operand chooses the first where it is 1, else the second.
    private const int Select = 0xE4;

    /// <summary>
    /// Codes 8·step … 8·step + 7 of a 16-byte word: the magnitudes of even bytes shifted left and of odd ones right until they lie
    /// under <paramref name="magnitude"/>, signs on top. All but the word are constants.
    /// </summary>
    public static U4 Decode(U4 word, int step, int left, int right, uint magnitude)
    {
        U2 first = Decode(step == 0 ? word.X : word.Z, left, right, magnitude), second = Decode(step == 0 ? word.Y : word.W, left, right, magnitude);
        U4 pairs;
        pairs.X = first.X;
        pairs.Y = first.Y;
        pairs.Z = second.X;
        pairs.W = second.Y;
        return pairs;
    }

    /// <summary>The four codes of one word.</summary>
    public static U2 Decode(uint word, int left, int right, uint magnitude)
    {
        // The other codes' signs fall on bits that the magnitude covers.
        uint signs = word & Signs;
        U2 pairs;
        pairs.X = Bits.Lop3(word << left, signs << 8, magnitude, Select);
        pairs.Y = Bits.Lop3(word >> right, signs, magnitude, Select);
        return pairs;
    }
}

/// <summary>
/// E4M3 codes by bit moves alone: a code's seven magnitude bits below BF16's upper exponent bits and its sign on top are the
/// value times 2⁻¹²⁰, subnormals included. Inputs are multiplied by 2⁶⁰, since products of 2⁻¹²⁰ would be float32 subnormals; that overflows for
/// |x| ≥ 2⁶⁸, far beyond any activation. The rest of the power, 2⁶⁰, goes with the scale.
/// </summary>
internal readonly struct StreamedFp8 : IStreamedFormat
{
    private const uint Magnitude = 0x07F007F0, MinusZero = 0x80008000;

    // 2⁶⁰ as a BF16 pair: exponent 127 + 60 = 0xBB, shifted to bit 7.
    private const uint TwoTo60 = 0x5D805D80;

    public static int CodesPerWordShift => 2;

    public static int Terms => 1;

    public static bool IsF16 => false;

    public static bool HasTileScales => true;

    public static bool HasRowScales => false;

    public static bool HasGroupScales => false;

    public static bool HasZeroPoints => false;

    public static float Correction => 1152921504606846976f;

    public static uint PrepareOperand(uint stored) => 0;

    public static U4 Decode(U4 word, int step, uint operand) => Fp8Pairs.Decode(word, step, left: 4, right: 4, Magnitude);

    /// <summary>A pair of inputs as products take it.</summary>
    public static uint Scale(uint pair) => Cvt.FmaBf16x2(pair, TwoTo60, MinusZero);

    public static U4 Arrange(U4 x)
    {
        U4 pairs;
        pairs.X = Scale(Bits.Prmt(x.X, x.Y, 0x5410u));
        pairs.Y = Scale(Bits.Prmt(x.X, x.Y, 0x7632u));
        pairs.Z = Scale(Bits.Prmt(x.Z, x.W, 0x5410u));
        pairs.W = Scale(Bits.Prmt(x.Z, x.W, 0x7632u));
        return pairs;
    }
}

/// <summary>Two terms of <see cref="StreamedFp8"/>: all codes of the matrix, then all codes of what the first leave over. A chunk of the one is added to a warp's sum, then the same of the other.</summary>
internal readonly struct StreamedFp8TwoTerm : IStreamedFormat
{
    public static int CodesPerWordShift => StreamedFp8.CodesPerWordShift;

    public static int Terms => 2;

    public static bool IsF16 => false;

    public static bool HasTileScales => true;

    public static bool HasRowScales => false;

    public static bool HasGroupScales => false;

    public static bool HasZeroPoints => false;

    public static float Correction => StreamedFp8.Correction;

    public static uint PrepareOperand(uint stored) => 0;

    public static U4 Decode(U4 word, int step, uint operand) => StreamedFp8.Decode(word, step, operand);

    public static U4 Arrange(U4 x) => StreamedFp8.Arrange(x);
}
