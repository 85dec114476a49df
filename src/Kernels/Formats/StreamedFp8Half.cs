using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>
/// E4M3 codes for E4M3 inputs, as F16 pairs: seven magnitude bits below F16's upper exponent bit and the sign on top are the
/// value times 2⁻⁸, subnormals included, which F16's products in float32 sums never leave. Pairs are codes (0, 2) and (1, 3), as
/// in <see cref="StreamedFp8"/>.
/// </summary>
internal readonly struct StreamedFp8Half : IStreamedFormat
{
    private const uint Magnitude = 0x3F803F80, Signs = 0x80808080;

    // Bit by bit: the third operand chooses the first where it is 1, else the second.
    private const int Select = 0xE4;

    public static int CodesPerWordShift => 2;

    public static bool IsF16 => true;

    public static bool HasTileScales => true;

    public static bool HasRowScales => false;

    public static bool HasGroupScales => false;

    public static bool HasZeroPoints => false;

    public static float Correction => 256f;

    public static uint PrepareOperand(uint stored) => 0;

    public static U4 Decode(U4 word, int step, uint operand)
    {
        uint first = step == 0 ? word.X : word.Z, second = step == 0 ? word.Y : word.W;
        // The other codes' signs fall on bits that the magnitude covers.
        uint firstSigns = first & Signs, secondSigns = second & Signs;
        U4 pairs;
        pairs.X = Bits.Lop3(first << 7, firstSigns << 8, Magnitude, Select);
        pairs.Y = Bits.Lop3(first >> 1, firstSigns, Magnitude, Select);
        pairs.Z = Bits.Lop3(second << 7, secondSigns << 8, Magnitude, Select);
        pairs.W = Bits.Lop3(second >> 1, secondSigns, Magnitude, Select);
        return pairs;
    }

    public static U4 Arrange(U4 x)
    {
        U4 pairs;
        pairs.X = Bits.Prmt(x.X, x.Y, 0x5410u);
        pairs.Y = Bits.Prmt(x.X, x.Y, 0x7632u);
        pairs.Z = Bits.Prmt(x.Z, x.W, 0x5410u);
        pairs.W = Bits.Prmt(x.Z, x.W, 0x7632u);
        return pairs;
    }
}
