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

/// <summary>The norm behind a layer of experts, where the layer's last launch does it.</summary>
/// <param name="Norm">Gains and epsilon.</param>
/// <param name="Normed"><c>[tokens, hidden]</c> BF16, written; the layer's own inputs may lie there.</param>
internal readonly record struct FollowingNorm(InputNorm Norm, ArrayView<BFloat16> Normed);

/// <summary>
/// The chosen experts of at most 64 tokens: <c>residual[t] += Σ_j p[t, j] · Wdown(silu(Wgate·x) ⊙ Wup·x)</c>, every chosen expert's weights read
/// once for each eight tokens that chose it.
/// </summary>
/// <remarks>
/// On devices with 32-lane warps, for at most 512 experts whose weights stream (docs/kernels/gemv.md) in whole chunks of 64 bytes a row; see <see cref="Exists(GpuDevice, in ExpertStack)"/>.
/// Float32 sums in a fixed order, no atomics on numbers: bitwise repeatable. A token's bits do not depend on the other tokens or
/// their number.
/// </remarks>
public static class ExpertMlp
{
    /// <summary>Most tokens of a call.</summary>
    public const int MostTokens = Kernels.ExpertList.MostTokens;

    internal const int RoutedGateUpWarps = 4;

    /// <summary>Whether these matrices run here.</summary>
    public static bool Exists(GpuDevice device, in ExpertStack matrices)
    {
        ArgumentNullException.ThrowIfNull(device);
        (QuantizedMatrix gateUp, QuantizedMatrix down) = matrices;
        return device.WarpSize == 32 && device.MaxThreadsPerBlock >= ListedGateUp.Threads && CanStream(gateUp) && CanStream(down) && gateUp.N % 2 == 0 && gateUp.N / 2 == down.K && gateUp.K == down.N
            && gateUp.Count == down.Count && gateUp.Count <= Kernels.ExpertList.MostExperts
            // A tile's scale is one for its rows: up's begin on a block's edge.
            && (gateUp.Format != WeightFormat.Fp8Block || down.K % gateUp.Block.Rows == 0);
    }

    /// <summary>Whether <see cref="ApplyRouted"/> runs: a token's inputs of down must fit shared memory.</summary>
    internal static bool ExistsRouted(GpuDevice device, in ExpertStack matrices, int topK) =>
        Exists(device, matrices) && ExpertDown.SharedBytes(SkinnyGemm.MostWarps, topK, matrices.Down.K) <= device.MaxSharedBytesPerBlock;

    /// <summary>Multiplies inputs that are normed already.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="matrices">The experts; <see cref="Exists(GpuDevice, in ExpertStack)"/> must hold.</param>
    /// <param name="routing">The tokens' experts. One that does not exist adds nothing.</param>
    /// <param name="x"><c>[tokens, hidden]</c> BF16 on 16-byte boundaries; tokens are as many as <paramref name="routing"/> has, 1 to <see cref="MostTokens"/>.</param>
    /// <param name="workspace">Of at least these sizes, not used by anything else meanwhile.</param>
    /// <param name="residual"><c>[tokens, hidden]</c> float32 on 16-byte boundaries, added to.</param>
    /// <exception cref="ArgumentException">A size is out of range, or a view is too short, unaligned or lives on another device.</exception>
    /// <exception cref="NotSupportedException">The matrices do not run here.</exception>
    public static void Apply(GpuStream stream, in ExpertStack matrices, in TokenRouting routing, ArrayView<BFloat16> x, ExpertMlpWorkspace workspace, ArrayView<float> residual)
    {
        ListedArgs args = Prepare(stream, matrices, routing, x, workspace, residual);
        ExpertList.Launch(stream, routing.Experts, args.List, routing.TopK, args.ExpertCount);
        Launch(stream, matrices, args, routing, residual, null);
    }

