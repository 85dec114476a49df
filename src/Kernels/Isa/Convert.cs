using ILGPU;
using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>
/// Conversions between number formats: to nearest even, one canonical NaN a format (BF16 and F16 0x7FFF, E4M3 0x7F,
/// float32 0x7FFFFFFF), subnormals honoured. In pairs the first argument is the upper half.
/// </summary>
internal static class Cvt
{
    private const string Halves = "{\n\t.reg .b16 l, h;\n\tmov.b32 {l, h}, %0;\n\t";

    /// <summary>Two float32 to a BF16 pair; beyond the range to infinity.</summary>
    [IntrinsicImplementation, Ptx("cvt.rn.bf16x2.f32 %d, %0, %1;")]
    public static uint Bf16x2(float hi, float lo) => (uint)Bf16(hi) << 16 | Bf16(lo);

    /// <summary>One float32 to BF16; beyond the range to infinity.</summary>
    [IntrinsicImplementation, Ptx("cvt.rn.bf16.f32 %d, %0;")]
    public static ushort Bf16(float x) => ((BFloat16)x).Bits;

    /// <summary>BF16 to float32, exactly; a shift in plain C#, so a NaN keeps its payload.</summary>
    public static float FromBf16(ushort x) => Interop.IntAsFloat((uint)x << 16);

    /// <summary>Two float32 to an F16 pair; beyond 65,504 to infinity.</summary>
    [IntrinsicImplementation, Ptx("cvt.rn.f16x2.f32 %d, %0, %1;")]
    public static uint F16x2(float hi, float lo) => (uint)F16(hi) << 16 | F16(lo);

    /// <summary>The low half of an F16 pair to float32, exactly.</summary>
    [IntrinsicImplementation, Ptx(Halves + "cvt.f32.f16 %d, l;\n\t}")]
    public static float F16Low(uint pair) => FromF16((ushort)pair);

    /// <summary>The high half of an F16 pair to float32, exactly.</summary>
    [IntrinsicImplementation, Ptx(Halves + "cvt.f32.f16 %d, h;\n\t}")]
    public static float F16High(uint pair) => FromF16((ushort)(pair >> 16));

    /// <summary>Two E4M3 codes to an F16 pair, exactly; the low byte to the low half.</summary>
    [IntrinsicImplementation, Ptx("cvt.rn.f16x2.e4m3x2 %d, %0;", MinArch = 89, Fallback = nameof(F16x2FromE4M3x2Software))]
    public static uint F16x2FromE4M3x2(ushort pair) => F16x2FromE4M3x2Software(pair);

    /// <summary>The E4M3 codes in bits 0–15 to an F16 pair.</summary>
    [IntrinsicImplementation]
    [Ptx(Halves + "cvt.rn.f16x2.e4m3x2 %d, l;\n\t}", MinArch = 89, Fallback = nameof(E4M3x2LowToF16x2Software))]
    public static uint E4M3x2LowToF16x2(uint word) => E4M3x2LowToF16x2Software(word);

    /// <summary>The E4M3 codes in bits 16–31 to an F16 pair.</summary>
    [IntrinsicImplementation]
    [Ptx(Halves + "cvt.rn.f16x2.e4m3x2 %d, h;\n\t}", MinArch = 89, Fallback = nameof(E4M3x2HighToF16x2Software))]
    public static uint E4M3x2HighToF16x2(uint word) => E4M3x2HighToF16x2Software(word);

    /// <summary><see cref="E4M3x2LowToF16x2"/> of numbers: where the hardware has no conversion NaN's codes become ±480.</summary>
    [IntrinsicImplementation]
    [Ptx(Halves + "cvt.rn.f16x2.e4m3x2 %d, l;\n\t}", MinArch = 89, Fallback = nameof(E4M3x2LowNumbersToF16x2Moved))]
    public static uint E4M3x2LowNumbersToF16x2(uint word) => E4M3x2LowToF16x2Software(word);

    /// <summary><see cref="E4M3x2HighToF16x2"/>, likewise.</summary>
    [IntrinsicImplementation]
    [Ptx(Halves + "cvt.rn.f16x2.e4m3x2 %d, h;\n\t}", MinArch = 89, Fallback = nameof(E4M3x2HighNumbersToF16x2Moved))]
    public static uint E4M3x2HighNumbersToF16x2(uint word) => E4M3x2HighToF16x2Software(word);

    /// <summary>Two float32 to E4M3 codes: ±448 beyond the range and for infinities, 0x7F for NaN.</summary>
    [IntrinsicImplementation]
    [Ptx("cvt.rn.satfinite.e4m3x2.f32 %d, %0, %1;", MinArch = 89, Fallback = nameof(E4M3x2Software))]
    public static ushort E4M3x2(float hi, float lo) => E4M3x2Software(hi, lo);

    /// <summary>a·b + c of BF16 pairs, each half rounded once.</summary>
    [IntrinsicImplementation, Ptx("fma.rn.bf16x2 %d, %0, %1, %2;")]
    public static uint FmaBf16x2(uint a, uint b, uint c) =>
        (uint)Ieee.FmaBf16((ushort)(a >> 16), (ushort)(b >> 16), (ushort)(c >> 16)) << 16 |
        Ieee.FmaBf16((ushort)a, (ushort)b, (ushort)c);

