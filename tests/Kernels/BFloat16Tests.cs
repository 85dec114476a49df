using System.Runtime.CompilerServices;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Kernels;

public sealed class BFloat16Tests
{
    private static BFloat16 NaN => BFloat16.FromBits(0x7FC0);

    [Fact]
    public void Is_two_bytes() => Assert.Equal(2, Unsafe.SizeOf<BFloat16>());

    [Fact]
    public void Every_code_survives_float32()
    {
        for (int code = 0; code < 65536; code++)
        {
            BFloat16 x = BFloat16.FromBits((ushort)code);
            bool nan = (code & 0x7FFF) > 0x7F80;
            Assert.Equal(nan, BFloat16.IsNaN(x));
            Assert.Equal(nan, float.IsNaN((float)x));
            Assert.Equal(nan ? 0x7FFF : code, ((BFloat16)(float)x).Bits);
        }
    }

    [Theory]
    [InlineData(1.00390625f, 0x3F80)] // 1 + 2⁻⁸, a tie: down to even
    [InlineData(1.01171875f, 0x3F82)] // 1 + 3·2⁻⁸: up to even
    [InlineData(1.0039064f, 0x3F81)]
    [InlineData(3.3961775e38f, 0x7F80)] // half-way to the number that would follow the largest
    [InlineData(3.3961773e38f, 0x7F7F)]
    [InlineData(-1e-45f, 0x8000)]
    public void Rounds_to_nearest_even(float x, ushort bits) => Assert.Equal(bits, ((BFloat16)x).Bits);

    [Fact]
    public void Equality_is_that_of_Half()
    {
        BFloat16 zero = BFloat16.FromBits(0), minusZero = BFloat16.FromBits(0x8000);
        Assert.True(zero == minusZero);
        Assert.Equal(zero, minusZero);
        Assert.Equal(zero.GetHashCode(), minusZero.GetHashCode());
        Assert.True(NaN != BFloat16.FromBits(0x7FFF));
        Assert.Equal(NaN, BFloat16.FromBits(0x7FFF));
        Assert.Equal(NaN.GetHashCode(), BFloat16.FromBits(0x7FFF).GetHashCode());
        Assert.False(zero.Equals("0"));
        Assert.NotEqual(zero, (BFloat16)1f);
    }

    [Fact]
    public void Prints_invariantly() => Assert.Equal("-1.5", ((BFloat16)(-1.5f)).ToString());
}
