using System.Numerics;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Kernels.Isa;

public sealed class ConvertTests
{
    // The formats by their definition, in float64: sign, exponent and fraction fields, subnormals without the hidden bit.
    private static double Value(uint code, int exponentBits, int fractionBits)
    {
        int bias = (1 << (exponentBits - 1)) - 1, exponent = (int)(code >> fractionBits) & ((1 << exponentBits) - 1);
        double fraction = (code & ((1u << fractionBits) - 1)) / (double)(1u << fractionBits);
        double magnitude = exponent == 0 ? fraction * Math.Pow(2, 1 - bias) : (1 + fraction) * Math.Pow(2, exponent - bias);
        return (code >> (exponentBits + fractionBits) & 1) != 0 ? -magnitude : magnitude;
    }

    private static double E4M3(uint code) => (code & 0x7F) == 0x7F ? double.NaN : Value(code, 4, 3);

    private static double F16(uint code) =>
        (code & 0x7C00) != 0x7C00 ? Value(code, 5, 10)
        : (code & 0x3FF) != 0 ? double.NaN
        : (code & 0x8000) != 0 ? double.NegativeInfinity : double.PositiveInfinity;

    private static uint Bits(float x) => BitConverter.SingleToUInt32Bits(x);

    [Fact]
    public void E4M3_decodes_all_pairs_in_every_position()
    {
        var expected = new uint[256];
        for (uint code = 0; code < 256; code++)
            expected[code] = double.IsNaN(E4M3(code)) ? 0x7FFFu : BitConverter.HalfToUInt16Bits((System.Half)E4M3(code));
        for (uint pair = 0; pair < 65536; pair++)
        {
            uint both = expected[pair & 0xFF] | expected[pair >> 8] << 16;
            Assert.True(both == Cvt.F16x2FromE4M3x2((ushort)pair), $"0x{pair:X4}");
            Assert.True(both == Cvt.E4M3x2LowToF16x2(pair | 0xA5C30000), $"low 0x{pair:X4}");
            Assert.True(both == Cvt.E4M3x2HighToF16x2(pair << 16 | 0xA5C3), $"high 0x{pair:X4}");
            Assert.True(both == Cvt.E4M3x2LowNumbersToF16x2(pair | 0xA5C30000), $"low number 0x{pair:X4}");
            Assert.True(both == Cvt.E4M3x2HighNumbersToF16x2(pair << 16 | 0xA5C3), $"high number 0x{pair:X4}");

            // By bit moves NaN's codes are ±480, whose pattern is the one behind 448's.
            uint moved = Number(pair & 0xFF) | Number(pair >> 8) << 16;
            Assert.True(moved == Cvt.E4M3x2LowNumbersToF16x2Moved(pair | 0xA5C30000), $"low moved 0x{pair:X4}");
            Assert.True(moved == Cvt.E4M3x2HighNumbersToF16x2Moved(pair << 16 | 0xA5C3), $"high moved 0x{pair:X4}");
        }

        uint Number(uint code) => (code & 0x7F) != 0x7F ? expected[code] : (code & 0x80) << 8 | BitConverter.HalfToUInt16Bits((System.Half)480);
    }

    [Fact]
    public void E4M3_encodes_at_and_around_every_code_and_midpoint()
    {
        // Positive codes 0..0x7E ascend with their values; above 448 there is nothing to round to.
        CheckRounding(0x7E, E4M3, x => (uint)Cvt.E4M3x2(x, 1f) >> 8, 0x80);
        CheckRounding(0x7E, E4M3, x => Cvt.E4M3x2(1f, x) & 0xFFu, 0x80);
        foreach (float x in new[] { 448f, MathF.BitIncrement(448f), 463.9f, 464f, 480f, 1e30f, float.MaxValue, float.PositiveInfinity })
        {
            Assert.Equal(0x7E7E, Cvt.E4M3x2(x, x));
            Assert.Equal(0xFEFE, Cvt.E4M3x2(-x, -x));
        }

        Assert.Equal(0x7F7F, Cvt.E4M3x2(float.NaN, -float.NaN));
        Assert.Equal(0x8000, Cvt.E4M3x2(-0f, 0f));
        Assert.Equal(0x0080, Cvt.E4M3x2(float.Epsilon, -float.Epsilon));
    }

