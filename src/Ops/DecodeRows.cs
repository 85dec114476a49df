using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>The routing of a batch's tokens, where kernels make it.</summary>
/// <param name="Routing"><c>[tokens, topK]</c>, written.</param>
/// <param name="Logits"><c>[tokens, experts]</c> float32, written.</param>
/// <param name="Positions"><c>[tokens]</c>: negative where there is no token.</param>
/// <param name="Normalize">Whether the chosen probabilities are divided by their sum.</param>
internal readonly record struct RoutedRows(TokenRouting Routing, ArrayView<float> Logits, ArrayView<int> Positions, bool Normalize);

/// <summary>
/// From attention's output to the experts' input in two launches, for up to 16 tokens: <see cref="TileRows"/>, <see cref="RouteRows"/>. On devices with 32-lane warps, for weights
/// that stream and routers that <see cref="DecodeLinear.CanFeed"/> holds for. Bitwise repeatable; a token's bits depend neither on the others nor on their number.
/// </summary>
internal static class DecodeRows
{
    /// <summary>Most tokens of a call.</summary>
    public const int MostTokens = TileRows.MostTokens;

    private const int RouteThreads = 512;

    private static readonly Dictionary<(WeightFormat Format, bool TwoTiles), KernelDefinition<TileRowsArgs>> ByKey = [];

    internal static readonly KernelDefinition<RouteRowsArgs> NormRoute = new(RouteRows.Run, new KernelTraits(RouteThreads, NeedsWarp32: true, Overlaps: true));

    /// <summary>All instances of the product, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = Create();

    /// <summary><c>residual[t] += W · x[t]</c>, and what that adds to the router's sums of the tokens that are there.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="matrix"><c>W[N, K]</c>; <see cref="DecodeLinear.Exists"/> must hold.</param>
    /// <param name="x"><c>[tokens, K]</c> BF16.</param>
    /// <param name="residual"><c>[tokens, N]</c> float32.</param>
    /// <param name="router">The router behind it, its sums <c>[tokens, experts]</c> zero before.</param>
    /// <param name="positions"><c>[tokens]</c>, 1 to 16: negative where there is no token.</param>
    /// <exception cref="ArgumentException">A size is out of range, or a view is too short or lives on another device.</exception>
    public static void Add(GpuStream stream, QuantizedMatrix matrix, ArrayView<BFloat16> x, ArrayView<float> residual, in RouterFeed router, ArrayView<int> positions)
    {
        DecodeLinear.Require(stream, matrix);
        Shape.RequireRange(positions.Length, 1, TileRows.MostTokens, nameof(positions));
        int tokens = (int)positions.Length, experts = router.Weights.N;
        Shape.Require(stream, positions, 1, tokens, nameof(positions));
        Shape.Require(stream, x, tokens, matrix.K, nameof(x));
        Shape.Require(stream, residual, tokens, matrix.N, nameof(residual));
        DecodeLinear.RequireFeed(stream, matrix, router, tokens);
        var args = new TileRowsArgs
        {
            Weights = ExpertMlp.Streamed(matrix),
            X = x.Cast<ushort>(),
            Residual = residual,
            RouterSums = router.Sums,
            Router = router.Weights.Codes.View.Cast<ushort>(),
            RouterGain = router.Norm.Gain.Cast<ushort>(),
            Positions = positions,
            Tokens = tokens,
            Experts = experts,
        };
        bool two = tokens > TileStream.Columns;
        int tiles = matrix.N / TileStream.Rows, warps = DecodeLinear.Warps(stream.Device, matrix);
        int shared = two ? TileRows.SharedBytes<TwoTiles>(warps, experts) : TileRows.SharedBytes<OneTile>(warps, experts);
        stream.Device.Launch(ByKey[(matrix.Format, two)], stream, (tiles, 1, 1), 32 * warps, shared, args);
    }

