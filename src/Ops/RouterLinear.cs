using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.RouterLinear;

namespace GpuKit.Ilgpu;

/// <summary>
/// Logits and choice of experts in one launch, for up to 64 tokens: <see cref="Kernel"/>. On devices with 32-lane warps, for routers in BF16 of at most 512 experts whose rows are whole chunks of 64 bytes.
/// Bitwise repeatable; a token's bits depend neither on the others nor on their number.
/// </summary>
internal static class RouterLinear
{
    // For two blocks a multiprocessor, which the compiler aims at, it spills.
    internal static readonly KernelDefinition<RouterLinearArgs> Product = new(Kernel.Run, new KernelTraits(32 * SkinnyGemm.MostWarps, NeedsWarp32: true, Overlaps: true, BlocksPerMultiprocessor: 1));

    /// <summary>Most tokens of a call.</summary>
    public const int MostTokens = Kernel.MostTokens;

    /// <summary>Counters that a call needs.</summary>
    public const int Counters = MostTokens / TileStream.Columns;

    /// <summary>Whether a router runs here.</summary>
    public static bool Exists(GpuDevice device, QuantizedMatrix router) =>
        device.WarpSize == 32 && router.Format == WeightFormat.Bf16 && router.Count == 1 && router.N <= Kernel.MostExperts
        && router.Format.RowBytes(router.K) % SkinnyGemm.ChunkBytes == 0;

    /// <summary><c>logits = x · Wᵀ</c>, and the experts of each token as <see cref="Router"/> chooses them.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="router"><c>W[experts, hidden]</c>, for which <see cref="Exists"/> holds.</param>
    /// <param name="x"><c>[tokens, hidden]</c> BF16, 16-byte aligned.</param>
    /// <param name="routed">Where logits and choice go; positions may be empty.</param>
    /// <param name="counters"><see cref="Counters"/> numbers, zero before and afterwards: of one call at a time.</param>
    /// <param name="tokens">1 to 64.</param>
    /// <exception cref="ArgumentException">A size is out of range, or a view is too short or lives on another device.</exception>
    /// <exception cref="NotSupportedException">The router does not run here.</exception>
    public static void Route(GpuStream stream, QuantizedMatrix router, ArrayView<BFloat16> x, in RoutedRows routed, ArrayView<int> counters, int tokens)
    {
        ArgumentNullException.ThrowIfNull(stream);
        stream.Device.RequireSame(router.Device, nameof(router));
        if (!Exists(stream.Device, router))
            throw new NotSupportedException($"A router of [{router.N}, {router.K}] in {router.Format.Title()} does not choose on {stream.Device.Name} by itself.");
        int topK = routed.Routing.TopK;
        Shape.RequireRange(tokens, 1, MostTokens, nameof(tokens));
        Shape.RequireRange(topK, 1, Math.Min(router.N, Kernels.Router.MaxTopK), nameof(routed));
        Shape.Require(stream, x, tokens, router.K, nameof(x));
        if (!Shape.IsVectorAligned(x, 2L * router.K))
            throw new ArgumentException("Inputs must lie on a 16-byte boundary.", nameof(x));
        Shape.Require(stream, routed.Logits, tokens, router.N, nameof(routed));
        Shape.Require(stream, routed.Routing.Experts, tokens, topK, nameof(routed));
        Shape.Require(stream, routed.Routing.Weights, tokens, topK, nameof(routed));
        Shape.Require(stream, routed.Positions, routed.Positions.Length == 0 ? 0 : 1, tokens, nameof(routed));
        Shape.Require(stream, counters, 1, Counters, nameof(counters));
        var args = new RouterLinearArgs
        {
            Choice = new Kernels.Router.Args
            {
                Logits = routed.Logits,
                ExpertIds = routed.Routing.Experts,
                Weights = routed.Routing.Weights,
                Positions = routed.Positions,
                Tokens = tokens,
                Experts = router.N,
                TopK = topK,
                Normalize = routed.Normalize ? 1 : 0,
            },
            Weights = ExpertMlp.Streamed(router),
            X = x.Cast<ushort>(),
            Arrived = counters,
        };
        // The same for any number of tokens.
        int warps = Math.Min(SkinnyGemm.MostWarps, stream.Device.MaxThreadsPerBlock / 32);
        (int tiles, int groups) = ((router.N + TileStream.Rows - 1) / TileStream.Rows, (tokens + TileStream.Columns - 1) / TileStream.Columns);
        stream.Device.Launch(Product, stream, (tiles, groups, 1), 32 * warps, Kernel.SharedBytes(warps, router.N), args);
    }
}
