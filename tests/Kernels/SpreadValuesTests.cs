using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Tests.Oracle;

namespace GpuKit.Ilgpu.Tests.Kernels;

/// <summary>2²⁴ float32 numbers, spread evenly over all bit patterns, against rounding by definition in float64.</summary>
public sealed class SpreadValuesTests
{
    internal const int Count = 1 << 24;

    [Fact]
    public void ToBf16()
    {
        for (int i = 0; i < Count; i++)
        {
            float x = Spread(i);
            ushort expected = float.IsNaN(x) ? (ushort)0x7FFF : (ushort)(BitConverter.SingleToUInt32Bits((float)Rounded(x, 7, -126, double.PositiveInfinity)) >> 16);
            if (((BFloat16)x).Bits != expected || Cvt.Bf16(x) != expected)
                Assert.Fail($"{x:R} gives 0x{((BFloat16)x).Bits:X4} and 0x{Cvt.Bf16(x):X4}, not 0x{expected:X4}");
        }
    }

    [Fact]
    public void ToE4M3()
    {
        for (int i = 0; i < Count; i++)
        {
            float x = Spread(i);
            int code = Cvt.E4M3x2(0f, x) & 0xFF;
            if (float.IsNaN(x) ? code != 0x7F : !Is(MatrixOracle.E4M3[code], Rounded(x, 3, -6, 448)))
                Assert.Fail($"{x:R} gives 0x{code:X2}");
        }
    }

    [Fact]
    public void ToE2M1()
    {
        for (int i = 0; i < Count; i++)
        {
            float x = Spread(i);
            uint code = Nvfp4Code.E2M1(x);
            if (float.IsNaN(x) ? code != 0 : !Is(MatrixOracle.E2M1[code], Rounded(x, 1, 0, 6)))
                Assert.Fail($"{x:R} gives {code}");
        }
    }

    [Fact]
    public void ToInt4()
    {
        for (int i = 0; i < Count; i++)
        {
            float x = Spread(i);
            int code = Int4Code.Encode(x, 1f), expected = float.IsNaN(x) ? 0 : (int)Math.Clamp(Math.Round((double)x, MidpointRounding.ToEven), -8, 7);
            if (code != (expected & 15))
                Assert.Fail($"{x:R} gives {code}");
        }
    }

    // The upper 24 bits count; the lower 8 vary with them.
    private static float Spread(int i) => BitConverter.UInt32BitsToSingle(((uint)i << 8) | ((uint)(i * 2654435761L >> 16) & 0xFF));

    private static bool Is(double actual, double expected) => actual == expected && double.IsNegative(actual) == double.IsNegative(expected);

    // To nearest, ties to even, of this many fraction bits; exponents below the least share its step.
    private static double Rounded(double x, int fractionBits, int leastExponent, double largest)
    {
        if (double.IsInfinity(x) || x == 0)
            return Math.CopySign(Math.Min(Math.Abs(x), largest), x);
        double step = Math.ScaleB(1, Math.Max(Math.ILogB(x), leastExponent) - fractionBits);
        double magnitude = Math.Round(Math.Abs(x) / step, MidpointRounding.ToEven) * step;
        return Math.CopySign(Math.Min(magnitude, largest), x);
    }
}
