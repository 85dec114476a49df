using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Shared memory that blocks of few rows ask for beyond what they use.</summary>
public sealed class SkinnyRoomTests
{
    private const int MultiprocessorBytes = 233_472, Reserved = 1024;

    private static readonly LinearDevice H200 = new(true, 90, 32, 1024, 132, 232_448), A100 = new(true, 80, 32, 1024, 108, 166_912), B200 = new(true, 100, 32, 1024, 148, 232_448);

    [Theory]
    // A block of 16 warps on each multiprocessor at most: 164 KB, less the driver's.
    [InlineData(1, 4096, 4096, WeightFormat.Fp8Block, null, 166_912)]
    [InlineData(16, 4096, 14336, WeightFormat.Fp8Block, null, 166_912)]
    [InlineData(8, 4096, 4096, WeightFormat.Fp8Block, ActivationFormat.Fp8Group128, 166_912)]
    [InlineData(16, 4096, 4096, WeightFormat.Fp8Block, ActivationFormat.Fp8Group128, 199_680)]
    [InlineData(8, 4096, 4096, WeightFormat.Fp8TwoTerm, null, 166_912)]
    [InlineData(9, 4096, 4096, WeightFormat.Fp8TwoTerm, null, 0)]
    [InlineData(1, 4096, 4096, WeightFormat.Bf16, null, 134_144)]
    [InlineData(16, 4096, 4096, WeightFormat.Bf16, null, 134_144)]
    // 132 blocks, and 133.
    [InlineData(1, 4096, 4096, WeightFormat.Int4, null, 166_912)]
    [InlineData(1, 4256, 4096, WeightFormat.Fp8Block, null, 0)]
    // Half of the multiprocessors or fewer, whatever the warps; one more of eight warps.
    [InlineData(8, 2048, 768, WeightFormat.Int4, null, 166_912)]
    [InlineData(16, 2112, 2048, WeightFormat.Bf16, null, 166_912)]
    [InlineData(1, 2144, 1024, WeightFormat.Int4, null, 0)]
    // Rows of x in two blocks.
    [InlineData(16, 1056, 4096, WeightFormat.Fp8Block, ActivationFormat.Fp8Group32, 166_912)]
    [InlineData(16, 2112, 4096, WeightFormat.Fp8Block, ActivationFormat.Fp8Group32, 166_912)]
    [InlineData(16, 2144, 4096, WeightFormat.Fp8Block, ActivationFormat.Fp8Group32, 0)]
    // Two blocks of eight warps: codes of four bits by up to eight rows.
    [InlineData(1, 8192, 2048, WeightFormat.Int4, null, 66_560)]
    [InlineData(8, 8192, 2048, WeightFormat.Nvfp4, null, 66_560)]
    [InlineData(9, 8192, 2048, WeightFormat.Nvfp4, null, 0)]
    [InlineData(1, 8192, 2048, WeightFormat.Fp8Block, null, 0)]
    [InlineData(1, 14336, 4096, WeightFormat.Int4, null, 0)]
    // Blocks that arrange x run beside each other.
    [InlineData(16, 4096, 14336, WeightFormat.Int4, null, 0)]
    internal void IsThatOfTheShape(int m, int n, int k, WeightFormat format, ActivationFormat? activations, int expected)
    {
        LinearPlan plan = Plan(new LinearShape(m, n, k, format, true, 0, BlockOf(format, activations), activations), H200);
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
    public void WhatIsAskedForHoldsWhatIsUsedAndTakesNoBlockFromAMultiprocessorThatNeedsIt()
    {
        (WeightFormat, ActivationFormat?)[] products =
        [
            (WeightFormat.Bf16, null), (WeightFormat.Fp8Block, null), (WeightFormat.Fp8TwoTerm, null), (WeightFormat.Nvfp4, null), (WeightFormat.Int4, null), (WeightFormat.Int4Zero, null),
            (WeightFormat.Fp8Block, ActivationFormat.Fp8Group128), (WeightFormat.Fp8Block, ActivationFormat.Fp8Group32), (WeightFormat.Nvfp4, ActivationFormat.Nvfp4), (WeightFormat.Int4, ActivationFormat.Int4),
        ];
        int withRoom = 0;
        foreach ((WeightFormat format, ActivationFormat? activations) in products)
        {
            foreach (int m in new[] { 1, 4, 5, 8, 9, 16 })
            {
                foreach (int k in new[] { 128, 768, 1024, 2048, 3072, 4096, 29568 })
                {
                    for (int n = 8; n <= 16384; n += 40)
                    {
                        var shape = new LinearShape(m, n, k, format, true, 0, BlockOf(format, activations), activations);
                        LinearPlan plan = Plan(shape, H200);
                        if (plan.Path != LinearPath.SkinnyGemm || plan.SharedBytes == 0)
                            continue;
                        withRoom++;
                        (int, int, int) size = (m, k, shape.Block.ColumnBlocks(k));
                        int used = SkinnyLinear.SharedBytes(format, activations, size, plan with { SharedBytes = 0 }), asked = SkinnyLinear.SharedBytes(format, activations, size, plan);
                        Assert.Equal(Math.Max(used, plan.SharedBytes), asked);
                        int blocks = plan.GridX * SkinnyKernels.RowParts(activations, m), wanted = (blocks + H200.Multiprocessors - 1) / H200.Multiprocessors;
                        int fitted = Math.Min(32 * SkinnyGemm.MostWarps / plan.Threads, MultiprocessorBytes / (used + Reserved));
                        Assert.InRange(asked, used, H200.SharedBytes);
                        Assert.True(MultiprocessorBytes / (asked + Reserved) >= Math.Min(fitted, wanted), $"{shape}: {plan}");
                        Assert.InRange(Plan(shape, H200 with { SharedBytes = 101_376 }).SharedBytes, 0, 101_376);
                    }
                }
            }
        }
        Assert.True(withRoom > 10_000, $"{withRoom} shapes have room.");
    }

    private static ScaleBlock BlockOf(WeightFormat format, ActivationFormat? activations) => activations == ActivationFormat.Fp8Group32 ? new ScaleBlock(32, 32) : format == WeightFormat.Fp8Block ? ScaleBlock.Square128 : default;

    private static LinearPlan Plan(in LinearShape shape, in LinearDevice device) => shape.Activations is null ? LinearPlan.Choose(shape, device) : LinearPlan.ChooseAccurate(shape, device);
}
