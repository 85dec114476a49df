using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Shared memory that blocks of few rows ask for beyond what they use.</summary>
public sealed class SkinnyRoomTests
{
    private const int MultiprocessorBytes = 233_472;

    private static readonly LinearDevice H200 = new(true, 90, 32, 1024, 132, 232_448), A100 = new(true, 80, 32, 1024, 108, 166_912), B200 = new(true, 100, 32, 1024, 148, 232_448);

    [Theory]
    // At most one block a multiprocessor: 164 KB, less the driver's.
    [InlineData(1, 4096, 4096, WeightFormat.Fp8Block, null, 166_912)]
    [InlineData(16, 4096, 14336, WeightFormat.Fp8Block, null, 166_912)]
    [InlineData(8, 2048, 768, WeightFormat.Int4, null, 166_912)]
    [InlineData(16, 4096, 4096, WeightFormat.Fp8Block, ActivationFormat.Fp8Group128, 199_680)]
    [InlineData(8, 4096, 4096, WeightFormat.Fp8Block, ActivationFormat.Fp8Group128, 166_912)]
    // BF16: where half of the multiprocessors or fewer have one.
    [InlineData(1, 2048, 2048, WeightFormat.Bf16, null, 166_912)]
    [InlineData(1, 4096, 4096, WeightFormat.Bf16, null, 134_144)]
    // Up to two blocks: codes of four bits by up to eight rows.
    [InlineData(1, 8192, 2048, WeightFormat.Int4, null, 66_560)]
    [InlineData(8, 8192, 2048, WeightFormat.Nvfp4, null, 66_560)]
    [InlineData(9, 8192, 2048, WeightFormat.Nvfp4, null, 0)]
    [InlineData(1, 8192, 2048, WeightFormat.Fp8Block, null, 0)]
    [InlineData(1, 14336, 4096, WeightFormat.Int4, null, 0)]
    // Blocks that arrange x run beside each other.
    [InlineData(16, 4096, 14336, WeightFormat.Int4, null, 0)]
    internal void IsThatOfTheShape(int m, int n, int k, WeightFormat format, ActivationFormat? activations, int expected)
    {
        LinearPlan plan = Plan(new LinearShape(m, n, k, format, true, 0, default, activations), H200);
        Assert.Equal(LinearPath.SkinnyGemm, plan.Path);
        Assert.Equal(expected, plan.SharedBytes);
    }

    [Fact]
    public void NobodyElseHasIt()
    {
        var shape = new LinearShape(1, 4096, 4096, WeightFormat.Fp8Block, true, 0);
        Assert.Equal(0, LinearPlan.Choose(shape, A100).SharedBytes);
        Assert.Equal(0, LinearPlan.Choose(shape, B200).SharedBytes);
        Assert.Equal(0, LinearPlan.Choose(shape with { Aligned = false }, H200).SharedBytes);
    }

    [Fact]
    public void AllBlocksStillRunAtOnceAndNoMoreThanADeviceHasIsAskedFor()
    {
        foreach (WeightFormat format in new[] { WeightFormat.Bf16, WeightFormat.Fp8Block, WeightFormat.Nvfp4, WeightFormat.Int4 })
        {
            for (int n = 8; n <= 16384; n += 8)
            {
                foreach (int k in new[] { 128, 768, 4096, 29568 })
                {
                    LinearPlan plan = LinearPlan.Choose(new LinearShape(1, n, k, format, true, 0), H200);
                    if (plan.SharedBytes == 0)
                        continue;
                    int together = (plan.GridX + H200.Multiprocessors - 1) / H200.Multiprocessors;
                    Assert.True(together * plan.Threads <= 32 * SkinnyGemm.MostWarps && together * (plan.SharedBytes + 1024) <= MultiprocessorBytes, plan.ToString());
                    Assert.InRange(plan.SharedBytes, SkinnyGemm.SharedBytes(plan.Threads / 32, 1), H200.SharedBytes);
                    Assert.InRange(LinearPlan.Choose(new LinearShape(1, n, k, format, true, 0), H200 with { SharedBytes = 49_152 }).SharedBytes, 0, 49_152);
                }
            }
        }
    }

    private static LinearPlan Plan(in LinearShape shape, in LinearDevice device) => shape.Activations is null ? LinearPlan.Choose(shape, device) : LinearPlan.ChooseAccurate(shape, device);
}