    /// <summary><see cref="Apply"/> where the list of the routing is in the workspace already, with the norm of what follows.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="matrices">The experts.</param>
    /// <param name="routing">The tokens' experts, as the list has them. It and the list must be older than this call, and the residual stream older than the list.</param>
    /// <param name="workspace">With the list of <see cref="DecodeRows.Route"/>.</param>
    /// <param name="residual"><c>[tokens, hidden]</c> float32, added to.</param>
    /// <param name="following">The norm behind; its rows are the inputs before.</param>
    internal static void ApplyListed(GpuStream stream, in ExpertStack matrices, in TokenRouting routing, ExpertMlpWorkspace workspace, ArrayView<float> residual, in FollowingNorm following)
    {
        ListedArgs args = Prepare(stream, matrices, routing, following.Normed, workspace, residual);
        Shape.Require(stream, following.Norm.Gain, 1, matrices.Down.N, nameof(following));
        Shape.RequireEpsilon(following.Norm.Epsilon, nameof(following));
        Launch(stream, matrices, args, routing, residual, following);
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
        int tokens = Check(stream, matrices, routing.Routing, residual);
        Shape.Require(stream, activated, (long)tokens * routing.Routing.TopK, matrices.Down.K, nameof(activated));
        if (!ExistsRouted(stream.Device, matrices, routing.Routing.TopK))
            throw new NotSupportedException($"{routing.Routing.TopK} experts of {matrices.Down.K} columns are too many for a block of {stream.Device.Name}.");
        if (tokens != 1)
            throw new ArgumentException($"One token is routed by the kernels, not {tokens}.", nameof(routing));
        Shape.RequireRange(routing.Routing.TopK, 1, Math.Min(matrices.GateUp.Count, Kernels.Router.MaxTopK), nameof(routing));
        Shape.RequireRange(matrices.GateUp.Count, 1, RouterSums.MostExperts, nameof(matrices));
        Shape.Require(stream, router.Sums, 1, RouterSums.Length(matrices.GateUp.Count), nameof(router));
        Shape.Require(stream, routing.Logits, 1, matrices.GateUp.Count, nameof(routing));
        Shape.Require(stream, router.Norm.Gain, 1, matrices.GateUp.K, nameof(router));
        Shape.RequireEpsilon(router.Norm.Epsilon, nameof(router));
        var args = new ExpertArgs
        {
            Experts = routing.Routing.Experts,
            PairWeights = routing.Routing.Weights,
            Activated = activated.SubView(0, (long)routing.Routing.TopK * matrices.Down.K).Cast<ushort>(),
            Residual = residual,
            TopK = routing.Routing.TopK,
            ExpertCount = matrices.GateUp.Count,
            Width = matrices.Down.K,
        };
        args.Source = new TileSource { Residual = residual, Gain = router.Norm.Gain.Cast<ushort>(), Epsilon = router.Norm.Epsilon };
        args.Router = new RouterArgs { Sums = router.Sums.SubView(0, matrices.GateUp.Count), Logits = routing.Logits.SubView(0, matrices.GateUp.Count), Normalize = routing.Normalize ? 1 : 0 };
        args.Router.Announced = router.Sums.SubView(matrices.GateUp.Count, RouterSums.Length(matrices.GateUp.Count) - matrices.GateUp.Count).Cast<uint>();
        LaunchRouted(stream, matrices, args);
    }

    // Rows in whole 16-byte words and whole chunks, on 16-byte boundaries.
    private static bool CanStream(QuantizedMatrix matrix) =>
        SkinnyKernels.Exist(matrix.Format, null, matrix.Block) && matrix.Format.RowBytes(matrix.K) % SkinnyGemm.ChunkBytes == 0;

    private static int Check(GpuStream stream, in ExpertStack matrices, in TokenRouting routing, ArrayView<float> residual)
    {
        ArgumentNullException.ThrowIfNull(stream);
        stream.Device.RequireSame(matrices.GateUp.Device, nameof(matrices));
        stream.Device.RequireSame(matrices.Down.Device, nameof(matrices));
        Shape.RequireRange(routing.TopK, 1, Kernels.Router.MaxTopK, nameof(routing.TopK));
        if (!Exists(stream.Device, matrices))
            throw new NotSupportedException($"Experts in {matrices.GateUp.Format.Title()} of [{matrices.GateUp.N}, {matrices.GateUp.K}] do not stream on {stream.Device.Name}.");
        int tokens = (int)Math.Min(routing.Experts.Length / routing.TopK, int.MaxValue);
        Shape.RequireRange(tokens, 1, MostTokens, nameof(routing));
        Shape.Require(stream, routing.Experts, tokens, routing.TopK, nameof(routing));
        Shape.Require(stream, routing.Weights, tokens, routing.TopK, nameof(routing));
        Shape.Require(stream, residual, tokens, matrices.Down.N, nameof(residual));
        return tokens;
    }

