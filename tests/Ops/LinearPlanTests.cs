using GpuKit.Ilgpu.Runtime;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>The plan is a pure function; these are its decisions, on devices that need not be here.</summary>
public sealed class LinearPlanTests
{
    private static readonly LinearDevice H200 = new(true, 90, 32, 1024, 132, 232_448), A100 = new(true, 80, 32, 1024, 108, 166_912), Rtx4090 = new(true, 89, 32, 1024, 128, 101_376),
        Rtx5090 = new(true, 120, 32, 1024, 170, 101_376), B200 = new(true, 100, 32, 1024, 148, 232_448), Cpu = new(false, 0, 2, 2, 8, 49_152);

    [Theory]
    // Few rows stream through tensor cores: 32 rows of W a block, warps by the number of blocks.
    [InlineData("H200", 1, 768, 2048, WeightFormat.Fp8Block, true, 0, "SkinnyGemm Hardware 24×1 of 512")]
    [InlineData("H200", 1, 768, 2048, WeightFormat.Bf16, true, 0, "SkinnyGemm Table 24×1 of 512")]
    [InlineData("H200", 16, 4096, 4096, WeightFormat.Fp8Block, true, 0, "SkinnyGemm Hardware 128×1 of 512")]
    [InlineData("H200", 1, 14336, 4096, WeightFormat.Fp8Block, true, 0, "SkinnyGemm Hardware 448×1 of 128")]
    [InlineData("H200", 8, 151936, 2048, WeightFormat.Bf16, true, 0, "SkinnyGemm Table 4748×1 of 128")]
    [InlineData("H200", 1, 29568, 8192, WeightFormat.Fp8Block, true, 0, "SkinnyGemm Hardware 924×1 of 128")]
    // What cannot be read in 16-byte words runs as dot products, then in tiles.
    [InlineData("H200", 1, 100, 77, WeightFormat.Fp8Block, false, 0, "Gemv Hardware 13×1 of 256 by elements")]
    [InlineData("H200", 16, 100, 77, WeightFormat.Bf16, false, 0, "Gemv Table 200×1 of 256 by elements")]
    [InlineData("H200", 17, 100, 77, WeightFormat.Bf16, false, 0, "GemmUnaligned Table 2×1 of 128 by elements")]
    // Up to 64 rows K is split until the multiprocessors have work, except in two terms: tiles as high as the rows need. Above 64, what leaves the busiest multiprocessor least work.
    [InlineData("H200", 17, 5120, 2048, WeightFormat.Bf16, true, 0, "SplitGemm Table 80×1 of 384")]
    [InlineData("H200", 64, 14336, 4096, WeightFormat.Fp8Block, true, 0, "SplitGemm BitMove 112×1 of 384")]
    [InlineData("H200", 64, 4096, 14336, WeightFormat.Fp8Block, true, 0, "SplitGemm BitMove 64×2 of 384")]
    [InlineData("H200", 32, 8192, 8192, WeightFormat.Int4, true, 0, "SplitGemm Table 128×1 of 512")]
    [InlineData("H200", 32, 5120, 2048, WeightFormat.Fp8Block, true, 0, "SplitGemm BitMove 80×1 of 512")]
    [InlineData("H200", 64, 2048, 2048, WeightFormat.Nvfp4, true, 0, "SplitGemm Table 32×4 of 384")]
    [InlineData("H200", 64, 8192, 29568, WeightFormat.Int4, true, 0, "SplitGemm Table 128×1 of 384")]
    [InlineData("H200", 33, 151936, 2048, WeightFormat.Nvfp4, true, 0, "SplitGemm Table 1187×1 of 384")]
    [InlineData("A100", 32, 4096, 4096, WeightFormat.Int4Zero, true, 0, "SplitGemm Table 64×1 of 512")]
    [InlineData("RTX 4090", 64, 4096, 14336, WeightFormat.Fp8Block, true, 0, "SplitGemm BitMove 32×4 of 256")]
    [InlineData("H200", 64, 14336, 4096, WeightFormat.Fp8TwoTerm, true, 0, "Gemm BitMove 112×1 of 128 in M64N128K64")]
    // Up to 256 rows, 64 a tile: where there are few tiles of 128 × 128, or a quarter of them would be empty.
    [InlineData("H200", 65, 14336, 4096, WeightFormat.Int4, true, 0, "SplitGemm Table 224×1 of 384")]
    [InlineData("H200", 128, 4096, 14336, WeightFormat.Nvfp4, true, 0, "SplitGemm Table 128×1 of 384")]
    [InlineData("H200", 128, 5120, 2048, WeightFormat.Int4Zero, true, 0, "SplitGemm Table 80×1 of 384")]
    [InlineData("H200", 128, 2048, 768, WeightFormat.Int4, true, 0, "SplitGemm Table 64×1 of 384")]
    [InlineData("H200", 129, 8192, 8192, WeightFormat.Int4, true, 0, "SplitGemm Table 384×1 of 384")]
    [InlineData("H200", 257, 8192, 8192, WeightFormat.Int4, true, 0, "Gemm Table 192×1 of 128 in M128N128K64")]
    [InlineData("H200", 128, 8192, 8192, WeightFormat.Fp8Block, true, 0, "SplitGemm BitMove 128×1 of 384")]
    [InlineData("H200", 192, 14336, 4096, WeightFormat.Int4, true, 0, "SplitGemm Table 336×1 of 384")]
    [InlineData("H200", 192, 151936, 2048, WeightFormat.Int4, true, 0, "Gemm Table 2374×1 of 128 in M128N128K64")]
    [InlineData("H200", 256, 14336, 4096, WeightFormat.Int4, true, 0, "Gemm Table 224×1 of 128 in M128N128K64")]
    [InlineData("H200", 256, 8192, 8192, WeightFormat.Nvfp4, true, 0, "SplitGemm Table 256×1 of 384")]
    [InlineData("H200", 128, 4096, 14336, WeightFormat.Bf16, true, 0, "SplitGemm Table 128×1 of 256")]
    [InlineData("H200", 128, 14336, 4096, WeightFormat.Bf16, true, 0, "Gemm Table 112×1 of 128 in M128N128K64")]
    [InlineData("H200", 256, 14336, 4096, WeightFormat.Bf16, true, 0, "Gemm Table 112×1 of 256 in M256N128K64")]
    // The last tiles, 52 of 448 and 56 of 320, in halves; 28 of 160 would be no faster so.
    [InlineData("H200", 1024, 14336, 4096, WeightFormat.Bf16, true, 0, "Gemm Table 500×1 of 256 in M256N128K64")]
    [InlineData("H200", 2048, 5120, 2048, WeightFormat.Bf16, true, 0, "Gemm Table 376×1 of 256 in M256N128K64")]
    [InlineData("H200", 1024, 5120, 2048, WeightFormat.Bf16, true, 0, "Gemm Table 320×1 of 128 in M128N128K64")]
    [InlineData("H200", 2048, 14336, 4096, WeightFormat.Fp8Block, true, 0, "Gemm BitMove 1792×1 of 128 in M128N128K64")]
    [InlineData("H200", 8192, 5120, 2048, WeightFormat.Fp8Block, true, 0, "Gemm BitMove 2560×1 of 128 in M128N128K64")]
    // A card with 99 KB of shared memory a block has the tiles that need no more.
    [InlineData("RTX 4090", 8192, 5120, 2048, WeightFormat.Bf16, true, 0, "Gemm Table 2560×1 of 128 in M128N128K64")]
    [InlineData("H200", 1, 4096, 4096, WeightFormat.Nvfp4, true, 0, "SkinnyGemm Table 128×1 of 512")]
    [InlineData("H200", 16, 29568, 8192, WeightFormat.Int4, true, 0, "SkinnyGemm Table 924×1 of 64")]
    [InlineData("H200", 1, 4096, 4096, WeightFormat.Nvfp4, false, 0, "Gemv Table 512×1 of 256 by elements")]
    [InlineData("H200", 1, 4096, 4096, WeightFormat.Int4Zero, true, 0, "SkinnyGemm Table 128×1 of 512")]
    // Two terms stream, and are decoded as FP8 is in tiles.
    [InlineData("H200", 1, 4096, 4096, WeightFormat.Fp8TwoTerm, true, 0, "SkinnyGemm Hardware 128×1 of 512")]
    [InlineData("A100", 16, 4096, 4096, WeightFormat.Fp8TwoTerm, true, 0, "SkinnyGemm BitMove 128×1 of 512")]
    [InlineData("A100", 17, 4096, 4096, WeightFormat.Fp8TwoTerm, true, 0, "Gemm BitMove 64×1 of 128 in M32N64K128")]
    // Experts: dot products until each has 17 rows on average, then tiles and a partial one an expert.
    [InlineData("H200", 8, 1536, 2048, WeightFormat.Fp8Block, true, 128, "Gemv Hardware 1536×1 of 256")]
    [InlineData("H200", 4096, 1536, 2048, WeightFormat.Fp8Block, true, 128, "Gemm BitMove 2304×1 of 128 in M64N128K64")]
    [InlineData("A100", 100, 64, 64, WeightFormat.Fp8TwoTerm, true, 0, "Gemm BitMove 2×1 of 128 in M64N64K64")]
    [InlineData("Cpu", 100, 64, 64, WeightFormat.Fp8Block, true, 0, "Scalar Table 8×1 of 2")]
    [InlineData("Cpu", 1, 3, 64, WeightFormat.Bf16, true, 0, "Scalar Table 2×1 of 2")]
    public void Chooses(string device, int m, int n, int k, WeightFormat format, bool aligned, int experts, string expected)
    {
        LinearDevice limits = device switch { "H200" => H200, "A100" => A100, "RTX 4090" => Rtx4090, _ => Cpu };
        LinearPlan plan = LinearPlan.Choose(new LinearShape(m, n, k, format, aligned, experts), limits);
        Assert.Equal(expected, $"{plan.Path} {plan.Decoding} {plan.GridX}×{plan.GridY} of {plan.Threads}{(plan.Vectorised ? "" : " by elements")}{(plan.Tile is { } tile ? $" in {tile}" : "")}");
    }

