using GpuKit.Ilgpu.Kernels;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>The matrices of a layer's experts.</summary>
/// <param name="GateUp"><c>[experts, 2·width, hidden]</c>: gate rows, then up rows.</param>
/// <param name="Down"><c>[experts, hidden, width]</c>.</param>
public readonly record struct ExpertStack(QuantizedMatrix GateUp, QuantizedMatrix Down);

/// <summary>Which experts each token goes to and with what weight, on the device; of a token's experts no two are the same.</summary>
/// <param name="Experts"><c>[tokens, topK]</c> as <see cref="Router"/> writes them.</param>
/// <param name="Weights"><c>[tokens, topK]</c> float32.</param>
/// <param name="TopK">Experts a token, 1 to 32.</param>
public readonly record struct TokenRouting(ArrayView<int> Experts, ArrayView<float> Weights, int TopK);

/// <summary>One token's routing, where kernels make it.</summary>
/// <param name="Routing"><c>[1, topK]</c>, written.</param>
/// <param name="Logits"><c>[experts]</c> float32, written.</param>
/// <param name="Normalize">Whether the chosen probabilities are divided by their sum.</param>
internal readonly record struct RoutedToken(TokenRouting Routing, ArrayView<float> Logits, bool Normalize);

/// <summary>The RMSNorm before a product, where the product does it itself.</summary>
/// <param name="Gain"><c>[hidden]</c> BF16.</param>
/// <param name="Epsilon">Added to the mean square.</param>
internal readonly record struct InputNorm(ArrayView<BFloat16> Gain, float Epsilon);

/// <summary>
/// The chosen experts of at most 16 tokens: <c>residual[t] += Σ_j p[t, j] · Wdown(silu(Wgate·x) ⊙ Wup·x)</c>, every chosen expert's weights read
/// once, of gate and up once for each eight tokens that chose it, in two launches.
/// </summary>
/// <remarks>
/// On devices with 32-lane warps, for weights that stream (docs/kernels/gemv.md) in whole chunks of 64 bytes a row; see <see cref="Exists(GpuDevice, in ExpertStack)"/>.
/// Float32 sums in a fixed order, no atomics on numbers: bitwise repeatable. A token's bits do not depend on the other tokens or
/// their number.
/// </remarks>
public static class ExpertMlp
{
    /// <summary>Most tokens of a call.</summary>
    public const int MostTokens = ExpertGateUp.MostTokens;

    internal const int GateUpWarps = 4;

    /// <summary>Whether these matrices run here.</summary>
    public static bool Exists(GpuDevice device, in ExpertStack matrices)
    {
        ArgumentNullException.ThrowIfNull(device);
        (QuantizedMatrix gateUp, QuantizedMatrix down) = matrices;
        return device.WarpSize == 32 && CanStream(gateUp) && CanStream(down) && gateUp.N % 2 == 0 && gateUp.N / 2 == down.K && gateUp.K == down.N
            && gateUp.Count == down.Count
            // A tile's scale is one for its rows: up's begin on a block's edge.
            && (gateUp.Format != WeightFormat.Fp8Block || down.K % gateUp.Block.Rows == 0);
    }

    /// <summary>The same for tokens of so many experts each, whose inputs of down must fit shared memory.</summary>
    internal static bool Exists(GpuDevice device, in ExpertStack matrices, int topK) =>
        Exists(device, matrices)
        && ExpertKernels.DownShared(ExpertInputs.One, SkinnyGemm.MostWarps, (topK, 1), matrices.Down.K) <= device.MaxSharedBytesPerBlock - ExpertDown.StaticBytes
        && ExpertKernels.DownShared(ExpertInputs.Sixteen, SkinnyGemm.MostWarps, (MostTokens * topK, MostTokens), matrices.Down.K) <= device.MaxSharedBytesPerBlock - ExpertDown.StaticBytes;

