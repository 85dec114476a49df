using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>BF16 weights: words are operands as they are.</summary>
internal readonly struct StreamedBf16 : IStreamedFormat
{
    public static int CodesPerWordShift => 1;

    public static bool HasBlockScales => false;

    public static bool HasGroupScales => false;

    public static float Correction => 1f;

    public static uint DecodeGroupScales(uint codes) => 0;

    public static U4 Decode(U4 word, int step, uint groupScales) => word;

    public static U4 Arrange(U4 x) => x;
}
