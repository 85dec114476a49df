using Xunit;
using Bits = GpuKit.Ilgpu.Kernels.Isa.Bits;

namespace GpuKit.Ilgpu.Tests.Kernels.Isa;

public sealed class BitsTests
{
    [Fact]
    public void Prmt_picks_bytes_and_replicates_signs()
    {
        var random = new Random(3);
        for (int i = 0; i < 20_000; i++)
        {
            uint a = (uint)random.NextInt64(1L << 32), b = (uint)random.NextInt64(1L << 32), selector = (uint)random.NextInt64(1L << 32);
            byte[] source = [.. BitConverter.GetBytes(a), .. BitConverter.GetBytes(b)];
            var picked = new byte[4];
            for (int at = 0; at < 4; at++)
            {
                int nibble = (int)(selector / (1u << (4 * at)) % 16);
                picked[at] = nibble < 8 ? source[nibble] : (byte)((sbyte)source[nibble - 8] < 0 ? 255 : 0);
            }

            Assert.Equal(BitConverter.ToUInt32(picked), Bits.Prmt(a, b, selector));
        }
    }

    [Theory]
    [InlineData(0x44332211u, 0x88776655u, 0x3210u, 0x44332211u)]
    [InlineData(0x44332211u, 0x88776655u, 0x7654u, 0x88776655u)]
    [InlineData(0x44332211u, 0x88776655u, 0x0123u, 0x11223344u)]
    [InlineData(0x44332211u, 0x88776655u, 0xFC70u, 0xFF008811u)]
    [InlineData(0x44332281u, 0u, 0x9998u, 0x000000FFu)]
    public void Prmt_literal(uint a, uint b, uint selector, uint expected) => Assert.Equal(expected, Bits.Prmt(a, b, selector));

    [Fact]
    public void Lop3_is_its_table()
    {
        var random = new Random(4);
        for (int lut = 0; lut < 256; lut++)
        {
            Assert.Equal((uint)lut, Bits.Lop3(0xF0, 0xCC, 0xAA, lut) & 0xFF);
            uint a = (uint)random.NextInt64(1L << 32), b = (uint)random.NextInt64(1L << 32), c = (uint)random.NextInt64(1L << 32);
            uint result = Bits.Lop3(a, b, c, lut);
            for (int bit = 0; bit < 32; bit++)
            {
                int row = (int)((a >> bit & 1) * 4 + (b >> bit & 1) * 2 + (c >> bit & 1));
                Assert.Equal((uint)(lut >> row & 1), result >> bit & 1);
            }
        }

        Assert.Equal((0x12345678u & 0x0F0F0F0Fu) | 0x80000001u, Bits.Lop3(0x12345678, 0x0F0F0F0F, 0x80000001, 0xEA));
    }

    [Theory]
    [InlineData(0u, 0, 32)]
    [InlineData(1u, 1, 31)]
    [InlineData(0x80000000u, 1, 0)]
    [InlineData(0x00F0F0F0u, 12, 8)]
    [InlineData(uint.MaxValue, 32, 0)]
    public void Counts(uint x, int ones, int leadingZeros)
    {
        Assert.Equal(ones, Bits.PopCount(x));
        Assert.Equal(leadingZeros, Bits.LeadingZeros(x));
    }
}