    [Fact]
    public void HopperTakesFewRowsOfLargeMatricesOfFourBitsThroughItsCopyEngine()
    {
        var head = new LinearShape(1, 151936, 2048, WeightFormat.Int4, true, 0, ScaleBlock.Group128);
        Assert.True(HopperSkinnyPlan.IsChosen(head, H200));
        Assert.Equal(132, HopperSkinnyPlan.Blocks(head.N, H200));
        Assert.True(HopperSkinnyPlan.IsChosen(head with { M = 16 }, H200));
        Assert.True(HopperSkinnyPlan.IsChosen(head with { Format = WeightFormat.Nvfp4 }, H200));
        Assert.True(HopperSkinnyPlan.IsChosen(head with { Format = WeightFormat.Nvfp4, Activations = ActivationFormat.Nvfp4 }, H200));
        foreach (LinearShape other in new[]
        {
            head with { M = 17 }, head with { N = 65536 }, head with { K = 8192 }, head with { K = 2064 }, head with { Format = WeightFormat.Nvfp4, K = 2080 }, head with { Aligned = false }, head with { Experts = 8 },
            head with { Format = WeightFormat.Fp8Block, Block = new ScaleBlock(128, 128) }, head with { Block = new ScaleBlock(1, 64) }, head with { Activations = ActivationFormat.Int4 },
        })
            Assert.False(HopperSkinnyPlan.IsChosen(other, H200), other.ToString());
        Assert.False(HopperSkinnyPlan.IsChosen(head, A100));
        Assert.False(HopperSkinnyPlan.IsChosen(head, Cpu));
    }