    /// <summary>The norm before the experts and their choice from the sums, which become zero again. A token that is not there gets the expert −1 with weight 0; its normed state stays as it was.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="residual"><c>[tokens, hidden]</c> float32.</param>
    /// <param name="router">As in <see cref="Add"/>.</param>
    /// <param name="normed"><c>[tokens, hidden]</c> BF16, written.</param>
    /// <param name="routed">Where the choice goes.</param>
    /// <param name="workspace">Where the list of the chosen experts goes.</param>
    /// <exception cref="ArgumentException">A size is out of range, or a view is too short or lives on another device.</exception>
    public static void Route(GpuStream stream, ArrayView<float> residual, in RouterFeed router, ArrayView<BFloat16> normed, in RoutedRows routed, ExpertMlpWorkspace workspace)
    {
        ArgumentNullException.ThrowIfNull(stream);
        int tokens = (int)routed.Positions.Length, experts = router.Weights.N, width = router.Weights.K, topK = routed.Routing.TopK;
        Shape.RequireRange(topK, 1, Math.Min(experts, Kernels.Router.MaxTopK), nameof(routed));
        Shape.RequireRange(experts, 1, RouterSums.MostExperts, nameof(router));
        Shape.RequireEpsilon(router.Norm.Epsilon, nameof(router));
        Shape.RequireRange(tokens, 1, TileRows.MostTokens, nameof(routed));
        stream.Device.RequireSame(workspace.Device, nameof(workspace));
        Shape.Require(stream, routed.Positions, 1, tokens, nameof(routed));
        Shape.Require(stream, residual, tokens, width, nameof(residual));
        Shape.Require(stream, normed, tokens, width, nameof(normed));
        Shape.Require(stream, router.Norm.Gain, 1, width, nameof(router));
        Shape.Require(stream, router.Sums, tokens, experts, nameof(router));
        Shape.Require(stream, routed.Logits, tokens, experts, nameof(routed));
        Shape.Require(stream, routed.Routing.Experts, tokens, topK, nameof(routed));
        Shape.Require(stream, routed.Routing.Weights, tokens, topK, nameof(routed));
        if (!Shape.IsVectorAligned(residual, 4L * width))
            throw new ArgumentException("The residual stream must lie on 16-byte boundaries.", nameof(residual));
        var args = new RouteRowsArgs
        {
            Norm = new Kernels.RmsNorm.Args { X = residual, Addend = residual, Gain = router.Norm.Gain.Cast<ushort>(), Output = normed.Cast<ushort>(), Rows = tokens, Width = width, Epsilon = router.Norm.Epsilon, HasWords = RmsNorm.HasWords(residual, router.Norm.Gain, normed, width) ? 1 : 0 },
            Sums = router.Sums,
            Logits = routed.Logits,
            Experts = routed.Routing.Experts,
            Weights = routed.Routing.Weights,
            Positions = routed.Positions,
            List = workspace.List(tokens, topK, experts),
            ExpertCount = experts,
            TopK = topK,
            Normalize = routed.Normalize ? 1 : 0,
        };
        // Depends on the width alone, as the order of a row's sum does; a token's choice is one warp's.
        int threads = LaunchShape.WholeWarps(stream.Device, (width + 3) >> 2, RouteThreads);
        stream.Device.Launch(NormRoute, stream, (tokens + 1, 1, 1), threads, 0, args);
    }

    private static KernelDefinition[] Create()
    {
        AddFormat<StreamedBf16>(WeightFormat.Bf16);
        AddFormat<StreamedFp8>(WeightFormat.Fp8Block);
        AddFormat<StreamedNvfp4>(WeightFormat.Nvfp4);
        AddFormat<StreamedInt4>(WeightFormat.Int4);
        AddFormat<StreamedInt4Zero>(WeightFormat.Int4Zero);
        return [.. ByKey.Values];
    }

    private static void AddFormat<TFormat>(WeightFormat format)
        where TFormat : struct, IStreamedFormat
    {
        var traits = new KernelTraits(32 * SkinnyGemm.MostWarps, NeedsWarp32: true, Overlaps: true);
        ByKey.Add((format, false), new(TileRows.Run<TFormat, OneTile>, traits));
        ByKey.Add((format, true), new(TileRows.Run<TFormat, TwoTiles>, traits));
    }
}