    /// <summary>Multiplies inputs that are normed already.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="matrices">The experts; <see cref="Exists(GpuDevice, in ExpertStack)"/> must hold.</param>
    /// <param name="routing">The tokens' experts. One that does not exist adds nothing.</param>
    /// <param name="x"><c>[tokens, hidden]</c> BF16.</param>
    /// <param name="activated"><c>[tokens · topK, width]</c> BF16, workspace.</param>
    /// <param name="residual"><c>[tokens, hidden]</c> float32, added to.</param>
    /// <exception cref="ArgumentException">A size is out of range, or a view is too short or lives on another device.</exception>
    /// <exception cref="NotSupportedException">The matrices do not run here.</exception>
    public static void Apply(GpuStream stream, in ExpertStack matrices, in TokenRouting routing, ArrayView<BFloat16> x, ArrayView<BFloat16> activated, ArrayView<float> residual)
    {
        int tokens = Check(stream, matrices, routing, activated, residual);
        Shape.Require(stream, x, tokens, matrices.GateUp.K, nameof(x));
        ExpertInputs inputs = tokens == 1 ? ExpertInputs.One : tokens <= TileStream.Columns ? ExpertInputs.Eight : ExpertInputs.Sixteen;
        Launch(stream, matrices, CreateArgs(routing, activated, residual, tokens) with { Source = new TileSource { X = x.Cast<ushort>() } }, inputs);
    }

    /// <summary>
    /// One token, its residual stream normed and its experts chosen by the kernels: <c>x = bf16(residual · gain) · rsqrt(mean(residual²) + epsilon)</c>,
    /// routing from the sums that <see cref="DecodeLinear"/> left. Sums must be older than the launch before this call in a graph, and the announcement behind them zero.
    /// </summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="matrices">The experts.</param>
    /// <param name="routing">Written: the token's experts and weights, and the logits.</param>
    /// <param name="router">Sums and the norm.</param>
    /// <param name="activated"><c>[topK, width]</c> BF16, workspace.</param>
    /// <param name="residual"><c>[hidden]</c> float32, read and added to.</param>
    internal static void ApplyRouted(GpuStream stream, in ExpertStack matrices, in RoutedToken routing, in RouterFeed router, ArrayView<BFloat16> activated, ArrayView<float> residual)
    {
        int tokens = Check(stream, matrices, routing.Routing, activated, residual);
        if (tokens != 1)
            throw new ArgumentException($"One token is routed by the kernels, not {tokens}.", nameof(routing));
        Shape.RequireRange(routing.Routing.TopK, 1, Math.Min(matrices.GateUp.Count, Kernels.Router.MaxTopK), nameof(routing));
        Shape.RequireRange(matrices.GateUp.Count, 1, RouterSums.MostExperts, nameof(matrices));
        Shape.Require(stream, router.Sums, 1, RouterSums.Length(matrices.GateUp.Count), nameof(router));
        Shape.Require(stream, routing.Logits, 1, matrices.GateUp.Count, nameof(routing));
        Shape.Require(stream, router.Norm.Gain, 1, matrices.GateUp.K, nameof(router));
        Shape.RequireEpsilon(router.Norm.Epsilon, nameof(router));
        ExpertArgs args = CreateArgs(routing.Routing, activated, residual, 1);
        args.Source = new TileSource { Residual = residual, Gain = router.Norm.Gain.Cast<ushort>(), Epsilon = router.Norm.Epsilon };
        args.Router = new RouterArgs { Sums = router.Sums.SubView(0, matrices.GateUp.Count), Logits = routing.Logits.SubView(0, matrices.GateUp.Count), Normalize = routing.Normalize ? 1 : 0 };
        args.Router.Announced = router.Sums.SubView(matrices.GateUp.Count, RouterSums.Length(matrices.GateUp.Count) - matrices.GateUp.Count).Cast<uint>();
        Launch(stream, matrices, args, ExpertInputs.Normed);
    }

