using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Small runs of the kernels that operators take on some devices, shapes or formats only. With <see cref="OperatorCases"/> they are all kernels.</summary>
internal static class KernelCases
{
    // K fills 16-byte words in every format, and K − 5 in none.
    private const int M = 17, N = 72, K = 160, Ragged = K - 5, WholeWords = 1024, Experts = 3;

    private static readonly WeightFormat[] Streamed = [WeightFormat.Bf16, WeightFormat.Fp8Block, WeightFormat.Nvfp4, WeightFormat.Int4, WeightFormat.Int4Zero];

    /// <summary>The cases for a device; a card that is no Hopper, or has less shared memory, lacks some.</summary>
    public static IEnumerable<SmallCase> All(GpuDevice device) =>
        [.. DotProducts(), .. Skinny(), .. Split(device), .. Tiles(device), .. CodeTiles(device), .. Fused(), .. Accurate(), .. Hopper(device), .. HopperMixed(device), .. HopperSkinny(device), .. HopperFp8Skinny(device), .. HopperSweeps(device), .. ManyTokens(), .. ManyTokensOnHopper(device), .. LayersOnHopper(device), .. ExpertMlps(), .. CrowdedExperts(), .. Decoding(), .. Fills()];

    private static IEnumerable<SmallCase> DotProducts()
    {
        foreach (WeightFormat format in WeightFormats.All)
            foreach (LinearPath path in new[] { LinearPath.Scalar, LinearPath.Gemv, LinearPath.GemmUnaligned })
                foreach (Fp8Decoding decoding in LinearTests.Decodings(format, path))
                    foreach (int k in new[] { K, Ragged })
                        foreach (bool float32 in new[] { false, true })
                        {
                            yield return Product(format, 3, k, float32, path, decoding, null);
                            yield return Grouped(format, k, float32, path, decoding, null);
                        }
    }

    private static IEnumerable<SmallCase> Skinny()
    {
        foreach (int m in new[] { 3, 11 })
            foreach (bool float32 in new[] { false, true })
            {
                foreach (WeightFormat format in WeightFormats.All)
                    yield return Product(format, m, K, float32, LinearPath.SkinnyGemm, null, null);
                // Rows of multipliers and zero points in whole words, which come by asynchronous copies.
                foreach (WeightFormat format in WeightFormats.All.Where(f => f.Info().BitsPerCode == 4))
                    yield return Product(format, m, WholeWords, float32, LinearPath.SkinnyGemm, null, null);
                foreach (ActivationFormat format in ActivationFormats.All)
                    yield return OfActivations(format, m, float32, Accumulator.Float32, LinearPath.SkinnyGemm);
            }
        foreach (bool float32 in new[] { false, true })
        {
            // Two tiles of four rows; inputs that blocks arrange.
            yield return OfActivations(ActivationFormat.Fp8Group32, 6, float32, Accumulator.Float32, LinearPath.SkinnyGemm);
            foreach (WeightFormat format in WeightFormats.All.Where(f => f.Info().BitsPerCode == 4))
                foreach (int m in new[] { 5, 11 })
                    yield return new SmallCase($"SkinnyArranging {format} {m}, float32 {float32}", t =>
                    {
                        // Whole tiles of rows; two warps a tile have some of 26 chunks left when those of both blocks have been arranged.
                        const int N = 64, K = 3360;
                        (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<byte> y) = (t.Matrix(format, N, K), t.Halves(m * K), Bytes(t, m * N, float32));
                        LinearPlan plan = LinearPlan.Choose(new LinearShape(m, N, K, format, true, 0, w.Block), LinearDevice.Of(w.Device), LinearPath.SkinnyGemm) with { ArrangesInputs = true, Threads = 64 };
                        return stream => SkinnyLinear.Launch(stream, format, Linear.CreateArgs(w, x, y, m, 0, float32), plan);
                    });
            foreach (int m in new[] { 5, 11 })
                yield return new SmallCase($"SkinnyArranging Nvfp4 × Nvfp4 {m}, float32 {float32}", t =>
                {
                    const int N = 64, K = 3360;
                    (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<byte> y) = (t.Matrix(WeightFormat.Nvfp4, N, K), t.Halves(m * K), Bytes(t, m * N, float32));
                    QuantizedActivations quantized = t.Activations(ActivationFormat.Nvfp4, m, K);
                    LinearPlan plan = LinearPlan.ChooseAccurate(new LinearShape(m, N, K, w.Format, true, 0, w.Block, quantized.Format), LinearDevice.Of(w.Device), LinearPath.SkinnyGemm) with { ArrangesInputs = true, Threads = 64 };
                    return stream =>
                    {
                        ActivationQuantizer.Quantize(stream, x, quantized, m);
                        SkinnyLinear.Launch(stream, w.Format, Linear.CreateArgs(w, default, y, m, 0, float32) with { X = quantized.Codes.View.Cast<ushort>(), InputScales = quantized.ScaleTable }, plan, quantized.Format);
                    };
                });
        }
    }

