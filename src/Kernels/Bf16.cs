using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>BF16 ↔ float32 inside kernels, in integer arithmetic: the same bits on every architecture and on the CPU.</summary>
internal static class Bf16
{
    public static float ToFloat(ushort bits) => Interop.IntAsFloat((uint)bits << 16);

    /// <summary>The low half of a word of two.</summary>
    public static float Low(uint pair) => Interop.IntAsFloat(pair << 16);

    /// <summary>The high half of a word of two.</summary>
    public static float High(uint pair) => Interop.IntAsFloat(pair & 0xFFFF0000u);

    /// <summary>Round to nearest even; every NaN becomes 0x7FFF, as the hardware's conversion does.</summary>
    public static ushort FromFloat(float value)
    {
        uint bits = Interop.FloatAsInt(value);
        uint rounded = bits + 0x7FFFu + ((bits >> 16) & 1u);
        bool nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
        return nan ? (ushort)0x7FFF : (ushort)(rounded >> 16);
    }

    /// <summary>Two values in one word, the first in the low half.</summary>
    public static uint Pack(float low, float high) => FromFloat(low) | ((uint)FromFloat(high) << 16);
}
