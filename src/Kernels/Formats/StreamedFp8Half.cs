using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>E4M3 codes for E4M3 inputs, as F16 pairs of neighbours: two instructions for four codes on cards with the conversion, ten on others.</summary>
internal readonly struct StreamedFp8Half : IStreamedFormat
{
    public static int CodesPerWordShift => 2;

    public static int Terms => 1;

    public static bool IsF16 => true;

    public static bool HasTileScales => true;

    public static bool HasRowScales => false;

    public static bool HasGroupScales => false;

    public static bool HasZeroPoints => false;

    public static float Correction => 1f;

    public static uint PrepareOperand(uint stored) => 0;

    public static U4 Decode(U4 word, int step, uint operand)
    {
        uint first = step == 0 ? word.X : word.Z, second = step == 0 ? word.Y : word.W;
        U4 pairs;
        pairs.X = Cvt.E4M3x2LowNumbersToF16x2(first);
        pairs.Y = Cvt.E4M3x2HighNumbersToF16x2(first);
        pairs.Z = Cvt.E4M3x2LowNumbersToF16x2(second);
        pairs.W = Cvt.E4M3x2HighNumbersToF16x2(second);
        return pairs;
    }

    public static U4 Arrange(U4 x) => x;
}