    // Two parts of K, whose sums meet in global memory, and one; two tiles of 64 rows.
    private static IEnumerable<SmallCase> Split(GpuDevice device) =>
        from format in Streamed
        from tile in SplitKernels.Tiles(format)
        where !device.IsCuda || tile.Fits(LinearDevice.Of(device))
        from parts in new[] { 1, 2 }
        select new SmallCase($"SplitGemm {format} {tile} {parts}", t =>
        {
            int m = tile.Rows == SplitPlan.MostRows ? tile.Rows + 1 : M;
            SplitPlan plan = SplitPlan.Of(tile, new LinearShape(m, N, K, format, true, 0), LinearDevice.Of(device), parts);
            (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<byte> y) = (t.Matrix(format, N, K), t.Halves(m * K), Bytes(t, m * N, float32: false));
            return stream => SplitLinear.Launch(stream, w, x, y, false, (m, 0), plan);
        });

    private static IEnumerable<SmallCase> Tiles(GpuDevice device)
    {
        foreach (WeightFormat format in WeightFormats.All)
            foreach (GemmTile tile in Enum.GetValues<GemmTile>())
            {
                if (!GemmKernels.Exists(format, tile) || (device.IsCuda && !GemmKernels.Info(format, tile).Fits(LinearDevice.Of(device))))
                    continue;
                yield return Product(format, M, K, false, LinearPath.Gemm, null, tile);
                yield return Product(format, M, K, true, LinearPath.Gemm, null, tile);
                if (GemmKernels.Exists(format, tile, grouped: true))
                    yield return Grouped(format, K, false, LinearPath.Gemm, null, tile);
                foreach (GemmEpilogue epilogue in Enum.GetValues<GemmEpilogue>())
                    if (GemmKernels.Exists(format, tile, epilogue))
                        yield return Fused(format, epilogue, LinearPath.Gemm, tile);
            }
    }

    // Codes on both sides, which some cards cannot multiply as they are.
    private static IEnumerable<SmallCase> CodeTiles(GpuDevice device) =>
        from format in new[] { ActivationFormat.Fp8Group128, ActivationFormat.Nvfp4 }
        from decoding in CodeKernels.Decodings(OperatorCases.WeightsOf(format))
        from tile in CodeKernels.Tiles(OperatorCases.WeightsOf(format))
        where !device.IsCuda || CodeKernels.Get(decoding, tile).Traits.RunsOn(device.Target!.Value)
        from float32 in new[] { false, true }
        select OfActivations(format, M, float32, Accumulator.Float32, LinearPath.Gemm, (decoding, tile));

    private static IEnumerable<SmallCase> Fused() =>
        from format in WeightFormats.All
        from path in new[] { LinearPath.Scalar, LinearPath.Gemv }
        from epilogue in Enum.GetValues<GemmEpilogue>()
        select Fused(format, epilogue, path, null);

    private static IEnumerable<SmallCase> Accurate()
    {
        foreach (LinearPath path in new[] { LinearPath.Accurate, LinearPath.AccurateScalar })
            foreach (bool float32 in new[] { false, true })
            {
                foreach (Accumulator accumulator in new[] { Accumulator.Kahan, Accumulator.Float64 })
                    foreach (WeightFormat format in WeightFormats.All)
                        yield return new($"{path} {format} {accumulator} {float32}", t =>
                        {
                            (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<byte> y) = (t.Matrix(format, N, K), t.Halves(3 * K), Bytes(t, 3 * N, float32));
                            return stream => Linear.LaunchAccurate(stream, w, x, y, float32, (3, 0), accumulator, path);
                        });
                foreach (Accumulator accumulator in Enum.GetValues<Accumulator>())
                    foreach (ActivationFormat format in ActivationFormats.All)
                        yield return OfActivations(format, 3, float32, accumulator, path);
            }
    }