    [Fact]
    public void HopperTakesFewRowsOfFp8InGroupsOf32ThroughItsCopyEngine()
    {
        var shape = new LinearShape(1, 4096, 4096, WeightFormat.Fp8Block, true, 0, new ScaleBlock(32, 32), ActivationFormat.Fp8Group32);
        foreach (int m in new[] { 1, 8, 16 })
        {
            Assert.True(HopperFp8SkinnyPlan.IsChosen(shape with { M = m }, H200));
            Assert.Equal((128, 16), (HopperFp8SkinnyPlan.Blocks(shape.N), HopperFp8SkinnyPlan.Warps(shape with { M = m }, H200)));
        }
        Assert.Equal(4, HopperFp8SkinnyPlan.Warps(shape with { N = 29568, K = 8192 }, H200));
        // One chunk early where blocks fill the card once: 128 of 132 and 256 of 264, not 160 of 264, 448 of 528 or 924.
        foreach ((int n, int k, int chunks) in new[] { (4096, 4096, 1), (4096, 14336, 1), (8192, 8192, 1), (5120, 2048, 2), (14336, 4096, 2), (29568, 8192, 2) })
            Assert.Equal(chunks, HopperFp8SkinnyPlan.EarlyChunks(shape with { N = n, K = k }, H200));
        Assert.True(HopperFp8SkinnyPlan.IsChosen(shape with { Block = new ScaleBlock(128, 32) }, H200));
        foreach (LinearShape other in new[]
        {
            shape with { M = 17 }, shape with { M = 0 }, shape with { N = 1024 }, shape with { K = 4160 }, shape with { Aligned = false }, shape with { Experts = 8 }, shape with { Block = new ScaleBlock(128, 128) },
            shape with { Block = new ScaleBlock(16, 32) }, shape with { Activations = ActivationFormat.Fp8Group128 }, shape with { Activations = null },
        })
            Assert.False(HopperFp8SkinnyPlan.IsChosen(other, H200), other.ToString());
        Assert.False(HopperFp8SkinnyPlan.IsChosen(shape, A100));
        Assert.False(HopperFp8SkinnyPlan.IsChosen(shape, Cpu));
    }

