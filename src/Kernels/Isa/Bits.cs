using System.Numerics;
using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>Bit operations that ILGPU does not give, or gives through slow code.</summary>
internal static class Bits
{
    /// <summary>
    /// Picks four bytes of the eight of b:a (0–3 of <paramref name="a"/>, 4–7 of <paramref name="b"/>): nibble i of the
    /// selector names the source of byte i; its bit 3 replaces the byte by copies of its sign bit.
    /// </summary>
    [IntrinsicImplementation, Ptx("prmt.b32 %d, %0, %1, %2;")]
    public static uint Prmt(uint a, uint b, uint selector)
    {
        ulong bytes = (ulong)b << 32 | a;
        uint result = 0;
        for (int i = 0; i < 4; i++)
        {
            uint nibble = selector >> (4 * i) & 0xF;
            uint picked = (uint)(bytes >> (int)(8 * (nibble & 7))) & 0xFF;
            if ((nibble & 8) != 0)
                picked = (picked & 0x80) != 0 ? 0xFFu : 0;
            result |= picked << (8 * i);
        }

        return result;
    }

    /// <summary>
    /// Any function of three bits, bit by bit: <paramref name="lut"/> (a constant) is the function of a = 0xF0, b = 0xCC,
    /// c = 0xAA.
    /// </summary>
    [IntrinsicImplementation, Ptx("lop3.b32 %d, %0, %1, %2, %c3;")]
    public static uint Lop3(uint a, uint b, uint c, int lut)
    {
        uint result = 0;
        for (int term = 0; term < 8; term++)
        {
            if ((lut >> term & 1) != 0)
                result |= ((term & 4) != 0 ? a : ~a) & ((term & 2) != 0 ? b : ~b) & ((term & 1) != 0 ? c : ~c);
        }

        return result;
    }

    /// <summary>Number of set bits.</summary>
    [IntrinsicImplementation, Ptx("popc.b32 %d, %0;")]
    public static int PopCount(uint x) => BitOperations.PopCount(x);

    /// <summary>Number of zero bits above the highest set one; 32 for 0.</summary>
    [IntrinsicImplementation, Ptx("clz.b32 %d, %0;")]
    public static int LeadingZeros(uint x) => BitOperations.LeadingZeroCount(x);
}