    private static IEnumerable<SmallCase> Hopper(GpuDevice device)
    {
        if (device.IsCuda && device.Target?.Name != "90a")
            yield break;
        foreach (HopperTileKind kind in Enum.GetValues<HopperTileKind>())
            foreach (bool clusters in new[] { false, true })
                foreach (bool float32 in new[] { false, true })
                    yield return new($"Hopper {kind}, clusters {clusters}, float32 {float32}", t =>
                    {
                        // Two blocks to a cluster, also where nothing is launched.
                        HopperPlan plan = HopperPlan.Of(kind, clusters, M, N, Math.Max(2, device.MultiprocessorCount));
                        bool fp8 = HopperPlan.IsFp8(kind);
                        (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<byte> y) = (t.Matrix(fp8 ? WeightFormat.Fp8Block : WeightFormat.Bf16, N, K), t.Halves(M * K), Bytes(t, M * N, float32));
                        if (!fp8)
                            return stream => HopperLinear.Launch(stream, w, x, y, float32, (M, 0), plan);
                        QuantizedActivations quantized = t.Activations(ActivationFormat.Fp8Group128, M, K);
                        return stream =>
                        {
                            ActivationQuantizer.Quantize(stream, x, quantized, M);
                            HopperLinear.Launch(stream, w, quantized, y, float32, (M, 0), plan);
                        };
                    });
    }

    // Zero points end with a whole word: initcheck takes a copy of fewer than four bytes for one of four. Two tiles of W a block; on a card also three with pairs of warps that have nothing, and a warp with more units than a window.
    private static IEnumerable<SmallCase> HopperSweeps(GpuDevice device)
    {
        if (device.IsCuda && device.Target?.Name != "90a")
            yield break;
        const int Rows = 92;
        (HopperSweepPlan Plan, int Columns)[] plans = device.IsCuda ? [(new(2, 4), 1536), (new(1, 16), 512), (new(1, 2), 3072)] : [(new(2, 4), 1536)];
        foreach ((HopperSweepPlan plan, int columns) in plans)
            foreach ((WeightFormat format, ActivationFormat? activations) in HopperSweepKernels.Formats)
                foreach (int m in new[] { 3, 11 })
                    foreach (bool float32 in new[] { false, true })
                        yield return new($"Hopper sweep {format} {activations} {m}, {plan.Warps} warps, float32 {float32}", t =>
                        {
                            (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<byte> y) = (t.Matrix(format, Rows, columns), t.Halves(m * columns), Bytes(t, m * Rows, float32));
                            var shape = new LinearShape(m, Rows, columns, format, true, 0, w.Block, activations);
                            if (activations is not { } a)
                                return stream => HopperSweepLinear.Launch(stream, w, x, y, float32, (m, 0), plan, shape);
                            QuantizedActivations quantized = t.Activations(a, m, columns);
                            return stream =>
                            {
                                ActivationQuantizer.Quantize(stream, x, quantized, m);
                                HopperSweepLinear.Launch(stream, w, quantized, y, float32, (m, 0), plan, shape);
                            };
                        });
    }

    // Rows of W for more warps than one, and for runs that end within tiles.
    private static IEnumerable<SmallCase> HopperSkinny(GpuDevice device)
    {
        if (device.IsCuda && device.Target?.Name != "90a")
            yield break;
        const int Rows = 160, Columns = 640;
        foreach ((WeightFormat format, ActivationFormat? activations) in HopperSkinnyKernels.Combinations)
            foreach (int m in new[] { 3, 11 })
                foreach (bool float32 in new[] { false, true })
                    yield return new($"Hopper skinny {format} {activations} {m}, float32 {float32}", t =>
                    {
                        (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<byte> y) = (t.Matrix(format, Rows, Columns), t.Halves(m * Columns), Bytes(t, m * Rows, float32));
                        if (activations is not { } a)
                            return stream => HopperSkinnyLinear.Launch(stream, w, x, y, float32, (m, 0), 2);
                        QuantizedActivations quantized = t.Activations(a, m, Columns);
                        return stream =>
                        {
                            ActivationQuantizer.Quantize(stream, x, quantized, m);
                            HopperSkinnyLinear.Launch(stream, w, quantized, y, float32, (m, 0), 2);
                        };
                    });
    }

