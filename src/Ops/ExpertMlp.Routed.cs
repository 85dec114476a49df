using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Runtime;
using ILGPU;
using ILGPU.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>One token's routing, where kernels make it.</summary>
/// <param name="Routing"><c>[1, topK]</c>, written.</param>
/// <param name="Logits"><c>[experts]</c> float32, written.</param>
/// <param name="Normalize">Whether the chosen probabilities are divided by their sum.</param>
internal readonly record struct RoutedToken(TokenRouting Routing, ArrayView<float> Logits, bool Normalize);

// One token, which the kernels route, and in a decode step norm, themselves.
public static partial class ExpertMlp
{
    internal const int RoutedGateUpWarps = 4;
    internal static DeviceBuffer<ulong>? Stamps;
    internal static int Turn;
    internal static long FusedRouter;
    private static bool filled;

    internal static long NextStamps(GpuDevice device)
    {
        if (!Fused)
            return 0;
        Turn++;
        if (Environment.GetEnvironmentVariable("GPUKIT_STAMPS") is null)
            return 0;
        Stamps ??= device.Allocate<ulong>(80000);
        return Shape.Address(Stamps.View.SubView((Turn & 1) * 40000, 40000));
    }


    internal static readonly bool Fused = Environment.GetEnvironmentVariable("GPUKIT_FUSED") == "1";
    private static readonly KernelTraits LayerTraits = new KernelTraits(512, MinArch: 90, NeedsWarp32: true, Overlaps: true, HasPlainArguments: true, HopperSharedPercent: 100);
    internal static readonly KernelDefinition<ExpertLayerArgs> Layer = (Environment.GetEnvironmentVariable("X_V") ?? "0") switch
    {
        "0" => new(ExpertLayer.Run<SwitchOff, SwitchOff>, LayerTraits),
        "1" => new(ExpertLayer.Run<SwitchOn, SwitchOff>, LayerTraits),
        "2" => new(ExpertLayer.Run<SwitchOff, SwitchOn>, LayerTraits),
        _ => new(ExpertLayer.Run<SwitchOn, SwitchOn>, LayerTraits),
    };