    [Theory]
    // A Hopper card multiplies BF16, and FP8 by FP8, in the tiles that leave its busiest multiprocessor least to do.
    [InlineData("H200", 64, 14336, 4096, false, "Bf16N64 1×112 by 112")]
    [InlineData("H200", 128, 4096, 14336, false, "Bf16N64 2×32 by 64")]
    [InlineData("H200", 256, 8192, 8192, false, "Bf16N128 2×64 by 128")]
    [InlineData("H200", 256, 5120, 2048, false, "Bf16N80 4×32 by 128")]
    [InlineData("H200", 512, 5120, 2048, false, "Bf16N160 4×32 by 128")]
    [InlineData("H200", 2048, 14336, 4096, false, "Bf16N256 16×56 by 132")]
    [InlineData("H200", 1024, 4096, 14336, false, "Bf16N256 8×16 by 128")]
    [InlineData("H200", 8192, 14336, 4096, false, "Bf16N256 32×56 by 132 in pairs")]
    [InlineData("H200", 128, 14336, 4096, true, "Fp8N128 1×112 by 112")]
    [InlineData("H200", 2048, 14336, 4096, true, "Fp8N192 16×75 by 132")]
    [InlineData("H200", 512, 14336, 4096, true, "Fp8N160 4×90 by 132")]
    [InlineData("A100", 8192, 14336, 4096, false, "")]
    [InlineData("RTX 4090", 8192, 14336, 4096, true, "")]
    public void ChoosesHoppersTiles(string device, int m, int n, int k, bool fp8, string expected)
    {
        LinearDevice limits = device switch { "H200" => H200, "A100" => A100, _ => Rtx4090 };
        LinearShape shape = fp8 ? new(m, n, k, WeightFormat.Fp8Block, true, 0, new ScaleBlock(128, 128), ActivationFormat.Fp8Group128) : new(m, n, k, WeightFormat.Bf16, true, 0);
        HopperPlan? plan = HopperPlan.Choose(shape, limits);
        Assert.Equal(expected, plan is { } p ? $"{p.Kind} {p.RowTiles}×{p.ColumnTiles} by {p.Blocks}{(p.Clusters ? " in pairs" : "")}" : "");
        Assert.Null(HopperPlan.Choose(shape with { Aligned = false }, limits));
        Assert.Null(HopperPlan.Choose(shape with { Experts = 8 }, limits));
        Assert.Null(HopperPlan.Choose(shape with { Format = WeightFormat.Int4 }, limits));
    }

    [Theory]
    [InlineData("H200", 1, 4096, true, "Accurate 512×1 of 256")]
    [InlineData("H200", 33, 100, false, "Accurate 413×1 of 256 by elements")]
    [InlineData("Cpu", 3, 5, true, "AccurateScalar 8×1 of 2")]
    public void ChoosesForAccuracy(string device, int m, int n, bool aligned, string expected)
    {
        foreach (WeightFormat format in WeightFormats.All)
        {
            LinearPlan plan = LinearPlan.ChooseAccurate(new LinearShape(m, n, 128, format, aligned, 0), device == "H200" ? H200 : Cpu);
            Assert.Equal(expected, $"{plan.Path} {plan.GridX}×{plan.GridY} of {plan.Threads}{(plan.Vectorised ? "" : " by elements")}");
        }
    }

    [Theory]
    // FP8 by FP8: codes are multiplied as they are where mma.sync has units for that, else decoded; few rows stream.
    [InlineData("RTX 4090", 16, 14336, 4096, "SkinnyGemm Hardware 448×1 of 128")]
    [InlineData("RTX 4090", 17, 14336, 4096, "Gemm Native 224×1 of 128 in M32N64K128")]
    [InlineData("RTX 4090", 32, 4096, 14336, "Gemm Native 64×1 of 128 in M32N64K128")]
    [InlineData("RTX 4090", 2048, 14336, 4096, "Gemm Native 1792×1 of 256 in M128N128K128")]
    [InlineData("RTX 5090", 2048, 14336, 4096, "Gemm Native 1792×1 of 256 in M128N128K128")]
    [InlineData("A100", 2048, 14336, 4096, "Gemm BitMove 1792×1 of 256 in M128N128K128")]
    [InlineData("A100", 256, 8192, 8192, "Gemm BitMove 256×1 of 128 in M64N128K128")]
    [InlineData("A100", 64, 4096, 14336, "Gemm BitMove 128×1 of 128 in M32N64K128")]
    [InlineData("B200", 2048, 14336, 4096, "Gemm BitMove 1792×1 of 256 in M128N128K128")]
    // What Hopper's own kernels do not take: y in no whole 16-byte words.
    [InlineData("H200", 2048, 14335, 4096, "Gemm BitMove 1792×1 of 256 in M128N128K128")]
    [InlineData("Cpu", 64, 64, 64, "AccurateScalar Hardware 8×1 of 2")]
    public void ChoosesForCodes(string device, int m, int n, int k, string expected)
    {
        LinearDevice limits = device switch { "H200" => H200, "A100" => A100, "RTX 4090" => Rtx4090, "RTX 5090" => Rtx5090, "B200" => B200, _ => Cpu };
        var shape = new LinearShape(m, n, k, WeightFormat.Fp8Block, true, 0, ScaleBlock.Square128, ActivationFormat.Fp8Group128);
        LinearPlan plan = LinearPlan.ChooseAccurate(shape, limits);
        Assert.Equal(expected, $"{plan.Path} {plan.Decoding} {plan.GridX}×{plan.GridY} of {plan.Threads}{(plan.Tile is { } tile ? $" in {tile}" : "")}");
    }

