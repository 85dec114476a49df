using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.Router;

namespace GpuKit.Ilgpu;

/// <summary>How a Mixture-of-Experts router chooses.</summary>
/// <param name="Experts">Number of experts, 1 to 4096.</param>
/// <param name="TopK">Experts a token, 1 to 32 and at most <paramref name="Experts"/>.</param>
/// <param name="NormalizeTopK">Whether the chosen probabilities are divided by their sum (<c>norm_topk_prob</c>).</param>
public readonly record struct RouterOptions(int Experts, int TopK, bool NormalizeTopK);

/// <summary>Chooses the experts of each token.</summary>
public static class Router
{
    private const int MostThreads = 256;

    // Up to this many experts a token is one warp's work: more warps would add barriers and save no time.
    private const int OneWarpExperts = 512;

    internal static readonly KernelDefinition<Kernel.Args> SoftmaxTopK = new(Kernel.Run, new KernelTraits(MostThreads, Overlaps: true));

    /// <summary>
    /// Softmax in float32 over all experts, then the <c>TopK</c> most probable in descending order, ties to the lowest index.
    /// Bitwise repeatable; tokens do not influence each other. The chosen ids of a token are always distinct and in range:
    /// a NaN logit counts as less than −∞ with probability 0 and is chosen only when nothing else is left; +∞ counts as the
    /// largest finite number. Without any finite logit all weights are 0.
    /// </summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="logits"><c>[tokens, experts]</c> float32.</param>
    /// <param name="expertIds"><c>[tokens, topK]</c>, written.</param>
    /// <param name="weights"><c>[tokens, topK]</c> float32, written.</param>
    /// <param name="tokens">Number of tokens; 0 does nothing.</param>
    /// <param name="options">Experts, top-k and normalisation.</param>
    /// <exception cref="ArgumentException">An option is out of range, or a view is too short or lives on another device.</exception>
    public static void SelectExperts(GpuStream stream, ArrayView<float> logits, ArrayView<int> expertIds, ArrayView<float> weights, int tokens, RouterOptions options) =>
        SelectExperts(stream, logits, (expertIds, weights), tokens, options, default);

    /// <summary>The same where some tokens are not there: those whose <paramref name="positions"/> are negative get the expert −1 with weight 0.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="logits"><c>[tokens, experts]</c> float32.</param>
    /// <param name="routing"><c>[tokens, topK]</c> ids and float32 weights, written.</param>
    /// <param name="tokens">Number of tokens.</param>
    /// <param name="options">Experts, top-k and normalisation.</param>
    /// <param name="positions"><c>[tokens]</c>, or empty where all tokens are there.</param>
    internal static void SelectExperts(GpuStream stream, ArrayView<float> logits, (ArrayView<int> Experts, ArrayView<float> Weights) routing, int tokens, RouterOptions options, ArrayView<int> positions)
    {
        (ArrayView<int> expertIds, ArrayView<float> weights) = routing;
        ArgumentNullException.ThrowIfNull(stream);
        Shape.RequireSize(tokens, nameof(tokens));
        Shape.RequireRange(options.Experts, 1, Kernel.MaxExperts, nameof(options.Experts));
        Shape.RequireRange(options.TopK, 1, Math.Min(options.Experts, Kernel.MaxTopK), nameof(options.TopK));
        Shape.Require(stream, logits, tokens, options.Experts, nameof(logits));
        Shape.Require(stream, expertIds, tokens, options.TopK, nameof(expertIds));
        Shape.Require(stream, weights, tokens, options.TopK, nameof(weights));
        Shape.Require(stream, positions, positions.Length == 0 ? 0 : 1, tokens, nameof(positions));
        if (tokens == 0)
            return;
        int threads = LaunchShape.WholeWarps(stream.Device, options.Experts <= OneWarpExperts ? 1 : options.Experts, MostThreads);
        var args = new Kernel.Args
        {
            Logits = logits,
            ExpertIds = expertIds,
            Weights = weights,
            Positions = positions,
            Tokens = tokens,
            Experts = options.Experts,
            TopK = options.TopK,
            Normalize = options.NormalizeTopK ? 1 : 0,
        };
        stream.Device.Launch(SoftmaxTopK, stream, (LaunchShape.Blocks(stream.Device, tokens, 1), 1, 1), threads, 0, args);
    }
}
