using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Tests.Kernels.Isa;

/// <summary>What the copy engine is told, as far as the host can check it.</summary>
public sealed class TensorMapTests
{
    [Theory]
    [InlineData(1, 16, true)]
    [InlineData(1, 8, false)]
    [InlineData(1, -16, true)]
    [InlineData(2, 8, true)]
    [InlineData(2, 4, false)]
    [InlineData(4, 4, true)]
    [InlineData(4, 2, false)]
    [InlineData(4, 0x40000000, true)]
    public void A_tile_begins_at_a_whole_word(int elementBytes, int column, bool expected) =>
        Assert.Equal(expected, new TensorMapFields(0, elementBytes, 1L << 31, 32, 1L << 33, 16 / elementBytes, 32).CanBegin(column));
}
