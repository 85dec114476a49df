using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Kernels.Isa;

public sealed class LdMatrixTests(CpuWarp warp) : IClassFixture<CpuWarp>
{
    /// <summary>Input: matrices, transposed; shared memory holds its own index, so results show where they came from.</summary>
    internal static void Load(ArrayView<uint> input, ArrayView<uint> output)
    {
        ArrayView<ushort> shared = SharedMemory.Allocate<U4>(64).Cast<ushort>();
        int lane = Group.IdxX;
        for (int i = lane; i < 512; i += 32)
            shared[i] = (ushort)i;
        Group.Barrier();

        // Rows stand 16 elements apart, in the order 5·lane. Lanes whose address is ignored give a misaligned one.
        int matrices = (int)input[0], row = 5 * lane % 32;
        ref ushort address = ref shared[row * 16 + (lane < 8 * matrices ? 0 : 1)];
        U4 r = default;
        U2 pair = default;
        switch ((int)(2 * input[0] + input[1]))
        {
            case 2:
                r.X = LdMatrix.X1(ref address);
                break;
            case 3:
                r.X = LdMatrix.X1Trans(ref address);
                break;
            case 4:
                pair = LdMatrix.X2(ref address);
                break;
            case 5:
                pair = LdMatrix.X2Trans(ref address);
                break;
            case 8:
                r = LdMatrix.X4(ref address);
                break;
            case 9:
                r = LdMatrix.X4Trans(ref address);
                break;
        }

        output[lane * 4] = r.X | pair.X;
        output[lane * 4 + 1] = r.Y | pair.Y;
        output[lane * 4 + 2] = r.Z;
        output[lane * 4 + 3] = r.W;
    }

    [Theory]
    [InlineData(1, false)]
    [InlineData(1, true)]
    [InlineData(2, false)]
    [InlineData(2, true)]
    [InlineData(4, false)]
    [InlineData(4, true)]
    public void Every_variant(int matrices, bool transposed)
    {
        uint[] output = warp.Launch(Load, [(uint)matrices, transposed ? 1u : 0], 128);
        for (int lane = 0; lane < 32; lane++)
        {
            for (int m = 0; m < 4; m++)
            {
                uint expected = m >= matrices ? 0
                    : transposed ? Pair(Element(m, lane % 4 * 2, lane / 4), Element(m, lane % 4 * 2 + 1, lane / 4))
                    : Pair(Element(m, lane / 4, lane % 4 * 2), Element(m, lane / 4, lane % 4 * 2 + 1));
                Assert.Equal(expected, output[lane * 4 + m]);
            }
        }
    }

    private static uint Element(int matrix, int row, int column) => (uint)(5 * (matrix * 8 + row) % 32 * 16 + column);

    private static uint Pair(uint low, uint high) => low | high << 16;
}
