using GpuKit.Ilgpu.Kernels.Isa;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Kernels.Isa;

public sealed class FastMathTests
{
    private const float Inf = float.PositiveInfinity, NaN = float.NaN, Subnormal = 1e-40f;

    private static void Same(float expected, float actual)
    {
        uint bits = float.IsNaN(expected) ? 0x7FFFFFFF : BitConverter.SingleToUInt32Bits(expected);
        Assert.Equal(bits, BitConverter.SingleToUInt32Bits(actual));
    }

    [Fact]
    public void Fma_rounds_once()
    {
        // (1 + 2⁻¹²)² = 1 + 2⁻¹¹ + 2⁻²⁴: a product that is rounded first loses the last term.
        float x = 1 + 1f / 4096;
        Same(1f / (1 << 24), Fast.Fma(x, x, -(1 + 1f / 2048)));
        Same(-0f, Fast.Fma(0, -1, -0f));
        Same(NaN, Fast.Fma(Inf, 0, 1));
    }

    [Fact]
    public void Sums_products_and_the_float64_fma_round_once()
    {
        Same(16777216, Fast.Add(16777216, 1));
        Same(-1, Fast.Sub(Fast.Sub(16777216, Fast.Add(16777216, 1)), 1));
        Same(1 + 1f / 2048, Fast.Mul(1 + 1f / 4096, 1 + 1f / 4096));
        Same(NaN, Fast.Sub(Inf, Inf));
        Same(NaN, Fast.Add(Inf, -Inf));
        Same(NaN, Fast.Mul(Inf, 0));
        Same(-0f, Fast.Add(-0f, -0f));
        double x = 1 + Math.Pow(2, -30);
        Assert.Equal(Math.Pow(2, -60), Fast.FmaDouble(x, x, -(1 + Math.Pow(2, -29))));
        Assert.Equal(0x7FFFFFFF_FFFFFFFFul, BitConverter.DoubleToUInt64Bits(Fast.FmaDouble(Inf, 0, 1)));
    }

    [Fact]
    public void Division_root_and_rounding_follow_IEEE()
    {
        Same(1f / 3, Fast.Div(1, 3));
        Same(Subnormal / 3, Fast.Div(Subnormal, 3));
        Same(-Inf, Fast.Div(-1, 0));
        Same(NaN, Fast.Div(0, 0));
        Same(MathF.Sqrt(2), Fast.Sqrt(2));
        Same(-0f, Fast.Sqrt(-0f));
        Same(NaN, Fast.Sqrt(-1));
        Same(2, Fast.RoundEven(2.5f));
        Same(4, Fast.RoundEven(3.5f));
        Same(-0f, Fast.RoundEven(-0.5f));
        Same(3, Fast.Max(3, -4));
        Same(0, Fast.Max(-0f, 0));
        Same(NaN, Fast.Max(NaN, 1));
        Same(NaN, Fast.Max(Inf, NaN));
        Same(NaN, Fast.RoundEven(NaN));
    }

    [Fact]
    public void Approximations_are_near()
    {
        for (float x = -20; x < 20; x += 0.37f)
        {
            Near(Math.Pow(2, x), Fast.Ex2(x));
            Near(1.0 / x, Fast.Rcp(x));
            Near(Math.Log2(Math.Abs((double)x)), Fast.Lg2(Math.Abs(x)));
            Near(1 / Math.Sqrt(Math.Abs((double)x)), Fast.Rsqrt(Math.Abs(x)));
        }

        static void Near(double expected, float actual) => Assert.Equal(expected, actual, Math.Abs(expected) * 1e-6);
    }

    [Fact]
    public void Approximations_at_the_edges()
    {
        Same(1, Fast.Ex2(Subnormal));
        Same(0, Fast.Ex2(-127));
        Same(0, Fast.Ex2(-Inf));
        Same(Inf, Fast.Ex2(128));
        Same(NaN, Fast.Ex2(NaN));
        Same(-Inf, Fast.Lg2(Subnormal));
        Same(-Inf, Fast.Lg2(-0f));
        Same(NaN, Fast.Lg2(-1));
        Same(-Inf, Fast.Rcp(-Subnormal));
        Same(-0f, Fast.Rcp(-Inf));
        Same(0, Fast.Rcp(2e38f));
        Same(Inf, Fast.Rsqrt(0));
        Same(-Inf, Fast.Rsqrt(-0f));
        Same(0, Fast.Rsqrt(Inf));
        Same(NaN, Fast.Rsqrt(-1));
        Assert.True(float.IsFinite(Fast.Rsqrt(Subnormal)));
    }
}
