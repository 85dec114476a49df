using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>
/// A weight format as <see cref="SkinnyGemm"/> streams it through tensor cores: 128 bytes of a row at a time (a chunk), a
/// 16-byte word a lane.
/// </summary>
internal interface IStreamedFormat
{
    /// <summary>log2 of the codes in a 32-bit word.</summary>
    static abstract int CodesPerWordShift { get; }

    /// <summary>Codes of a lane's 16-byte word.</summary>
    static abstract int WordCodes { get; }

    /// <summary>Codes of a row's 128 bytes.</summary>
    static abstract int ChunkCodes { get; }

    static abstract bool IsScaled { get; }

    /// <summary>What undoes the powers of two of codes and inputs.</summary>
    static abstract float Correction { get; }

    /// <summary>The codes of a 32-bit word as two BF16 pairs, in the format's own order and times a power of two.</summary>
    static abstract U2 DecodeWord(uint word);

    /// <summary>The inputs of those codes in the same order, times a power of two.</summary>
    static abstract U2 ArrangeInputs(uint x01, uint x23);
}

/// <summary>BF16 weights: words are operands as they are.</summary>
internal readonly struct StreamedBf16 : IStreamedFormat
{
    public static int CodesPerWordShift => 1;

    public static int WordCodes => 8;

    public static int ChunkCodes => 64;

    public static bool IsScaled => false;

    public static float Correction => 1f;

    // A word holds one pair, not two: the kernel takes it directly.
    public static U2 DecodeWord(uint word) => default;

    public static U2 ArrangeInputs(uint x01, uint x23) => default;
}

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

    public static int WordCodes => 16;

    public static int ChunkCodes => 128;

    public static bool IsScaled => true;

    public static float Correction => 1152921504606846976f;

    public static U2 DecodeWord(uint word)
    {
        // The other codes' signs fall on bits that the magnitude covers.
        uint signs = word & Signs;
        U2 pairs;
        pairs.X = Bits.Lop3(word << 4, signs << 8, Magnitude, Select);
        pairs.Y = Bits.Lop3(word >> 4, signs, Magnitude, Select);
        return pairs;
    }

    public static U2 ArrangeInputs(uint x01, uint x23)
    {
        U2 pairs;
        pairs.X = Cvt.FmaBf16x2(Bits.Prmt(x01, x23, 0x5410u), TwoTo60, MinusZero);
        pairs.Y = Cvt.FmaBf16x2(Bits.Prmt(x01, x23, 0x7632u), TwoTo60, MinusZero);
        return pairs;
    }
}
