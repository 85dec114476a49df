using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>BF16 as kernels see it: bits in a ushort, or two values in a word.</summary>
internal static class Bf16
{
    public static float ToFloat(ushort bits) => Cvt.FromBf16(bits);

    /// <summary>The low half of a word of two.</summary>
    public static float Low(uint pair) => Interop.IntAsFloat(pair << 16);

    /// <summary>The high half of a word of two.</summary>
    public static float High(uint pair) => Interop.IntAsFloat(pair & 0xFFFF0000u);

    /// <summary>Round to nearest even; every NaN becomes 0x7FFF.</summary>
    public static ushort FromFloat(float value) => Cvt.Bf16(value);

    /// <summary>Two values in one word, the first in the low half.</summary>
    public static uint Pack(float low, float high) => Cvt.Bf16x2(high, low);
}