    [Theory]
    // NVFP4 by NVFP4 has tiles on the one architecture whose tensor cores multiply its scales, in whole words of them.
    [InlineData(120, 17, 4096, "Gemm Native 224×1 of 128 in M32N64K256")]
    [InlineData(120, 4096, 4096, "Gemm Native 3584×1 of 256 in M128N128K256")]
    [InlineData(120, 4096, 4128, "Accurate Table")]
    [InlineData(120, 16, 4096, "SkinnyGemm Table")]
    [InlineData(121, 4096, 4096, "Accurate Table")]
    [InlineData(100, 4096, 4096, "Accurate Table")]
    [InlineData(90, 4096, 4096, "Accurate Table")]
    [InlineData(89, 4096, 4096, "Accurate Table")]
    public void ChoosesForNvfp4OnBothSides(int arch, int m, int k, string expected)
    {
        LinearPlan plan = LinearPlan.ChooseAccurate(new LinearShape(m, 14336, k, WeightFormat.Nvfp4, true, 0, default, ActivationFormat.Nvfp4), Rtx5090 with { Arch = arch });
        Assert.Equal(expected, $"{plan.Path} {plan.Decoding}{(plan.Tile is { } tile ? $" {plan.GridX}×{plan.GridY} of {plan.Threads} in {tile}" : "")}");
        Assert.True(plan.SharedBytes <= Rtx5090.SharedBytes);
    }

    [Fact]
    public void CodesAreMultipliedAsTheyAreWhereThereAreUnitsForThatOnly()
    {
        foreach ((int arch, bool native) in new[] { (80, false), (86, false), (87, false), (89, true), (90, false), (100, false), (103, false), (110, false), (120, true), (121, true) })
            foreach (int m in new[] { 17, 64, 100, 4096 })
                foreach ((int n, int k) in new[] { (64, 128), (4096, 14336), (151936, 2048) })
                {
                    var shape = new LinearShape(m, n, k, WeightFormat.Fp8Block, true, 0, ScaleBlock.Square128, ActivationFormat.Fp8Group128);
                    LinearPlan plan = LinearPlan.ChooseAccurate(shape, Rtx4090 with { Arch = arch });
                    Assert.Equal((LinearPath.Gemm, native ? Fp8Decoding.Native : Fp8Decoding.BitMove), (plan.Path, plan.Decoding));
                    Assert.True(CodeKernels.Info(plan.Tile!.Value).Fits(Rtx4090));
                    // A driver that refuses the text of the newer instruction.
                    Assert.Equal(Fp8Decoding.BitMove, LinearPlan.ChooseAccurate(shape, Rtx4090 with { Arch = arch, CudaVersion = 123 }).Decoding);
                    // Narrow blocks, groups of 32 columns and rows that are no whole words run as dot products.
                    Assert.Equal(LinearPath.Accurate, LinearPlan.ChooseAccurate(shape with { Block = new ScaleBlock(128, 64) }, Rtx4090).Path);
                    Assert.Equal(LinearPath.Accurate, LinearPlan.ChooseAccurate(shape with { Block = new ScaleBlock(16, 128) }, Rtx4090).Path);
                    Assert.Equal(LinearPath.Accurate, LinearPlan.ChooseAccurate(shape with { Activations = ActivationFormat.Fp8Group32 }, Rtx4090).Path);
                    Assert.Equal(LinearPath.Accurate, LinearPlan.ChooseAccurate(shape with { Aligned = false }, Rtx4090).Path);
                    Assert.Equal(LinearPath.Accurate, LinearPlan.ChooseAccurate(shape with { Aligned = false }, Rtx4090, LinearPath.Gemm).Path);
                }
    }

    [Theory]
    // 2³⁴ elements are the most that 32 bits count in words of eight.
    [InlineData(1 << 20, 1 << 14, true)]
    [InlineData((1 << 20) + 8, 1 << 14, false)]
    public void TilesTakeAsManyElementsAsTheyCount(int n, int k, bool expected)
    {
        foreach (int m in new[] { 17, 64, 1000 })
        {
            Assert.Equal(expected ? LinearPath.Gemm : LinearPath.GemmUnaligned, LinearPlan.Choose(new LinearShape(m, n, k, WeightFormat.Bf16, true, 0), A100, LinearPath.Gemm).Path);
            Assert.Equal(expected && m <= 64, new LinearShape(m, n, k, WeightFormat.Nvfp4, true, 0).CanSplit);
            var codes = new LinearShape(m, n, k, WeightFormat.Fp8Block, true, 0, ScaleBlock.Square128, ActivationFormat.Fp8Group128);
            Assert.Equal(expected ? LinearPath.Gemm : LinearPath.Accurate, LinearPlan.ChooseAccurate(codes, A100).Path);
            // Rows of x count as well.
            Assert.Equal(expected ? LinearPath.Gemm : LinearPath.Accurate, LinearPlan.ChooseAccurate(codes with { M = n, N = m }, A100).Path);
        }
    }

    [Theory]
    // 65,535 tiles of 64 along N are as many as a grid has.
    [InlineData(4_194_240, true)]
    [InlineData(4_194_241, false)]
    public void KIsSplitOfAsManyOutputsAsAGridHas(int n, bool isSplit)
    {
        foreach (int m in new[] { 17, 64 })
            foreach (LinearDevice device in new[] { H200, A100, Rtx4090 })
                Assert.Equal(isSplit ? LinearPath.SplitGemm : LinearPath.Gemm, LinearPlan.Choose(new LinearShape(m, n, 64, WeightFormat.Int4, true, 0), device).Path);
    }