    [Fact]
    public void E4M3_encoding_does_not_mix_the_halves()
    {
        for (uint high = 0; high < 256; high++)
        {
            for (uint low = 0; low < 256; low++)
            {
                if (!double.IsNaN(E4M3(high)) && !double.IsNaN(E4M3(low)))
                    Assert.True(Cvt.E4M3x2((float)E4M3(high), (float)E4M3(low)) == (high << 8 | low), $"{high:X2} {low:X2}");
            }
        }
    }

    [Fact]
    public void Bf16_rounds_at_and_around_every_code_and_midpoint()
    {
        CheckRounding(0x7F80, code => Value(code, 8, 7), x => Cvt.Bf16(x), 0x8000);
        CheckRounding(0x7F80, code => Value(code, 8, 7), x => Cvt.Bf16x2(x, 0) >> 16, 0x8000);
        CheckRounding(0x7F80, code => Value(code, 8, 7), x => Cvt.Bf16x2(0, x), 0x8000);
        Assert.Equal(0x7FFF7FFFu, Cvt.Bf16x2(float.NaN, BitConverter.UInt32BitsToSingle(0x7F800001)));
        Assert.Equal(0x7F80FF80u, Cvt.Bf16x2(float.MaxValue, float.NegativeInfinity));
        Assert.Equal(0x40003F80u, Cvt.Bf16x2(2, 1));
    }

    [Fact]
    public void Bf16_decodes_all_codes()
    {
        for (uint code = 0; code < 65536; code++)
        {
            Assert.Equal(code << 16, Bits(Cvt.FromBf16((ushort)code)));
            if ((code & 0x7F80) != 0x7F80)
                Assert.Equal(Value(code, 8, 7), Cvt.FromBf16((ushort)code));
        }
    }

    [Fact]
    public void F16_rounds_at_and_around_every_code_and_midpoint()
    {
        CheckRounding(0x7BFF, F16, x => Cvt.F16x2(x, 1) >> 16, 0x8000);
        CheckRounding(0x7BFF, F16, x => Cvt.F16x2(1, x) & 0xFFFF, 0x8000);
        Assert.Equal(0x7BFF7C00u, Cvt.F16x2(65519.996f, 65520));
        Assert.Equal(0xFC007FFFu, Cvt.F16x2(float.NegativeInfinity, -float.NaN));
    }

    [Fact]
    public void F16_decodes_all_codes()
    {
        for (uint code = 0; code < 65536; code++)
        {
            uint expected = double.IsNaN(F16(code)) ? 0x7FFFFFFF : Bits((float)F16(code));
            Assert.Equal(expected, Bits(Cvt.F16Low(code | 0x3C000000)));
            Assert.Equal(expected, Bits(Cvt.F16High(code << 16 | 0x3C00)));
        }
    }

    [Fact]
    public void MulF16x2_rounds_the_exact_product_once()
    {
        var random = new Random(3);
        for (int i = 0; i < 20_000; i++)
        {
            uint a = (uint)random.Next(65536), b = (uint)random.Next(65536);
            // A product of two F16 numbers is exact in float64.
            double product = F16(a) * F16(b);
            uint expected = double.IsNaN(product) ? 0x7FFFu : BitConverter.HalfToUInt16Bits((System.Half)product);
            Assert.True(Cvt.MulF16x2(a << 16 | 0x3C00, b << 16) >> 16 == expected, $"{a:X4}·{b:X4} high");
            Assert.True((Cvt.MulF16x2(0x7C000000 | a, b) & 0xFFFF) == expected, $"{a:X4}·{b:X4} low");
        }
    }

    [Fact]
    public void FmaBf16x2_rounds_the_exact_result_once()
    {
        var random = new Random(2);
        for (int i = 0; i < 20_000; i++)
        {
            // Half of the cases with exponents close to each other, so that sums cancel and ties occur.
            uint a = NextCode(), b = NextCode(), c = NextCode();
            uint expected = ExactFma(a, b, c);
            Assert.True(Cvt.FmaBf16x2(a << 16, b << 16, c << 16) >> 16 == expected, $"{a:X4}·{b:X4}+{c:X4} high");
            Assert.True((Cvt.FmaBf16x2(0x7F80_0000 | a, b, c) & 0xFFFF) == expected, $"{a:X4}·{b:X4}+{c:X4} low");
        }

        uint NextCode() => random.Next(2) == 0
            ? (uint)random.Next(0x7F80) | (uint)random.Next(2) << 15
            : (uint)random.Next(0x3F00, 0x4080) | (uint)random.Next(2) << 15;
    }