    // Columns for a second round of a warp's stages, rows for a tile that ends early.
    private static IEnumerable<SmallCase> HopperFp8Skinny(GpuDevice device)
    {
        if (device.IsCuda && device.Target?.Name != "90a")
            yield break;
        const int Rows = 40, Columns = 640;
        foreach (int m in new[] { 3, 11 })
            foreach (bool float32 in new[] { false, true })
                yield return new($"Hopper FP8 skinny {m}, float32 {float32}", t =>
                {
                    (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<byte> y) = (t.Matrix(WeightFormat.Fp8Block, Rows, Columns, block: new ScaleBlock(32, 32)), t.Halves(m * Columns), Bytes(t, m * Rows, float32));
                    QuantizedActivations quantized = t.Activations(ActivationFormat.Fp8Group32, m, Columns);
                    return stream =>
                    {
                        ActivationQuantizer.Quantize(stream, x, quantized, m);
                        HopperFp8SkinnyLinear.Launch(stream, w, quantized, y, float32, (m, 0), 2, m == 3 ? 1 : 2);
                    };
                });
    }

    // 24-row products of one matrix, and the experts of as many sorted rows.
    private static IEnumerable<SmallCase> HopperMixed(GpuDevice device)
    {
        if (device.IsCuda && device.Target?.Name != "90a")
            yield break;
        const int Rows = 24;
        foreach (bool float32 in new[] { false, true })
        {
            foreach (int tile in HopperMixedPlan.TileRowCounts)
                yield return new($"Hopper mixed, tile of {tile}, float32 {float32}", t =>
                {
                    (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<byte> y) = (t.Matrix(WeightFormat.Fp8Block, N, K), t.Halves(Rows * K), Bytes(t, Rows * N, float32));
                    HopperMixedPlan plan = HopperMixedPlan.Of(tile, new LinearShape(Rows, N, K, WeightFormat.Fp8Block, true, 0, w.Block), device.MultiprocessorCount);
                    return stream => HopperMixedLinear.Launch(stream, w, x, y, float32, (Rows, 0), plan);
                });
            foreach ((int teams, int rows, int parts) in from t in HopperSplitKernels.TeamCounts from r in HopperSplitKernels.RowCounts from p in new[] { 1, 2 } select (t, r, p))
                yield return new($"Hopper split, {teams} teams, {rows} rows, {parts} parts, float32 {float32}", t =>
                {
                    (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<byte> y) = (t.Matrix(WeightFormat.Fp8Block, N, K), t.Halves(Rows * K), Bytes(t, Rows * N, float32));
                    HopperSplitPlan plan = HopperSplitPlan.Choose(new LinearShape(Rows, N, K, WeightFormat.Fp8Block, true, 0, w.Block), LinearDevice.Of(device), parts, rows, teams) with { EarlyStages = parts };
                    return stream => HopperSplitLinear.Launch(stream, w, x, y, float32, (Rows, 0), plan);
                });
            yield return new($"Hopper mixed of experts, float32 {float32}", t =>
            {
                (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<byte> y) = (t.Matrix(WeightFormat.Fp8Block, N, K, Experts), t.Halves(4 * K), Bytes(t, 4 * N, float32));
                ArrayView<BFloat16> sorted = t.Output<BFloat16>(4 * K);
                var routing = new ExpertRouting(t.Input<int>([2, 0, 2, 1]), t.Input<int>([1, 3, 0, 2]), t.Input<int>([0, 1, 2, 4]));
                return stream =>
                {
                    GatherRows.Apply(stream, routing.Order, x, sorted, 4, 1, K);
                    HopperMixedLinear.LaunchGrouped(stream, w, routing, sorted, y, float32, 4, scatters: true);
                };
            });
        }
    }

    private static IEnumerable<SmallCase> ManyTokens() =>
    [
        .. new[] { 64, 96, 128, 256 }.Select(headDim => ManyTokens($"Attention of 20 tokens, heads of {headDim}", (headDim, KvCacheFormat.Bf16), (stream, q, layer, position, y, shape) =>
            FlashAttention.Launch(stream, Attention.CreateTileArgs(q, layer, position, y, shape), headDim))),
        ManyTokens("Attention of 20 tokens over an FP8 cache", (64, KvCacheFormat.Fp8), Attention.Apply),
    ];

    private static IEnumerable<SmallCase> ManyTokensOnHopper(GpuDevice device) =>
        device.IsCuda && device.Target?.Name != "90a" ? [] : [ManyTokens("Attention of 20 tokens on Hopper", (128, KvCacheFormat.Bf16), HopperFlash.Launch)];

    private static SmallCase ManyTokens(string name, (int HeadDim, KvCacheFormat Format) heads, Action<GpuStream, ArrayView<BFloat16>, KvLayer, ArrayView<int>, ArrayView<BFloat16>, AttentionShape> launch) => new(name, t =>
    {
        const int Tokens = 20, Heads = 4;
        (KvCache cache, ArrayView<int> position) = (t.Cache(2, heads.HeadDim, 48, heads.Format), t.Input<int>([21]));
        (ArrayView<BFloat16> q, ArrayView<BFloat16> y) = (t.Halves(Tokens * Heads * heads.HeadDim), t.Output<BFloat16>(Tokens * Heads * heads.HeadDim));
        return stream => launch(stream, q, cache.Layer(0), position, y, new AttentionShape(Tokens, Heads));
    });