    // A warp of SplitGemm has 32 rows of W and one multiplier for them.
    [Theory]
    [InlineData(32, true)]
    [InlineData(16, false)]
    [InlineData(1, false)]
    public void NarrowBlocksOfRowsAreNotSplit(int rows, bool isSplit)
    {
        foreach (int m in new[] { 17, 64 })
            Assert.Equal(isSplit ? LinearPath.SplitGemm : LinearPath.Gemm, LinearPlan.Choose(new LinearShape(m, 4096, 4096, WeightFormat.Fp8Block, true, 0, new ScaleBlock(rows, 128)), A100).Path);
        // INT4 has a multiplier a row.
        Assert.Equal(LinearPath.SplitGemm, LinearPlan.Choose(new LinearShape(17, 4096, 4096, WeightFormat.Int4, true, 0, ScaleBlock.Group128), A100).Path);
    }

    [Fact]
    public void TheSkinnyPlanDoesNotLookAtMButForTheOrderOfItsInputsAndForRoom()
    {
        // Neither changes the order of sums.
        foreach ((int n, int k) in new[] { (768, 2048), (2048, 768), (4096, 4096), (151936, 2048), (16, 64), (29568, 8192) })
            foreach (WeightFormat format in WeightFormats.All)
                Assert.Single(Enumerable.Range(1, 16).Select(m => LinearPlan.Choose(new LinearShape(m, n, k, format, true, 0), H200) with { ArrangesInputs = false, SharedBytes = 0 }).Distinct());
    }

    [Theory]
    [InlineData(29568, 8192, true)]
    [InlineData(14336, 4096, true)]
    [InlineData(8192, 8192, true)]
    [InlineData(4096, 14336, true)]
    // Few weights; no whole tiles of rows.
    [InlineData(8192, 4096, false)]
    [InlineData(8200, 8192, false)]
    // Multipliers of so long rows leave room for one block a multiprocessor where two are needed; more warps than run at once.
    [InlineData(8192, 97_664, false)]
    [InlineData(67_616, 4096, false)]
    public void FourAndMoreRowsAreArrangedForLargeMatricesOfFourBits(int n, int k, bool expected)
    {
        foreach (WeightFormat format in WeightFormats.All)
            for (int m = 1; m <= 16; m++)
                Assert.Equal(expected && m >= 4 && format.Info().BitsPerCode == 4, LinearPlan.Choose(new LinearShape(m, n, k, format, true, 0), H200).ArrangesInputs);
        var codes = new LinearShape(16, n, k, WeightFormat.Nvfp4, true, 0, default, ActivationFormat.Nvfp4);
        Assert.Equal(expected, LinearPlan.ChooseAccurate(codes, H200).ArrangesInputs);
        Assert.False(LinearPlan.ChooseAccurate(codes with { M = 3 }, H200).ArrangesInputs);
        Assert.False(LinearPlan.ChooseAccurate(codes with { Format = WeightFormat.Int4, Activations = ActivationFormat.Int4 }, H200).ArrangesInputs);
        // So many warps are too many for 108 multiprocessors, and some for 116.
        Assert.Equal(expected && n is 14336 or 29568, LinearPlan.Choose(new LinearShape(16, n, k, WeightFormat.Int4, true, 0), A100 with { Multiprocessors = 116 }).ArrangesInputs);
        Assert.False(LinearPlan.Choose(new LinearShape(16, n, k, WeightFormat.Int4, true, 0), A100).ArrangesInputs);
    }

    // Warps without one would wait for multipliers at another place of the kernel than the others: synccheck refuses that.
    [Fact]
    public void WhereABlockSharesMultipliersEachWarpHasAWholeChunk()
    {
        foreach ((WeightFormat format, ActivationFormat? activations) in new (WeightFormat, ActivationFormat?)[] { (WeightFormat.Nvfp4, null), (WeightFormat.Int4, null), (WeightFormat.Int4Zero, null), (WeightFormat.Nvfp4, ActivationFormat.Nvfp4) })
            foreach (int k in new[] { 32, 96, 128, 160, 256, 768, 992, 2048, 4096, 8192 })
                foreach (int n in new[] { 1, 72, 2048, 8192 })
                {
                    var shape = new LinearShape(1, n, k, format, true, 0, default, activations);
                    LinearPlan plan = activations is null ? LinearPlan.Choose(shape, H200) : LinearPlan.ChooseAccurate(shape, H200);
                    Assert.Equal(LinearPath.SkinnyGemm, plan.Path);
                    Assert.InRange(plan.Threads / 32, 1, Math.Max(1, k / 128));
                    Assert.Equal(Math.Min(n > 4096 ? 8 : 16, Math.Max(1, k / 128)), plan.Threads / 32);
                }
    }

    // 16 rows fit into a stream's scratch.
    [Theory]
    [InlineData(270_336, true)]
    [InlineData(270_464, false)]
    public void LongerRowsThanTheScratchHoldsAreNotArranged(int k, bool expected) =>
        Assert.Equal(expected, LinearPlan.Choose(new LinearShape(16, 4096, k, WeightFormat.Int4, true, 0, new ScaleBlock(1, 256)), H200).ArrangesInputs);