    /// <summary>a·b of F16 pairs, each half rounded once.</summary>
    [IntrinsicImplementation, Ptx("mul.rn.f16x2 %d, %0, %1;")]
    public static uint MulF16x2(uint a, uint b) => (uint)F16(FromF16((ushort)(a >> 16)) * FromF16((ushort)(b >> 16))) << 16 | F16(FromF16((ushort)a) * FromF16((ushort)b));

    /// <summary>To the nearest integer, ties to even; saturates, and NaN gives 0.</summary>
    [IntrinsicImplementation, Ptx("cvt.rni.s32.f32 %d, %0;")]
    public static int RoundToInt(float x) => x switch
    {
        float.NaN => 0,
        >= 2147483648f => int.MaxValue,
        <= -2147483648f => int.MinValue,
        _ => (int)MathF.Round(x, MidpointRounding.ToEven),
    };

    // What follows is compiled for GPUs below sm_89: arithmetic and instructions that these have, no loops, no Half.

    /// <summary><see cref="F16x2FromE4M3x2"/> in integer arithmetic.</summary>
    public static uint F16x2FromE4M3x2Software(ushort pair) => E4M3x2LowToF16x2Software(pair);

    /// <summary><see cref="E4M3x2LowToF16x2"/> in integer arithmetic.</summary>
    public static uint E4M3x2LowToF16x2Software(uint word) => F16FromE4M3(word & 0xFF) | F16FromE4M3((word >> 8) & 0xFF) << 16;

    /// <summary><see cref="E4M3x2HighToF16x2"/> in integer arithmetic.</summary>
    public static uint E4M3x2HighToF16x2Software(uint word) => E4M3x2LowToF16x2Software(word >> 16);

    /// <summary><see cref="E4M3x2LowNumbersToF16x2"/> by moving bits: a code in the upper byte of its half, its magnitude one bit down, is the value times 2⁻⁸.</summary>
    public static uint E4M3x2LowNumbersToF16x2Moved(uint word) => Moved(Bits.Prmt(word, 0, 0x1404u));

    /// <summary><see cref="E4M3x2HighNumbersToF16x2"/>, likewise.</summary>
    public static uint E4M3x2HighNumbersToF16x2Moved(uint word) => Moved(Bits.Prmt(word, 0, 0x3424u));

    // Bit by bit the magnitude where there is one, else the sign; times 256 in both halves.
    private static uint Moved(uint codes) => MulF16x2(Bits.Lop3(codes >> 1, codes & 0x80008000, 0x3F803F80, 0xE4), 0x5C005C00);

    /// <summary><see cref="E4M3x2"/> in integer arithmetic.</summary>
    public static ushort E4M3x2Software(float hi, float lo) => (ushort)(E4M3(hi) << 8 | E4M3(lo));

    private static uint F16FromE4M3(uint code)
    {
        uint sign = (code & 0x80) << 8, magnitude = code & 0x7F;
        if (magnitude == 0x7F)
            return 0x7FFF;
        if (magnitude >= 8)
            return sign | ((magnitude << 7) + ((15 - 7) << 10)); // the exponent bias goes from 7 to 15

        // Subnormal: m·2⁻⁹, normal in F16. float32 normalises m; its fraction and exponent, rebiased from 127 to 15 and
        // scaled by 2⁻⁹, are those of the F16 number.
        uint normalised = Interop.FloatAsInt((float)(int)magnitude) >> 13;
        return magnitude == 0 ? sign : sign | (normalised - ((127 - 15 + 9) << 10));
    }

    private static uint E4M3(float x)
    {
        uint bits = Interop.FloatAsInt(x);
        uint sign = (bits >> 24) & 0x80, magnitude = bits & 0x7FFFFFFF;
        if (magnitude > 0x7F800000)
            return 0x7F; // NaN
        if (magnitude >= 0x43E00000)
            return sign | 0x7E; // 448 and above
        if (magnitude >= 0x3C800000) // 2⁻⁶, the smallest normal number: round off 20 bits, then rebias from 127 to 7
            return sign | (((magnitude + 0x7FFFF + ((magnitude >> 20) & 1)) >> 20) - ((127 - 7) << 3));

        // Subnormal: the code is x·2⁹ = mantissa·2^(exponent − 141) rounded, 8 (the first normal number) included.
        int shift = 141 - (int)(magnitude >> 23);
        if (shift > 24)
            return sign; // below 2⁻¹⁰, half of the smallest number
        uint mantissa = (magnitude & 0x7FFFFF) | 0x800000;
        uint half = 1u << (shift - 1);
        return sign | ((mantissa + half - 1 + ((mantissa >> shift) & 1)) >> shift);
    }

    private static ushort F16(float x) => float.IsNaN(x) ? (ushort)0x7FFF : BitConverter.HalfToUInt16Bits((System.Half)x);

    private static float FromF16(ushort x) => Ieee.CanonicalNaN((float)BitConverter.UInt16BitsToHalf(x));
}
