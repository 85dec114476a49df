using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>Float32 arithmetic (and one float64 instruction) with the rounding said: <c>rn</c> ones are bit-exact in the emulation.</summary>
/// <remarks>
/// The approximations (Ex2, Lg2, Rcp, Rsqrt) are good to about 2⁻²² on the GPU; the emulation gives the rounded true
/// value, so bits may differ. Zeros, infinities, NaN and flushed subnormals (<c>.ftz</c>) are the hardware's.
/// </remarks>
internal static class Fast
{
    /// <summary>2^x; subnormal arguments count as 0 and subnormal results are 0.</summary>
    [IntrinsicImplementation, Ptx("ex2.approx.ftz.f32 %d, %0;")]
    public static float Ex2(float x) => Flushed(Math.Pow(2, Ieee.FlushSubnormal(x)));

    /// <summary>log₂ x; subnormal arguments count as 0 (−∞), negative ones give NaN.</summary>
    [IntrinsicImplementation, Ptx("lg2.approx.ftz.f32 %d, %0;")]
    public static float Lg2(float x) => Flushed(Math.Log2(Ieee.FlushSubnormal(x)));

    /// <summary>1/x; subnormal arguments count as 0 and subnormal results are 0.</summary>
    [IntrinsicImplementation, Ptx("rcp.approx.ftz.f32 %d, %0;")]
    public static float Rcp(float x) => Flushed(1.0 / Ieee.FlushSubnormal(x));

    /// <summary>1/√x, subnormal arguments included; ±0 gives ±∞, negative numbers NaN.</summary>
    [IntrinsicImplementation, Ptx("rsqrt.approx.f32 %d, %0;")]
    public static float Rsqrt(float x) => Ieee.CanonicalNaN((float)(1.0 / Math.Sqrt(x)));

    /// <summary>a·b + c, rounded once.</summary>
    [IntrinsicImplementation, Ptx("fma.rn.f32 %d, %0, %1, %2;")]
    public static float Fma(float a, float b, float c) => Ieee.CanonicalNaN(MathF.FusedMultiplyAdd(a, b, c));

    /// <summary>a·b + c in float64, rounded once.</summary>
    [IntrinsicImplementation, Ptx("fma.rn.f64 %d, %0, %1, %2;")]
    public static double FmaDouble(double a, double b, double c) => Ieee.CanonicalNaN(Math.FusedMultiplyAdd(a, b, c));

    /// <summary>a + b, rounded once and never fused or reordered: what compensated sums stand on.</summary>
    [IntrinsicImplementation, Ptx("add.rn.f32 %d, %0, %1;")]
    public static float Add(float a, float b) => Ieee.CanonicalNaN(a + b);

    /// <summary>a − b, rounded once and never fused or reordered.</summary>
    [IntrinsicImplementation, Ptx("sub.rn.f32 %d, %0, %1;")]
    public static float Sub(float a, float b) => Ieee.CanonicalNaN(a - b);

    /// <summary>a·b, rounded once and never fused into an addition.</summary>
    [IntrinsicImplementation, Ptx("mul.rn.f32 %d, %0, %1;")]
    public static float Mul(float a, float b) => Ieee.CanonicalNaN(a * b);

    /// <summary>a/b as IEEE 754 says (ILGPU's own division may be approximate).</summary>
    [IntrinsicImplementation, Ptx("div.rn.f32 %d, %0, %1;")]
    public static float Div(float a, float b) => Ieee.CanonicalNaN(a / b);

    /// <summary>√x as IEEE 754 says.</summary>
    [IntrinsicImplementation, Ptx("sqrt.rn.f32 %d, %0;")]
    public static float Sqrt(float x) => Ieee.CanonicalNaN(MathF.Sqrt(x));

    /// <summary>The larger of two; +0 is above −0, and a NaN gives NaN.</summary>
    [IntrinsicImplementation, Ptx("max.NaN.f32 %d, %0, %1;")]
    public static float Max(float a, float b) => Ieee.CanonicalNaN(MathF.Max(a, b));

    /// <summary>To the nearest whole number, ties to even; the sign of zero stays.</summary>
    [IntrinsicImplementation, Ptx("cvt.rni.f32.f32 %d, %0;")]
    public static float RoundEven(float x) => Ieee.CanonicalNaN(MathF.Round(x, MidpointRounding.ToEven));

    private static float Flushed(double x) => Ieee.CanonicalNaN(Ieee.FlushSubnormal((float)x));
}