    // A warp's share of INT4 × INT4 is added in 32 bits: K may be as long as the warps of a block allow.
    [Theory]
    [InlineData(29568, 261_600, true)]
    [InlineData(29568, 262_144, false)]
    [InlineData(8192, 1_046_400, true)]
    [InlineData(8192, 1 << 20, false)]
    [InlineData(4096, 1 << 20, true)]
    public void SumsOfIntegersThatOverflowDoNotStream(int n, int k, bool expected) =>
        Assert.Equal(
            expected ? LinearPath.SkinnyGemm : LinearPath.Accurate,
            LinearPlan.ChooseAccurate(new LinearShape(16, n, k, WeightFormat.Int4, true, 0, new ScaleBlock(1, 1 << 20), ActivationFormat.Int4), H200).Path);

    // Multipliers and zero points of 32 rows lie in shared memory: of longer rows each is a warp's dot product.
    [Theory]
    [InlineData("H200", WeightFormat.Nvfp4, 97_664, 32)]
    [InlineData("H200", WeightFormat.Int4, 195_328, 128)]
    [InlineData("H200", WeightFormat.Int4Zero, 173_824, 128)]
    [InlineData("A100", WeightFormat.Nvfp4, 64_896, 32)]
    [InlineData("RTX 4090", WeightFormat.Nvfp4, 32_128, 32)]
    [InlineData("RTX 4090", WeightFormat.Int4, 64_256, 128)]
    [InlineData("RTX 4090", WeightFormat.Int4Zero, 57_088, 128)]
    public void RowsOfFourBitsStreamWhileTheirMultipliersFitIntoSharedMemory(string device, WeightFormat format, int longest, int step)
    {
        LinearDevice limits = device switch { "H200" => H200, "A100" => A100, _ => Rtx4090 };
        for (int m = 1; m <= 16; m += 15)
        {
            var shape = new LinearShape(m, 4096, longest, format, true, 0, new ScaleBlock(1, 128));
            Assert.Equal(LinearPath.SkinnyGemm, LinearPlan.Choose(shape, limits).Path);
            Assert.Equal(LinearPath.Gemv, LinearPlan.Choose(shape with { K = longest + step }, limits).Path);
        }
    }

    [Theory]
    // FP8 weights on a Hopper card: rows of the tile, blocks × parts of so many steps of 128 columns, teams of a block, stages whose copies come first.
    [InlineData(64, 14336, 4096, "64: 112×1 of 32, 2 teams, 1 early")]
    [InlineData(32, 14336, 4096, "32: 112×1 of 32, 2 teams, 2 early")]
    [InlineData(64, 4096, 14336, "64: 64×2 of 56, 4 teams, 1 early")]
    [InlineData(17, 4096, 14336, "32: 64×2 of 56, 4 teams, 1 early")]
    [InlineData(33, 8192, 8192, "64: 128×1 of 64, 4 teams, 1 early")]
    [InlineData(64, 5120, 2048, "64: 80×1 of 16, 4 teams, 2 early")]
    [InlineData(32, 4096, 4096, "32: 64×2 of 16, 4 teams, 1 early")]
    [InlineData(32, 2048, 2048, "32: 32×4 of 4, 4 teams, 1 early")]
    [InlineData(64, 151936, 2048, "64: 1187×1 of 16, 2 teams, 1 early")]
    [InlineData(64, 64, 128, "64: 1×1 of 1, 4 teams, 2 early")]
    public void SplitsKOnHopper(int m, int n, int k, string expected)
    {
        var shape = new LinearShape(m, n, k, WeightFormat.Fp8Block, true, 0, ScaleBlock.Square128);
        HopperSplitPlan plan = HopperSplitPlan.Choose(shape, H200);
        Assert.Equal(expected, $"{plan.Rows}: {plan.Columns}×{plan.Parts} of {plan.PartSteps}, {plan.Teams} teams, {plan.EarlyStages} early");
        Assert.True(HopperSplitPlan.Exists(shape, H200));
        Assert.False(HopperSplitPlan.Exists(shape, A100));
        Assert.False(HopperSplitPlan.Exists(shape with { M = 16 }, H200));
        Assert.False(HopperSplitPlan.Exists(shape with { M = 129 }, H200));
        Assert.False(HopperSplitPlan.Exists(shape with { Block = new ScaleBlock(128, 64) }, H200));
    }

    [Theory]
    // The same with 65 to 128 rows, in two tiles along M, or not there.
    [InlineData(4096, 14336, "64×2×1 of 112, 4 teams, 1 early")]
    [InlineData(14336, 4096, "no")]
    [InlineData(8192, 8192, "64×2×1 of 64, 2 teams, 1 early")]
    [InlineData(5120, 2048, "40×2×1 of 16, 2 teams, 2 early")]
    [InlineData(4096, 4096, "64×2×1 of 32, 4 teams, 1 early")]
    [InlineData(2048, 2048, "32×2×1 of 16, 4 teams, 2 early")]
    [InlineData(768, 2048, "12×2×4 of 4, 4 teams, 2 early")]
    [InlineData(151936, 2048, "no")]
    public void SplitsKOfUpTo128RowsOnHopper(int n, int k, string expected)
    {
        foreach (int m in new[] { 65, 100, 128 })
        {
            var shape = new LinearShape(m, n, k, WeightFormat.Fp8Block, true, 0, ScaleBlock.Square128);
            HopperSplitPlan plan = HopperSplitPlan.Choose(shape, H200);
            Assert.Equal(expected, HopperSplitPlan.Exists(shape, H200) ? $"{plan.Columns}×{plan.RowTiles}×{plan.Parts} of {plan.PartSteps}, {plan.Teams} teams, {plan.EarlyStages} early" : "no");
        }
    }