    // Rounds that the others do not reach: more tokens of an expert than an mma has columns, more experts of a token than are on their way at once.
    private static IEnumerable<SmallCase> CrowdedExperts()
    {
        const int Hidden = 128, Width = 64, Tokens = 11;
        var block = new ScaleBlock(32, 64);
        ExpertStack Stack(CaseTensors t, int experts, int width = Width) => new(t.Matrix(WeightFormat.Fp8Block, 2 * width, Hidden, experts, block), t.Matrix(WeightFormat.Fp8Block, Hidden, width, experts, block));
        yield return new("ExpertMlp of 11 tokens of one expert", t =>
        {
            ExpertStack stack = Stack(t, Experts);
            var routing = new TokenRouting(t.Input([.. Enumerable.Range(0, Tokens).SelectMany(i => new[] { 0, 1 + (i & 1) })]), t.Floats(Tokens * 2), 2);
            (ArrayView<BFloat16> x, ExpertMlpWorkspace inner, ArrayView<float> y) = (t.Halves(Tokens * Hidden), t.ExpertMlp(new(Tokens, 2, Experts, Hidden, Width)), t.Changed(RandomData.Gaussian(Tokens * Hidden, 4)));
            return stream => ExpertMlp.Apply(stream, stack, routing, x, inner, y);
        });
        // More than are on their way at once; and eight, a chunk of each a warp.
        foreach ((int all, int width) in new[] { (32, Width), (8, 4 * Width) })
            yield return new($"ExpertMlp routed to {all} experts", t =>
            {
                ExpertStack stack = Stack(t, all, width);
                var routing = new RoutedToken(new TokenRouting(t.Output<int>(all), t.Output<float>(all), all), t.Output<float>(all), true);
                var router = new RouterFeed(stack.Down, new InputNorm(t.Halves(Hidden), 1e-5f), t.Changed<long>([.. Enumerable.Range(0, all).Select(e => (long)(e * 13 % 7) << 30), .. new long[DecodeLinear.RouterLength(0)]]));
                (ArrayView<BFloat16> inner, ArrayView<float> y) = (t.Output<BFloat16>(all * width), t.Changed(RandomData.Gaussian(Hidden, 4)));
                return stream => ExpertMlp.ApplyRouted(stream, stack, routing, router, inner, y);
            });
    }

    private static IEnumerable<SmallCase> LayersOnHopper(GpuDevice device)
    {
        if (device.Target?.Number < 90)
            yield break;
        // Blocks that have no time, and such that wait for each other.
        foreach ((int turns, int? patience) in new (int, int?)[] { (1, 1), (2, null), (3, null) })
            yield return new($"Experts of one token in one launch on Hopper, {turns} tiles a block", t =>
            {
                const int Hidden = 2048, TopK = 8, All = 9;
                int width = turns * Hidden / TopK;
                var block = new ScaleBlock(32, 128);
                var stack = new ExpertStack(t.Matrix(WeightFormat.Fp8Block, 2 * width, Hidden, All, block), t.Matrix(WeightFormat.Fp8Block, Hidden, width, All, block));
                var routing = new RoutedToken(new TokenRouting(t.Output<int>(TopK), t.Output<float>(TopK), TopK), t.Output<float>(All), true);
                (QuantizedMatrix router, ArrayView<uint> state) = (t.Matrix(WeightFormat.Bf16, All, Hidden), t.Changed(new uint[HopperExperts.StateLength]));
                (ArrayView<BFloat16> x, ArrayView<float> y) = (t.Halves(Hidden), t.Changed(RandomData.Gaussian(Hidden, 4)));
                return stream => HopperExperts.Apply(stream, router, stack, routing, x, state, y, patience);
            });
    }

