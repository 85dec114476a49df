namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>Floating-point rules of NVIDIA GPUs that .NET does not have; for emulations only.</summary>
internal static class Ieee
{
    /// <summary>The one NaN that float32 instructions produce, whatever NaN went in.</summary>
    public const uint NaN = 0x7FFFFFFF;

    /// <summary>Replaces any NaN by the GPU's.</summary>
    public static float CanonicalNaN(float x) => float.IsNaN(x) ? BitConverter.UInt32BitsToSingle(NaN) : x;

    /// <summary>Replaces any NaN by the GPU's float64 one.</summary>
    public static double CanonicalNaN(double x) => double.IsNaN(x) ? BitConverter.UInt64BitsToDouble(0x7FFFFFFF_FFFFFFFF) : x;

    /// <summary>Replaces a subnormal number by zero of its sign (<c>.ftz</c>).</summary>
    public static float FlushSubnormal(float x) => float.IsSubnormal(x) ? MathF.CopySign(0, x) : x;

    /// <summary>a·b + c of three BF16 encodings, rounded once to nearest even; NaN is 0x7FFF.</summary>
    public static ushort FmaBf16(ushort a, ushort b, ushort c)
    {
        double product = (double)Cvt.FromBf16(a) * Cvt.FromBf16(b); // exact: 16 bits
        double addend = Cvt.FromBf16(c);
        double sum = product + addend;
        if (!double.IsFinite(sum))
            return BFloat16Bits((float)sum);

        // What float64 lost when the exponents lie far apart (the two-sum error, exact) becomes its last bit: rounding to
        // odd, after which a second rounding to far fewer bits is as good as one.
        double shifted = sum - product;
        double lost = (product - (sum - shifted)) + (addend - shifted);
        return Bf16FromDouble(ToOdd(sum, lost));
    }

    private static double ToOdd(double sum, double lost)
    {
        long bits = BitConverter.DoubleToInt64Bits(sum);
        if (lost == 0 || (bits & 1) != 0)
            return sum;
        return BitConverter.Int64BitsToDouble(lost > 0 == sum > 0 ? bits + 1 : bits - 1);
    }

    // Through float32 by truncation to odd, which keeps 24 > 8 + 1 bits also among subnormals (float32 and BF16 have the same
    // exponent range: the BF16 grid is 2¹⁶ times coarser everywhere).
    private static ushort Bf16FromDouble(double x)
    {
        float nearest = (float)x;
        uint bits = BitConverter.SingleToUInt32Bits(nearest);
        if (nearest == x || float.IsInfinity(nearest))
            return BFloat16Bits(nearest);
        if (Math.Abs(nearest) > Math.Abs(x))
            bits--;
        return BFloat16Bits(BitConverter.UInt32BitsToSingle(bits | 1));
    }

    private static ushort BFloat16Bits(float x) => ((BFloat16)x).Bits;
}