    [Theory]
    [InlineData(0x3F80, 0x3F81, 0x0001, 0x3F81)] // an addend far below: no effect …
    [InlineData(0x3F81, 0x3FC0, 0x0000, 0x3FC2)] // (1 + 2⁻⁷)·1.5 is a tie: to even …
    [InlineData(0x3F81, 0x3FC0, 0x8001, 0x3FC1)] // … unless something, however small, decides it
    [InlineData(0x3F83, 0x3FC0, 0x0000, 0x3FC4)]
    [InlineData(0x3F83, 0x3FC0, 0x0001, 0x3FC5)]
    [InlineData(0x0000, 0x8000, 0x8000, 0x8000)]
    [InlineData(0x3F80, 0xBF80, 0x3F80, 0x0000)]
    [InlineData(0x7F7F, 0x7F7F, 0x0000, 0x7F80)]
    [InlineData(0x7F80, 0x0000, 0x3F80, 0x7FFF)]
    [InlineData(0x7F80, 0x3F80, 0xFF80, 0x7FFF)]
    [InlineData(0xFFC1, 0x3F80, 0x3F80, 0x7FFF)]
    public void FmaBf16x2_special_cases(uint a, uint b, uint c, uint expected) =>
        Assert.Equal(expected << 16 | expected, Cvt.FmaBf16x2(a << 16 | a, b << 16 | b, c << 16 | c));

    [Theory]
    [InlineData(0.5f, 0)]
    [InlineData(1.5f, 2)]
    [InlineData(-2.5f, -2)]
    [InlineData(-2.5000002f, -3)]
    [InlineData(2147483520f, 2147483520)]
    [InlineData(2147483648f, int.MaxValue)]
    [InlineData(float.NegativeInfinity, int.MinValue)]
    [InlineData(float.NaN, 0)]
    public void RoundToInt(float x, int expected) => Assert.Equal(expected, Cvt.RoundToInt(x));

    // Codes 0..last ascend. At a code: itself; between two: the nearer; in the middle: the even one.
    private static void CheckRounding(uint last, Func<uint, double> value, Func<float, uint> encode, uint sign)
    {
        for (uint code = 0; code < last; code++)
        {
            float low = (float)value(code), middle = (float)((value(code) + value(code + 1)) / 2);
            Check(low, code);
            if (low != 0)
                Check(MathF.BitIncrement(low), code);
            Check(MathF.BitDecrement(middle), code);
            Check(middle, code + (code & 1));
            Check(MathF.BitIncrement(middle), code + 1);
        }

        void Check(float x, uint expected)
        {
            Assert.True(encode(x) == expected, $"{x:R} gives 0x{encode(x):X}, not 0x{expected:X}");
            Assert.True(encode(-x) == (expected | sign), $"{-x:R} gives 0x{encode(-x):X}, not 0x{expected | sign:X}");
        }
    }

    // In whole units of 2⁻²⁶⁶ (two subnormals multiplied), rounded by search among all BF16 numbers.
    private static uint ExactFma(uint a, uint b, uint c)
    {
        BigInteger sum = Units(a) * Units(b) + (Units(c) << 133);
        if (sum.IsZero)
            return (((a ^ b) & c) & 0x8000) != 0 ? 0x8000u : 0;
        BigInteger magnitude = BigInteger.Abs(sum);
        uint low = 0, high = 0x7F80;
        while (high - low > 1)
        {
            uint middle = (low + high) / 2;
            if (Units(middle) << 133 <= magnitude)
                low = middle;
            else
                high = middle;
        }

        int side = (2 * magnitude).CompareTo((Units(low) + Units(low + 1)) << 133);
        uint nearest = side < 0 ? low : side > 0 ? low + 1 : low + (low & 1);
        return sum.Sign < 0 ? nearest | 0x8000 : nearest;
    }

    // A BF16 number in units of 2⁻¹³³; infinity as the number that would follow.
    private static BigInteger Units(uint code)
    {
        int exponent = (int)(code >> 7) & 0xFF;
        BigInteger units = exponent == 0 ? code & 0x7F : (BigInteger)((code & 0x7F) | 0x80) << (exponent - 1);
        return (code & 0x8000) != 0 ? -units : units;
    }
}