    [Theory]
    // FP8 weights and more rows on a Hopper card: rows of a tile, tiles of one block, tiles that two share.
    [InlineData(1024, 4096, 14336, "176: 132 + 60 on 132")]
    [InlineData(2048, 4096, 14336, "176: 384 + 0 on 132")]
    [InlineData(8192, 4096, 14336, "192: 1320 + 56 on 132")]
    [InlineData(1024, 14336, 4096, "160: 784 + 0 on 132")]
    [InlineData(2048, 14336, 4096, "192: 1188 + 44 on 132")]
    [InlineData(1024, 8192, 8192, "176: 384 + 0 on 132")]
    [InlineData(2048, 8192, 8192, "192: 660 + 44 on 132")]
    [InlineData(1024, 5120, 2048, "176: 240 + 0 on 132")]
    [InlineData(2048, 5120, 2048, "160: 520 + 0 on 132")]
    [InlineData(129, 4096, 14336, "64: 96 + 0 on 96")]
    [InlineData(300, 768, 2048, "64: 30 + 0 on 30")]
    public void SharesWhatIsLeftOfTilesOnHopper(int m, int n, int k, string expected)
    {
        HopperMixedPlan plan = HopperMixedPlan.Choose(new LinearShape(m, n, k, WeightFormat.Fp8Block, true, 0, ScaleBlock.Square128), H200);
        Assert.Equal(expected, $"{plan.TileRows}: {plan.WholeTiles} + {plan.SharedTiles} on {plan.Blocks}");
    }

    [Theory]
    // BF16 on a Hopper card: where narrow tiles are taken and are one a multiprocessor at most, with more than 32 rows if sums are long or split.
    [InlineData(32, 4096, 14336, true)]
    [InlineData(64, 4096, 14336, true)]
    [InlineData(65, 4096, 14336, false)]
    [InlineData(64, 4096, 2048, false)]
    [InlineData(64, 2048, 2048, true)]
    [InlineData(64, 8192, 8192, true)]
    [InlineData(32, 5120, 2048, true)]
    [InlineData(33, 5120, 2048, false)]
    [InlineData(32, 2048, 768, true)]
    [InlineData(64, 2048, 768, false)]
    [InlineData(17, 14336, 4096, false)]
    [InlineData(17, 22016, 4096, false)]
    [InlineData(64, 5120, 8192, false)]
    [InlineData(16, 4096, 14336, false)]
    public void SplitsKOfFewLongSumsInBf16(int m, int n, int k, bool expected) =>
        Assert.Equal(expected, SplitPlan.IsFasterThanHoppersTiles(new LinearShape(m, n, k, WeightFormat.Bf16, true, 0), H200));

    [Fact]
    public void HowKIsSplitDoesNotDependOnTheRowsOfATile()
    {
        foreach ((int n, int k) in new[] { (768, 2048), (4096, 14336), (14336, 4096), (151936, 2048), (16, 64), (8, 32) })
            foreach (WeightFormat format in WeightFormats.All.Where(SplitKernels.Exist))
                foreach (LinearDevice device in new[] { H200, A100, Rtx4090, Rtx5090, B200 })
                {
                    LinearPlan[] plans = [.. Enumerable.Range(17, 48).Select(m => LinearPlan.Choose(new LinearShape(m, n, k, format, true, 0), device))];
                    Assert.Equal([(32, 16), (64, 32)], plans.GroupBy(p => p.Split!.Value).Select(g => (g.Key.Tile.Rows, g.Count())));
                    if (format != WeightFormat.Bf16 && 2 * ((n + 127) / 128) <= device.Multiprocessors)
                        Assert.Equal([(2, 64), (3, 64), (4, 64)], Enumerable.Range(65, 192).Select(m => LinearPlan.Choose(new LinearShape(m, n, k, format, true, 0), device).Split!.Value).GroupBy(s => s).Select(g => (g.Key.RowTiles, g.Count())));
                    Assert.All(plans, p => Assert.True(p.SharedBytes <= device.SharedBytes && p.GridX * p.GridY <= Math.Max(p.GridX, LaunchScratch.BlocksOf(device.Multiprocessors))));
                }
    }

    [Fact]
    public void NarrowScaleBlocksDoNotStream() =>
        Assert.Equal(LinearPath.Gemv, LinearPlan.Choose(new LinearShape(1, 64, 256, WeightFormat.Fp8Block, true, 0, new ScaleBlock(128, 32)), H200).Path);
}