    private static IEnumerable<SmallCase> ExpertMlps()
    {
        const int Hidden = 128, TopK = 2;
        foreach (WeightFormat format in Streamed)
        {
            int width = format is WeightFormat.Fp8Block or WeightFormat.Bf16 ? 64 : 128;
            ScaleBlock? block = format == WeightFormat.Fp8Block ? new ScaleBlock(32, 64) : null;
            ExpertStack Stack(CaseTensors t) => new(t.Matrix(format, 2 * width, Hidden, Experts, block), t.Matrix(format, Hidden, width, Experts, block));
            foreach (int tokens in new[] { 1, 3, 11 })
                yield return new($"ExpertMlp {format} of {tokens}", t =>
                {
                    ExpertStack stack = Stack(t);
                    var routing = new TokenRouting(t.Input([.. Enumerable.Range(0, tokens * TopK).Select(i => i % Experts)]), t.Floats(tokens * TopK), TopK);
                    (ArrayView<BFloat16> x, ExpertMlpWorkspace inner, ArrayView<float> y) = (t.Halves(tokens * Hidden), t.ExpertMlp(new(tokens, TopK, Experts, Hidden, width)), t.Changed(RandomData.Gaussian(tokens * Hidden, 4)));
                    return stream => ExpertMlp.Apply(stream, stack, routing, x, inner, y);
                });
            if (format == WeightFormat.Bf16)
                yield return new("ExpertMlp of a list, with the norm behind it", t =>
                {
                    const int Tokens = 3;
                    ExpertStack stack = Stack(t);
                    var routing = new TokenRouting(t.Input([2, 0, -1, 1, 0, 1]), t.Floats(Tokens * TopK), TopK);
                    (ArrayView<BFloat16> normed, ExpertMlpWorkspace inner, ArrayView<float> y) = (t.Changed(RandomData.GaussianBf16(Tokens * Hidden, 1)), t.ExpertMlp(new(Tokens, TopK, Experts, Hidden, width)), t.Changed(RandomData.Gaussian(Tokens * Hidden, 4)));
                    var following = new FollowingNorm(new InputNorm(t.Halves(Hidden), 1e-5f), normed);
                    return stream =>
                    {
                        ExpertList.Launch(stream, routing.Experts, inner.List(Tokens, TopK, Experts), TopK, Experts);
                        ExpertMlp.ApplyListed(stream, stack, routing, inner, y, following);
                    };
                });
            yield return new($"ExpertMlp {format} routed", t =>
            {
                ExpertStack stack = Stack(t);
                var routing = new RoutedToken(new TokenRouting(t.Output<int>(TopK), t.Output<float>(TopK), TopK), t.Output<float>(Experts), true);
                var router = new RouterFeed(stack.Down, new InputNorm(t.Halves(Hidden), 1e-5f), t.Changed<long>([1L << 32, 3L << 31, -(1L << 31), .. new long[DecodeLinear.RouterLength(0)]]));
                (ArrayView<BFloat16> inner, ArrayView<float> y) = (t.Output<BFloat16>(TopK * width), t.Changed(RandomData.Gaussian(Hidden, 4)));
                return stream => ExpertMlp.ApplyRouted(stream, stack, routing, router, inner, y);
            });
            yield return new($"ExpertMlp {format} fed by its router", t =>
            {
                const int All = 16;
                var stack = new ExpertStack(t.Matrix(format, 2 * width, Hidden, All, block), t.Matrix(format, Hidden, width, All, block));
                var routing = new RoutedToken(new TokenRouting(t.Output<int>(TopK), t.Output<float>(TopK), TopK), t.Output<float>(All), true);
                (QuantizedMatrix router, ArrayView<uint> posts) = (t.Matrix(WeightFormat.Bf16, All, Hidden), t.Changed(new uint[DecodeLinear.PostsLength(All)]));
                (ArrayView<BFloat16> x, ArrayView<BFloat16> inner, ArrayView<float> y) = (t.Halves(Hidden), t.Output<BFloat16>(TopK * width), t.Changed(RandomData.Gaussian(Hidden, 4)));
                return stream =>
                {
                    DecodeLinear.Feed(stream, router, x, posts);
                    ExpertMlp.ApplyFed(stream, stack, routing, posts, x, inner, y);
                };
            });
        }
    }

