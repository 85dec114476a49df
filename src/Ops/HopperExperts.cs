using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.HopperExperts;

namespace GpuKit.Ilgpu;

/// <summary>
/// A Mixture-of-Experts layer of one token whose state is normed, router and weighted sum included, in one launch: <see cref="Kernel"/>. FP8 block weights, a hidden size of 2,048, on cards with a copy engine. Bitwise repeatable.
/// </summary>
internal static class HopperExperts
{
    // A block asks a few times in a microsecond: milliseconds, of which others need a hundredth.
    private const int Patience = 4_000;

    private static readonly KernelTraits Traits = new(Kernel.Threads, MinArch: 90, NeedsWarp32: true, Overlaps: true, HasPlainArguments: true, HopperSharedPercent: 100);

    /// <summary>For one, two and three tiles a block.</summary>
    internal static readonly KernelDefinition<HopperExpertsArgs>[] ByTurns = [new(Kernel.Run<OneTurn>, Traits), new(Kernel.Run<TwoTurns>, Traits), new(Kernel.Run<ThreeTurns>, Traits)];

    /// <summary>Whether a layer runs here.</summary>
    public static bool Exists(GpuDevice device, QuantizedMatrix router, in ExpertStack matrices, int topK)
    {
        (QuantizedMatrix gateUp, QuantizedMatrix down) = matrices;
        long activations = (long)topK * down.K, turns = activations / Kernel.Hidden;
        return (device.Target is not { } target || (target.Number >= 90 && LinearDevice.Of(device).Multiprocessors >= Kernel.Blocks))
            && device.WarpSize == 32 && device.MaxThreadsPerBlock >= Kernel.Threads && device.MaxSharedBytesPerBlock >= Kernel.SharedBytes
            && router.Format == WeightFormat.Bf16 && router.Count == 1 && router.K == Kernel.Hidden && router.N == gateUp.Count && down.Count == gateUp.Count && router.N <= HopperExpertState.MostExperts
            && gateUp.Format == WeightFormat.Fp8Block && down.Format == WeightFormat.Fp8Block && gateUp.K == Kernel.Hidden && down.N == Kernel.Hidden
            && down.K % Kernel.BlockColumns == 0 && gateUp.N == 2 * down.K && topK <= Math.Min(Kernel.MostTopK, router.N)
            && activations == turns * Kernel.Hidden && turns is >= 1 and <= Kernel.MostTurns && HasWholeBlocks(gateUp) && HasWholeBlocks(down);
    }

    /// <summary>Words of a call's state: zero before the first call, then left alone; of one stream at a time.</summary>
    public const int StateLength = HopperExpertState.Words;

    /// <summary><c>residual += Σ p · Wdown · (silu(Wgate · x) · (Wup · x))</c> over the token's experts.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="router">BF16 <c>[experts, 2048]</c>.</param>
    /// <param name="matrices">The experts, for which <see cref="Exists"/>.</param>
    /// <param name="routing">Written: the token's experts and weights, and the logits.</param>
    /// <param name="x"><c>[2048]</c> BF16, 16-byte aligned.</param>
    /// <param name="state"><see cref="StateLength"/> words.</param>
    /// <param name="residual"><c>[2048]</c> float32, added to.</param>
    /// <param name="patience">How often a block asks for what others compute before it does so itself; null where they all run at a time.</param>
    /// <exception cref="ArgumentException">A view is too short or lives on another device.</exception>
    /// <exception cref="NotSupportedException">The layer does not run here.</exception>
    public static void Apply(GpuStream stream, QuantizedMatrix router, in ExpertStack matrices, in RoutedToken routing, ArrayView<BFloat16> x, ArrayView<uint> state, ArrayView<float> residual, int? patience = null)
    {
        ArgumentNullException.ThrowIfNull(stream);
        (QuantizedMatrix gateUp, QuantizedMatrix down) = matrices;
        GpuDevice device = stream.Device;
        foreach (QuantizedMatrix matrix in (ReadOnlySpan<QuantizedMatrix>)[router, gateUp, down])
            device.RequireSame(matrix.Device, nameof(matrices));
        int topK = routing.Routing.TopK;
        if (!Exists(device, router, matrices, topK))
            throw new NotSupportedException($"{topK} of {gateUp.Count} experts of [{gateUp.N}, {gateUp.K}] in {gateUp.Format.Title()} do not run in one launch on {device.Name}.");
        Shape.Require(stream, routing.Routing.Experts, 1, topK, nameof(routing));
        Shape.Require(stream, routing.Routing.Weights, 1, topK, nameof(routing));
        Shape.Require(stream, routing.Logits, 1, router.N, nameof(routing));
        Shape.Require(stream, x, 1, Kernel.Hidden, nameof(x));
        Shape.Require(stream, state, 1, StateLength, nameof(state));
        Shape.Require(stream, residual, 1, Kernel.Hidden, nameof(residual));
        if (!Shape.IsVectorAligned(x, 16))
            throw new ArgumentException("Inputs must lie on a 16-byte boundary.", nameof(x));
        if (!Shape.IsVectorAligned(state, 16))
            throw new ArgumentException("The state must lie on a 16-byte boundary.", nameof(state));
        var args = new HopperExpertsArgs
        {
            GateUp = Describe(device, gateUp),
            Down = Describe(device, down),
            GateUpScales = Scales(gateUp),
            DownScales = Scales(down),
            X = Shape.Address(x),
            Router = Shape.Address(router.Codes.View),
            State = Shape.Address(state),
            Residual = Shape.Address(residual),
            ChosenExperts = Shape.Address(routing.Routing.Experts),
            PairWeights = Shape.Address(routing.Routing.Weights),
            Logits = Shape.Address(routing.Logits),
            ExpertCount = router.N,
            TopK = topK,
            Width = down.K,
            Turns = topK * down.K / Kernel.Hidden,
            TileReciprocal = Reciprocal(down.K / Kernel.TileRows),
            ItemReciprocal = Reciprocal(down.K / Kernel.BlockColumns),
            Normalize = routing.Normalize ? 1 : 0,
            Patience = patience ?? (device.IsCuda ? Patience : 1),
        };
        device.Launch(ByTurns[args.Turns - 1], stream, (Kernel.Blocks, 1, 1), Kernel.Threads, Kernel.SharedBytes, args);
    }

    // 16 rows and 128 columns have one scale.
    private static bool HasWholeBlocks(QuantizedMatrix matrix) => 1 << matrix.ScaleTable.RowShift >= Kernel.TileRows && 1 << matrix.ScaleTable.ColumnShift >= Kernel.BlockColumns;

    private static int Reciprocal(int n) => ((1 << HopperExpertsArgs.ReciprocalBits) + n - 1) / n;

    private static TensorMap Describe(GpuDevice device, QuantizedMatrix matrix) =>
        TensorMaps.Encode(device, new TensorMapFields(Shape.Address(matrix.Codes.View), 1, matrix.K, (long)matrix.Count * matrix.N, matrix.K, Kernel.BlockColumns, Kernel.TileRows));

    private static HopperExpertScales Scales(QuantizedMatrix matrix) => new()
    {
        Blocks = Shape.Address(matrix.ScaleTable.Blocks),
        PerExpert = matrix.ScaleTable.PerSlab,
        Columns = matrix.ScaleTable.Columns,
        RowShift = matrix.ScaleTable.RowShift,
        ColumnShift = matrix.ScaleTable.ColumnShift,
    };
}
