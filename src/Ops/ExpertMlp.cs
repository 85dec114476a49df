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
/// On devices with 32-lane warps, for at most 512 experts whose weights, of one term, stream (docs/kernels/gemv.md) in whole chunks of 64 bytes a row; see <see cref="Exists(GpuDevice, in ExpertStack)"/>.
/// Float32 sums in a fixed order, no atomics on numbers: bitwise repeatable, unless a token names an expert twice, whose result is undefined. A token's bits do not depend on the other tokens or
/// their number.
/// </remarks>
public static partial class ExpertMlp
{
    /// <summary>Most tokens of a call.</summary>
    public const int MostTokens = Kernels.ExpertList.MostTokens;

    // Small blocks: nothing is shared between warps, and a block leaves when its slowest warp does.
    private const int DownWarps = 2;

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

    // Rows in whole 16-byte words and whole chunks, on 16-byte boundaries.
    private static bool CanStream(QuantizedMatrix matrix) =>
        matrix.Format.Info().Terms == 1 && SkinnyKernels.Exist(matrix.Format, null, matrix.Block) && matrix.Format.RowBytes(matrix.K) % SkinnyGemm.ChunkBytes == 0;

    private static int Check(GpuStream stream, in ExpertStack matrices, in TokenRouting routing, ArrayView<float> residual)
    {
        ArgumentNullException.ThrowIfNull(stream);
        stream.Device.RequireSame(matrices.GateUp.Device, nameof(matrices));
        stream.Device.RequireSame(matrices.Down.Device, nameof(matrices));
        Shape.RequireRange(routing.TopK, 1, Kernels.Router.MaxTopK, nameof(routing.TopK));
        if (!Exists(stream.Device, matrices))
            throw new NotSupportedException($"Experts in {matrices.GateUp.Format.Title()} of [{matrices.GateUp.N}, {matrices.GateUp.K}] do not run as a list of the chosen on {stream.Device.Name}.");
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
        int rows = DownWarps * ListedDown.WarpRows;
        tiles = (down.N + rows - 1) / rows;
        stream.Device.Launch(ExpertKernels.Down(down.Format), stream, (tiles, args.List.Ranks, 1), 32 * DownWarps, 0, args);
        ExpertCombine.Launch(stream, args.Outputs, routing, args.ExpertCount, (residual, args.List.Tokens, down.N), following);
    }

    internal static StreamedWeights Streamed(QuantizedMatrix matrix) => new() { Codes = matrix.Codes, ScaleTable = matrix.ScaleTable, N = matrix.N, K = matrix.K };
}