    private static IEnumerable<SmallCase> Decoding()
    {
        yield return new("RouterLinear", t =>
        {
            const int Tokens = 9, Hidden = 96;
            (QuantizedMatrix router, ArrayView<BFloat16> x, ArrayView<int> counters) = (t.Matrix(WeightFormat.Bf16, Experts, Hidden), t.Halves(Tokens * Hidden), t.Changed(new int[RouterLinear.Counters]));
            var routing = new TokenRouting(t.Output<int>(2 * Tokens), t.Output<float>(2 * Tokens), 2);
            var routed = new RoutedRows(routing, t.Output<float>(Tokens * Experts), default, true);
            return stream => RouterLinear.Route(stream, router, x, routed, counters, Tokens);
        });
        const int Rows = 48, Columns = 256;
        foreach (WeightFormat format in Streamed)
        {
            ScaleBlock? block = format == WeightFormat.Fp8Block ? new ScaleBlock(32, 64) : null;
            yield return new($"DecodeLinear stores {format}", t =>
            {
                (QuantizedMatrix w, ArrayView<float> residual, ArrayView<BFloat16> y) = (t.Matrix(format, Rows, Columns, 1, block), t.Floats(Columns), t.Output<BFloat16>(Rows));
                (var norm, ArrayView<long> sums) = (new InputNorm(t.Halves(Columns), 1e-5f), t.Output<long>(Experts));
                return stream => DecodeLinear.Store(stream, w, residual, norm, y, sums);
            });
            yield return new($"DecodeLinear adds {format}", t =>
            {
                (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<float> residual) = (t.Matrix(format, Rows, Columns, 1, block), t.Halves(Columns), t.Changed(RandomData.Gaussian(Rows, 4)));
                var feed = new RouterFeed(t.Matrix(WeightFormat.Bf16, Experts, Rows), new InputNorm(t.Halves(Rows), 1e-5f), t.Changed(new long[Experts]));
                return stream => DecodeLinear.Add(stream, w, x, residual, feed);
            });
        }
        // Sixteen warps with as many chunks each as there are kernels for.
        yield return new("DecodeLinear stores eight chunks a warp", t =>
        {
            const int K = 16 * 8 * 64;
            (QuantizedMatrix w, ArrayView<float> residual, ArrayView<BFloat16> y) = (t.Matrix(WeightFormat.Fp8Block, 16, K, 1, new ScaleBlock(32, 64)), t.Floats(K), t.Output<BFloat16>(16));
            (var norm, ArrayView<long> sums) = (new InputNorm(t.Halves(K), 1e-5f), t.Output<long>(Experts));
            return stream => DecodeLinear.Store(stream, w, residual, norm, y, sums);
        });
        yield return new("DecodeLinear adds four chunks a warp", t =>
        {
            const int K = 16 * 4 * 64;
            (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<float> residual) = (t.Matrix(WeightFormat.Fp8Block, 16, K, 1, new ScaleBlock(32, 64)), t.Halves(K), t.Changed(RandomData.Gaussian(16, 4)));
            return stream => DecodeLinear.Add(stream, w, x, residual, null);
        });
        foreach (WeightFormat format in Streamed)
            foreach (int tokens in new[] { 3, 11 })
                yield return new($"DecodeRows {format} of {tokens}", t =>
                {
                    (QuantizedMatrix w, ArrayView<BFloat16> x) = (t.Matrix(format, Rows, Columns, 1, format == WeightFormat.Fp8Block ? new ScaleBlock(32, 64) : null), t.Halves(tokens * Columns));
                    (ArrayView<float> residual, ArrayView<BFloat16> normed) = (t.Changed(RandomData.Gaussian(tokens * Rows, 4)), t.Output<BFloat16>(tokens * Rows));
                    var feed = new RouterFeed(t.Matrix(WeightFormat.Bf16, Experts, Rows), new InputNorm(t.Halves(Rows), 1e-5f), t.Changed(new long[tokens * Experts]));
                    var routing = new TokenRouting(t.Output<int>(2 * tokens), t.Output<float>(2 * tokens), 2);
                    var routed = new RoutedRows(routing, t.Output<float>(tokens * Experts), t.Input([.. Enumerable.Range(0, tokens)]), true);
                    ExpertMlpWorkspace workspace = t.ExpertMlp(new(tokens, 2, Experts, Rows, 1));
                    return stream =>
                    {
                        DecodeRows.Add(stream, w, x, residual, feed, routed.Positions);
                        DecodeRows.Route(stream, residual, feed, normed, routed, workspace);
                    };
                });
        yield return new("GreedyRows and their positions", t =>
        {
            (ArrayView<float> logits, ArrayView<ulong> best) = (t.Floats(3 * 301), t.Changed(new ulong[3]));
            (ArrayView<int> positions, ArrayView<int> tokens) = (t.Changed<int>([4, 0, 7]), t.Output<int>(3));
            return stream =>
            {
                GreedyRows.Sample(stream, logits, best, positions, tokens, 7);
                DeviceCounter.AdvanceAll(stream, positions, 1);
            };
        });
        foreach ((int headDim, KvCacheFormat format) in from h in new[] { 64, 128 } from f in Enum.GetValues<KvCacheFormat>() select (h, f))
            yield return new($"DecodeAttention of heads of {headDim} in {format}", t =>
            {
                (KvCache cache, RotaryTable table, ArrayView<int> position) = (t.Cache(2, headDim, 24, format), t.Rotary(headDim, 24), t.Input<int>([21]));
                (ArrayView<BFloat16> qkv, ArrayView<BFloat16> y) = (t.Halves(8 * headDim), t.Output<BFloat16>(4 * headDim));
                DecodeAttentionWorkspace workspace = t.Own(new DecodeAttentionWorkspace(t.Device, 2, headDim));
                var options = new QkNormRotaryOptions(1, 4, table) { QueryGain = t.Halves(headDim, 2), KeyGain = t.Halves(headDim, 3), Epsilon = 1e-6f };
                return stream => DecodeAttention.Apply(stream, qkv, position, cache.Layer(0), (y, workspace), options);
            });
    }

