using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>BF16 weights: words are operands as they are.</summary>
internal readonly struct StreamedBf16 : IStreamedFormat
{
    public static int CodesPerWordShift => 1;

    public static int Terms => 1;

    public static bool IsF16 => false;

    public static bool HasTileScales => false;

    public static bool HasRowScales => false;

    public static bool HasGroupScales => false;

    public static bool HasZeroPoints => false;

    public static float Correction => 1f;

    public static uint PrepareOperand(uint stored) => 0;

    public static U4 Decode(U4 word, int step, uint operand) => word;

    public static U4 Arrange(U4 x) => x;
}