    private static ListedArgs Prepare(GpuStream stream, in ExpertStack matrices, in TokenRouting routing, ArrayView<BFloat16> x, ExpertMlpWorkspace workspace, ArrayView<float> residual)
    {
        int tokens = Check(stream, matrices, routing, residual);
        (int hidden, int width, int experts) = (matrices.Down.N, matrices.Down.K, matrices.Down.Count);
        ArgumentNullException.ThrowIfNull(workspace);
        stream.Device.RequireSame(workspace.Device, nameof(workspace));
        Shape.Require(stream, x, tokens, hidden, nameof(x));
        if (!Shape.IsVectorAligned(x, 2L * hidden) || !Shape.IsVectorAligned(residual, 4L * hidden))
            throw new ArgumentException("Inputs and residual stream must lie on 16-byte boundaries.", nameof(x));
        if (hidden > workspace.Size.Hidden || width > workspace.Size.Width)
            throw new ArgumentException($"A workspace for experts of {workspace.Size.Hidden} by {workspace.Size.Width} does not hold {hidden} by {width}.", nameof(workspace));
        long pairs = (long)tokens * routing.TopK;
        return new ListedArgs
        {
            List = workspace.List(tokens, routing.TopK, experts),
            X = x.Cast<ushort>(),
            Activated = workspace.Activated.View.SubView(0, pairs * width).Cast<ushort>(),
            Outputs = workspace.Outputs.View.SubView(0, pairs * hidden),
            ExpertCount = experts,
            Width = width,
        };
    }

    // The three launches belong together: each reads what is older than the one before it ahead of waiting for that.
    private static void Launch(GpuStream stream, in ExpertStack matrices, ListedArgs args, in TokenRouting routing, ArrayView<float> residual, FollowingNorm? following)
    {
        (QuantizedMatrix gateUp, QuantizedMatrix down) = matrices;
        args.Weights = Streamed(gateUp);
        int tiles = (down.K + TileStream.Rows - 1) / TileStream.Rows;
        stream.Device.Launch(ExpertKernels.GateUp(gateUp.Format), stream, (tiles, args.List.Ranks, 1), ListedGateUp.Threads, ListedGateUp.SharedBytes, args);
        args.Weights = Streamed(down);
        int rows = ExpertKernels.DownWarps * ListedDown.WarpRows;
        tiles = (down.N + rows - 1) / rows;
        stream.Device.Launch(ExpertKernels.Down(down.Format), stream, (tiles, args.List.Ranks, 1), 32 * ExpertKernels.DownWarps, 0, args);
        ExpertCombine.Launch(stream, args.Outputs, routing, args.ExpertCount, (residual, args.List.Tokens, down.N), following);
    }

    // The two launches belong together: the second reads the announced routing before it waits for the first.
    private static void LaunchRouted(GpuStream stream, in ExpertStack matrices, ExpertArgs args)
    {
        (QuantizedMatrix gateUp, QuantizedMatrix down) = matrices;
        int most = Math.Min(SkinnyGemm.MostWarps, stream.Device.MaxThreadsPerBlock / 32);
        args.Weights = Streamed(gateUp);
        int warps = Math.Min(RoutedGateUpWarps, most), tiles = (down.K + TileStream.Rows - 1) / TileStream.Rows;
        stream.Device.Launch(ExpertKernels.RoutedGateUp(gateUp.Format), stream, (tiles, args.TopK, 1), 32 * warps, ExpertGateUp.SharedBytes(warps, gateUp.K), args);
        args.Weights = Streamed(down);
        warps = ExpertDown.Warps((int)(down.Format.RowBytes(down.K) / SkinnyGemm.ChunkBytes), most);
        tiles = (down.N + TileStream.Rows - 1) / TileStream.Rows;
        stream.Device.Launch(ExpertKernels.RoutedDown(down.Format), stream, (tiles, 1, 1), 32 * warps, ExpertDown.SharedBytes(warps, args.TopK, down.K), args);
    }

    internal static StreamedWeights Streamed(QuantizedMatrix matrix) => new() { Codes = matrix.Codes, ScaleTable = matrix.ScaleTable, N = matrix.N, K = matrix.K };
}