    // Rows in whole 16-byte words and whole chunks, on 16-byte boundaries.
    private static bool CanStream(QuantizedMatrix matrix) =>
        SkinnyKernels.Exist(matrix.Format, null, matrix.Block) && matrix.Format.RowBytes(matrix.K) % SkinnyGemm.ChunkBytes == 0;

    private static int Check(GpuStream stream, in ExpertStack matrices, in TokenRouting routing, ArrayView<BFloat16> activated, ArrayView<float> residual)
    {
        ArgumentNullException.ThrowIfNull(stream);
        stream.Device.RequireSame(matrices.GateUp.Device, nameof(matrices));
        stream.Device.RequireSame(matrices.Down.Device, nameof(matrices));
        Shape.RequireRange(routing.TopK, 1, Kernels.Router.MaxTopK, nameof(routing.TopK));
        if (!Exists(stream.Device, matrices, routing.TopK))
            throw new NotSupportedException($"Experts in {matrices.GateUp.Format.Title()} of [{matrices.GateUp.N}, {matrices.GateUp.K}], {routing.TopK} a token, do not stream on {stream.Device.Name}.");
        int tokens = (int)Math.Min(routing.Experts.Length / routing.TopK, int.MaxValue);
        Shape.RequireRange(tokens, 1, ExpertGateUp.MostTokens, nameof(routing));
        Shape.Require(stream, routing.Experts, tokens, routing.TopK, nameof(routing));
        Shape.Require(stream, routing.Weights, tokens, routing.TopK, nameof(routing));
        Shape.Require(stream, activated, (long)tokens * routing.TopK, matrices.Down.K, nameof(activated));
        Shape.Require(stream, residual, tokens, matrices.Down.N, nameof(residual));
        return tokens;
    }

    private static ExpertArgs CreateArgs(in TokenRouting routing, ArrayView<BFloat16> activated, ArrayView<float> residual, int tokens) => new()
    {
        Experts = routing.Experts,
        PairWeights = routing.Weights,
        Activated = activated.SubView(0, activated.Length).Cast<ushort>(),
        Residual = residual,
        Tokens = tokens,
        TopK = routing.TopK,
    };

    // The two launches belong together: the second reads the routing before it waits for the first.
    private static void Launch(GpuStream stream, in ExpertStack matrices, ExpertArgs args, ExpertInputs inputs)
    {
        (QuantizedMatrix gateUp, QuantizedMatrix down) = matrices;
        int most = Math.Min(SkinnyGemm.MostWarps, stream.Device.MaxThreadsPerBlock / 32), pairs = args.Tokens * args.TopK;
        args.ExpertCount = gateUp.Count;
        args.Width = down.K;
        args.Activated = args.Activated.SubView(0, (long)pairs * down.K);
        args.Weights = Streamed(gateUp);
        int warps = Math.Min(GateUpWarps, most), tiles = (down.K + TileStream.Rows - 1) / TileStream.Rows;
        stream.Device.Launch(ExpertKernels.GateUp(gateUp.Format, inputs), stream, (tiles, pairs, 1), 32 * warps, ExpertKernels.GateUpShared(inputs, warps, gateUp.K), args);
        args.Weights = Streamed(down);
        warps = ExpertDown.Warps((int)(down.Format.RowBytes(down.K) / SkinnyGemm.ChunkBytes), most);
        tiles = (down.N + TileStream.Rows - 1) / TileStream.Rows;
        stream.Device.Launch(ExpertKernels.Down(down.Format, inputs), stream, (tiles, 1, 1), 32 * warps, ExpertKernels.DownShared(inputs, warps, (pairs, args.Tokens), down.K), args);
    }

    internal static StreamedWeights Streamed(QuantizedMatrix matrix) => new() { Codes = matrix.Codes, ScaleTable = matrix.ScaleTable, N = matrix.N, K = matrix.K };
}
