using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>e^(x − max) as an integer in units of 2⁻⁴⁰, the same on every device: fused multiply-adds and integers only.</summary>
internal static class FixedExp
{
    /// <summary>Fraction bits: 2⁻⁴⁰ is e^−27.7, below the rounding of a float32 sum; 2²² of them still fit 63 bits.</summary>
    public const int FractionBits = 40;

    /// <summary>⌊e^(x − max)·2⁴⁰⌋ with a relative error of about 2⁻²², for x ≤ max; exactly 2⁴⁰ for x = max. No argument may be NaN, max is finite.</summary>
    public static ulong Of(float x, float max)
    {
        float d = x - max;
        // Below 2⁻⁴¹; also keeps −∞ and overflow away from the arithmetic.
        if (d < -30f)
            return 0;

        // d·log₂e = n + f with |f| ≤ 1/2; log₂e = 0x3FB8AA3B + 1.925963e-8 in two floats.
        float n = Fast.RoundEven(Fast.Fma(d, 1.442695041f, 0f));
        float f = Fast.Fma(d, 1.442695041f, -n);
        f = Fast.Fma(d, 1.925963033e-8f, f);

        // 2^f by its Taylor series, (ln 2)^k / k!: the term left out is below 1.2e-7 · 2⁻⁷ at |f| = 1/2.
        float p = 1.525273380e-5f;
        p = Fast.Fma(p, f, 1.540353039e-4f);
        p = Fast.Fma(p, f, 1.333355815e-3f);
        p = Fast.Fma(p, f, 9.618129108e-3f);
        p = Fast.Fma(p, f, 5.550410866e-2f);
        p = Fast.Fma(p, f, 2.402265070e-1f);
        p = Fast.Fma(p, f, 6.931471806e-1f);
        p = Fast.Fma(p, f, 1f);

        // p is a positive normal number, m·2^(e − 150) with a 24-bit m: times 2^(n + 40) is a shift of m.
        uint bits = Interop.FloatAsInt(p);
        ulong m = (bits & 0x7FFFFFu) | 0x800000u;
        int shift = (int)(bits >> 23) - 150 + (int)n + FractionBits;
        return shift >= 0 ? m << shift : m >> -shift;
    }
}