    private static IEnumerable<SmallCase> Fills() => WeightFormats.All.Select(format => new SmallCase($"RandomFill {format}", t =>
    {
        QuantizedMatrix w = t.WrittenMatrix(format, N, K);
        return stream => RandomFill.Weights(stream, w, 0, (0, N), 1, 0.02f);
    }));

    private static SmallCase Product(WeightFormat format, int m, int k, bool float32, LinearPath path, Fp8Decoding? decoding, GemmTile? tile) => new($"{path} {format} {decoding} {tile} [{m}, {N}, {k}] float32 {float32}", t =>
    {
        (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<byte> y) = (t.Matrix(format, N, k), t.Halves(m * k), Bytes(t, m * N, float32));
        return stream => Linear.Launch(stream, w, x, y, float32, (m, 0), path, decoding, tile);
    });

    private static SmallCase Grouped(WeightFormat format, int k, bool float32, LinearPath path, Fp8Decoding? decoding, GemmTile? tile) => new($"{path} {format} {decoding} {tile} of experts, K {k}, float32 {float32}", t =>
    {
        (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<byte> y) = (t.Matrix(format, N, k, Experts), t.Halves(4 * k), Bytes(t, 4 * N, float32));
        var routing = new ExpertRouting(t.Input<int>([2, 0, 2, 1]), t.Input<int>([1, 3, 0, 2]), t.Input<int>([0, 1, 2, 4]));
        return stream => GroupedLinear.Launch(stream, w, routing, x, y, float32, new GroupedSize(4), path, decoding, tile);
    });

    private static SmallCase Fused(WeightFormat format, GemmEpilogue epilogue, LinearPath path, GemmTile? tile) => new($"{path} {format} {tile} with {epilogue}", t =>
    {
        bool gated = epilogue == GemmEpilogue.Gated;
        (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<BFloat16> y) = (t.Matrix(format, N, K), t.Halves(M * K), t.Output<BFloat16>(M * N / (gated ? 2 : 1)));
        ArrayView<BFloat16> bias = epilogue is GemmEpilogue.Bias or GemmEpilogue.BiasResidual ? t.Halves(N, 2) : default;
        ArrayView<BFloat16> residual = epilogue is GemmEpilogue.Residual or GemmEpilogue.BiasResidual ? t.Halves(M * N, 3) : default;
        return stream => Linear.LaunchFused(stream, w, (x, bias, residual), y, gated, (M, 0), path, tile);
    });

    private static SmallCase OfActivations(ActivationFormat format, int m, bool float32, Accumulator accumulator, LinearPath path, (Fp8Decoding Decoding, GemmTile Tile)? tiles = null) => new($"{path} of {format} [{m}, {N}, {K}] {tiles} {accumulator} float32 {float32}", t =>
    {
        // Tiles of NVFP4 take whole words of group scales.
        int k = tiles is not null && format == ActivationFormat.Nvfp4 ? 192 : K;
        (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<byte> y) = (t.Matrix(OperatorCases.WeightsOf(format), N, k, 1, OperatorCases.BlockOf(format)), t.Halves(m * k), Bytes(t, m * N, float32));
        QuantizedActivations quantized = t.Activations(format, m, k);
        return stream =>
        {
            ActivationQuantizer.Quantize(stream, x, quantized, m);
            Linear.Launch(stream, w, quantized, y, float32, (m, 0), accumulator, path, tiles?.Decoding, tiles?.Tile);
        };
    });

    private static ArrayView<byte> Bytes(CaseTensors t, int elements, bool float32) =>
        float32 ? t.Output<float>(elements).Cast<byte>() : t.Output<BFloat16>(elements).Cast<byte>();
}
