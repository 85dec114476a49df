using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>
/// E4M3 codes for E4M3 inputs, as F16 pairs: seven magnitude bits below F16's upper exponent bit and the sign on top are the
/// value times 2⁻⁸, subnormals included, which F16's products in float32 sums never leave.
/// </summary>
internal readonly struct StreamedFp8Half : IStreamedFormat
{
    /// <summary>Where the magnitude bits of a code stand in both halves of a pair.</summary>
    public const uint Magnitude = 0x3F803F80;

    public static int CodesPerWordShift => 2;

    public static int Terms => 1;

    public static bool IsF16 => true;

    public static bool HasTileScales => true;

    public static bool HasRowScales => false;

    public static bool HasGroupScales => false;

    public static bool HasZeroPoints => false;

    public static float Correction => 256f;

    public static uint PrepareOperand(uint stored) => 0;

    public static U4 Decode(U4 word, int step, uint operand) => Fp8Pairs.Decode(word, step, left: 7, right: 1, Magnitude);

    public static U4 Arrange(U4 x) => Fp8Pairs.Arrange(x);
}