    /// <summary>Whether <see cref="ApplyRouted"/> runs: at most 128 experts, and a token's inputs must fit shared memory.</summary>
    internal static bool ExistsRouted(GpuDevice device, in ExpertStack matrices, int topK) =>
        Exists(device, matrices) && matrices.GateUp.Count <= RouterSums.MostExperts && topK <= matrices.GateUp.Count
        && ExpertDown.SharedBytes(SkinnyGemm.MostWarps, topK, matrices.Down.K) <= device.MaxSharedBytesPerBlock
        && ExpertGateUp.SharedBytes(RoutedGateUpWarps, matrices.GateUp.K) <= device.MaxSharedBytesPerBlock - ExpertGateUp.StaticBytes;

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
        int experts = matrices.GateUp.Count, length = RouterSums.Length(experts);
        Shape.Require(stream, router.Sums, 1, length, nameof(router));
        ExpertArgs args = CreateRouted(stream, matrices, routing, activated, residual);
        args.Router.Sums = router.Sums.SubView(0, experts);
        args.Router.Announced = router.Sums.SubView(experts, length - experts).Cast<uint>();
        Shape.Require(stream, router.Norm.Gain, 1, matrices.GateUp.K, nameof(router));
        Shape.RequireEpsilon(router.Norm.Epsilon, nameof(router));
        args.Source = new TileSource { Residual = residual, Gain = router.Norm.Gain.Cast<ushort>(), Epsilon = router.Norm.Epsilon };
        LaunchRouted(stream, matrices, args, norms: true);
    }

    /// <summary><see cref="ApplyRouted"/> for a state that is normed already, from the logits that <see cref="DecodeLinear.Feed"/> posts in the launch before.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="matrices">The experts.</param>
    /// <param name="routing">Written: the token's experts and weights, and the logits.</param>
    /// <param name="posts">The router's logits, zero afterwards, and the announcement behind them.</param>
    /// <param name="x"><c>[hidden]</c> BF16.</param>
    /// <param name="activated"><c>[topK, width]</c> BF16, workspace.</param>
    /// <param name="residual"><c>[hidden]</c> float32, added to.</param>
    internal static void ApplyFed(GpuStream stream, in ExpertStack matrices, in RoutedToken routing, ArrayView<uint> posts, ArrayView<BFloat16> x, ArrayView<BFloat16> activated, ArrayView<float> residual)
    {
        int experts = matrices.GateUp.Count;
        Shape.Require(stream, posts, 1, RouterPosts.Length(experts), nameof(posts));
        if (Fused)
        {
            (QuantizedMatrix gateUp, QuantizedMatrix down) = matrices;
            var layer = new ExpertLayerArgs
            {
                GateUp = TensorMaps.Encode(stream.Device, new TensorMapFields(Shape.Address(gateUp.Codes.View), 1, gateUp.K, (long)gateUp.Count * gateUp.N, gateUp.K, 128, 16)),
                Down = TensorMaps.Encode(stream.Device, new TensorMapFields(Shape.Address(down.Codes.View), 1, down.K, (long)down.Count * down.N, down.K, 128, 16)),
                X = Shape.Address(x),
                GateUpScales = Shape.Address(gateUp.ScaleTable.Blocks),
                DownScales = Shape.Address(down.ScaleTable.Blocks),
                GateUpScalesPerExpert = gateUp.ScaleTable.PerSlab,
                DownScalesPerExpert = down.ScaleTable.PerSlab,
                DownScaleColumns = down.ScaleTable.Columns,
                Posts = Shape.Address(posts.SubView((Turn & 1) * RouterPosts.Copies * experts)),
                Exchange = Shape.Address(RouterPosts.Exchange(posts, experts).SubView((Turn & 1) * 3072)),
                OtherExchange = Shape.Address(RouterPosts.Exchange(posts, experts).SubView((~Turn & 1) * 3072)),
                OtherPosts = Shape.Address(posts.SubView((~Turn & 1) * RouterPosts.Copies * experts)),
                Router = FusedRouter,
                Residual = Shape.Address(residual),
                Experts = Shape.Address(routing.Routing.Experts),
                PairWeights = Shape.Address(routing.Routing.Weights),
                Logits = Shape.Address(routing.Logits),
                Width = down.K,
                ExpertCount = experts,
                Normalize = routing.Normalize ? 1 : 0,
                Stamps = Stamps is null ? 0 : Shape.Address(Stamps.View.SubView((Turn & 1) * 40000, 40000)),
            };
            if (!filled)
            {
                filled = true;
                RouterPosts.Exchange(posts, experts).CopyFromCPU(stream.Accelerator, Enumerable.Repeat(uint.MaxValue, 6144).ToArray());
            }
            stream.Device.Launch(Layer, stream, (128, 1, 1), ExpertLayer.Threads, ExpertLayer.SharedBytes, layer);
            return;
        }
        ExpertArgs args = CreateRouted(stream, matrices, routing, activated, residual);
        args.Router.Posts = RouterPosts.Logits(posts, experts);
        args.Router.Announced = RouterPosts.Announced(posts, experts);
        Shape.Require(stream, x, 1, matrices.GateUp.K, nameof(x));
        if (!Shape.IsVectorAligned(x, 16))
            throw new ArgumentException("Inputs must lie on a 16-byte boundary.", nameof(x));
        args.Source = new TileSource { X = x.Cast<ushort>().SubView(0, matrices.GateUp.K) };
        LaunchRouted(stream, matrices, args, norms: false);
    }

    private static ExpertArgs CreateRouted(GpuStream stream, in ExpertStack matrices, in RoutedToken routing, ArrayView<BFloat16> activated, ArrayView<float> residual)
    {
        int tokens = Check(stream, matrices, routing.Routing, residual);
        Shape.Require(stream, activated, (long)tokens * routing.Routing.TopK, matrices.Down.K, nameof(activated));
        if (!ExistsRouted(stream.Device, matrices, routing.Routing.TopK))
            throw new NotSupportedException($"{routing.Routing.TopK} experts of {matrices.Down.K} columns are too many for a block of {stream.Device.Name}.");
        if (tokens != 1)
            throw new ArgumentException($"One token is routed by the kernels, not {tokens}.", nameof(routing));
        int experts = matrices.GateUp.Count;
        Shape.RequireRange(routing.Routing.TopK, 1, Math.Min(experts, Kernels.Router.MaxTopK), nameof(routing));
        Shape.RequireRange(experts, 1, RouterSums.MostExperts, nameof(matrices));
        Shape.Require(stream, routing.Logits, 1, experts, nameof(routing));
        return new ExpertArgs
        {
            Experts = routing.Routing.Experts,
            PairWeights = routing.Routing.Weights,
            Activated = activated.SubView(0, (long)routing.Routing.TopK * matrices.Down.K).Cast<ushort>(),
            Residual = residual,
            TopK = routing.Routing.TopK,
            ExpertCount = experts,
            Width = matrices.Down.K,
            Router = new RouterArgs
            {
                Logits = routing.Logits.SubView(0, experts),
                Normalize = routing.Normalize ? 1 : 0,
            },
        };
    }

    // The two launches belong together: the second reads the announced routing before it waits for the first.
    private static void LaunchRouted(GpuStream stream, in ExpertStack matrices, ExpertArgs args, bool norms)
    {
        (QuantizedMatrix gateUp, QuantizedMatrix down) = matrices;
        int most = Math.Min(SkinnyGemm.MostWarps, stream.Device.MaxThreadsPerBlock / 32);
        args.Weights = Streamed(gateUp);
        int warps = Math.Min(RoutedGateUpWarps, most), tiles = (down.K + TileStream.Rows - 1) / TileStream.Rows;
        stream.Device.Launch(ExpertKernels.RoutedGateUp(gateUp.Format, norms), stream, (tiles, args.TopK, 1), 32 * warps, ExpertGateUp.SharedBytes(warps, gateUp.K), args);
        args.Weights = Streamed(down);
        int chunks = (int)(down.Format.RowBytes(down.K) / SkinnyGemm.ChunkBytes);
        warps = ExpertDown.Warps(chunks, most);
        // Bulk copies of inputs and weights lie on 16-byte boundaries.
        int turns = chunks == warps && Shape.IsVectorAligned(args.Activated, 16) && Shape.IsVectorAligned(args.PairWeights, 16) ? args.TopK : 0;
        tiles = (down.N + TileStream.Rows - 1) / TileStream.Rows;
        stream.Device.Launch(ExpertKernels.RoutedDown(down.Format, turns, stream.Device), stream, (tiles, 1, 1), 32 * warps, ExpertDown.SharedBytes(warps, args.TopK, down.K), args);
    }
}
