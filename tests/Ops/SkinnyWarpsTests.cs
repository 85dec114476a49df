using GpuKit.Ilgpu.Kernels;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Warps of blocks of few rows, and the memory of those that have a multiprocessor to themselves.</summary>
public sealed class SkinnyWarpsTests
{
    private static readonly LinearDevice H200 = new(true, 90, 32, 1024, 132, 232_448), A100 = new(true, 80, 32, 1024, 108, 166_912), Small = new(true, 90, 32, 128, 132, 232_448);

    [Theory]
    // 2,048 warps in all, as near as doubling comes; at least two of four bits, else four; at most sixteen a block.
    [InlineData(4096, 4096, WeightFormat.Fp8Block, null, 16)]
    [InlineData(8192, 2048, WeightFormat.Fp8Block, null, 8)]
    [InlineData(151_936, 2048, WeightFormat.Fp8Block, null, 4)]
    [InlineData(151_936, 2048, WeightFormat.Int4, null, 2)]
    // A chunk each where multipliers lie beside codes.
    [InlineData(2048, 768, WeightFormat.Int4, null, 6)]
    [InlineData(2048, 768, WeightFormat.Int4, ActivationFormat.Int4, 16)]
    // On either side of the columns and blocks for which eight are enough.
    [InlineData(4096, 1920, WeightFormat.Int4, null, 15)]
    [InlineData(4096, 3200, WeightFormat.Int4, null, 16)]
    [InlineData(4096, 2016, WeightFormat.Bf16, null, 16)]
    [InlineData(4096, 3104, WeightFormat.Bf16, null, 16)]
    [InlineData(3168, 2048, WeightFormat.Bf16, null, 16)]
    [InlineData(4096, 2944, WeightFormat.Nvfp4, ActivationFormat.Nvfp4, 16)]
    [InlineData(4096, 4224, WeightFormat.Nvfp4, ActivationFormat.Nvfp4, 16)]
    [InlineData(4096, 896, WeightFormat.Int4, ActivationFormat.Int4, 16)]
    [InlineData(4096, 2176, WeightFormat.Int4, ActivationFormat.Int4, 16)]
    [InlineData(2112, 2048, WeightFormat.Int4, null, 16)]
    // One block more than there are multiprocessors, whose warps the first rule halves.
    [InlineData(4256, 2048, WeightFormat.Int4, null, 8)]
    [InlineData(4096, 2048, WeightFormat.Fp8Block, null, 16)]
    [InlineData(4096, 2048, WeightFormat.Fp8TwoTerm, null, 16)]
    internal void AreThoseOfTheShape(int n, int k, WeightFormat format, ActivationFormat? activations, int expected) => Check(n, k, format, activations, expected, leavesHalf: false);

    [Theory]
    [InlineData(2144, 2048, WeightFormat.Int4, null)]
    [InlineData(4096, 3072, WeightFormat.Nvfp4, null)]
    [InlineData(3072, 2048, WeightFormat.Int4Zero, null)]
    [InlineData(4224, 2048, WeightFormat.Int4, null)]
    [InlineData(3200, 2048, WeightFormat.Bf16, null)]
    [InlineData(4096, 3072, WeightFormat.Bf16, null)]
    [InlineData(4096, 3072, WeightFormat.Nvfp4, ActivationFormat.Nvfp4)]
    [InlineData(4096, 4096, WeightFormat.Nvfp4, ActivationFormat.Nvfp4)]
    [InlineData(4096, 1024, WeightFormat.Int4, ActivationFormat.Int4)]
    [InlineData(4096, 2048, WeightFormat.Int4, ActivationFormat.Int4)]
    internal void AreEightAloneWhereSixteenHaveLittleToDo(int n, int k, WeightFormat format, ActivationFormat? activations) => Check(n, k, format, activations, expected: 8, leavesHalf: true);

    private static void Check(int n, int k, WeightFormat format, ActivationFormat? activations, int expected, bool leavesHalf)
    {
        int tiles = (n + SkinnyGemm.Rows - 1) / SkinnyGemm.Rows;
        foreach (int m in new[] { 1, 8, 9, 16 })
        {
            var shape = new LinearShape(m, n, k, format, true, 0, default, activations);
            Assert.Equal(expected, SkinnyWarps.Of(shape, H200, tiles));
            Assert.Equal(Math.Min(expected, 4), SkinnyWarps.Of(shape, Small, tiles));
            Assert.Equal(leavesHalf, SkinnyWarps.LeavesHalf(shape, H200, tiles));
            Assert.False(SkinnyWarps.LeavesHalf(shape, A100, tiles));
            if (!leavesHalf)
                continue;
            // No other block fits beside it.
            LinearPlan plan = activations is null ? LinearPlan.Choose(shape, H200) : LinearPlan.ChooseAccurate(shape, H200);
            Assert.Equal((LinearPath.SkinnyGemm, 256, 166_912), (plan.Path, plan.Threads, plan.SharedBytes));
        }
    }
}
