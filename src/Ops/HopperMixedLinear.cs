using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Runtime;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>Launches <see cref="HopperMixedGemm"/>: FP8 weights, one matrix or one an expert, times BF16 activations.</summary>
internal static class HopperMixedLinear
{
    // One block a multiprocessor: without that bound the compiler ignores the exchange of registers between warpgroups.
    private static readonly KernelTraits Traits = new(HopperMixedGemm.Threads, MinArch: 90, ExactArch: "90a", NeedsWarp32: true, BlocksPerMultiprocessor: 1, HasPlainArguments: true);

    internal static readonly KernelDefinition<HopperMixedArgs> Bf16 = new(HopperMixedGemm.Run<MixedBf16Output, OneMatrix>, Traits);
    internal static readonly KernelDefinition<HopperMixedArgs> Float32 = new(HopperMixedGemm.Run<MixedFloat32Output, OneMatrix>, Traits);
    internal static readonly KernelDefinition<HopperMixedArgs> Bf16Grouped = new(HopperMixedGemm.Run<MixedBf16Output, ExpertMatrices>, Traits);
    internal static readonly KernelDefinition<HopperMixedArgs> Float32Grouped = new(HopperMixedGemm.Run<MixedFloat32Output, ExpertMatrices>, Traits);

    /// <summary>Whether experts' matrices run here.</summary>
    public static bool Exists(GpuDevice device, QuantizedMatrix weights) =>
        HopperMixedPlan.Exists(Describe(weights, 1, Shape.IsVectorAligned(weights.Codes.View, weights.K)), LinearDevice.Of(device));

    /// <summary>y[m, N] = x[m, K] · W[N, K]ᵀ.</summary>
    public static void Launch(GpuStream stream, QuantizedMatrix weights, ArrayView<BFloat16> x, ArrayView<byte> y, bool float32, (int M, int YStride) size, in HopperMixedPlan plan)
    {
        HopperMixedArgs args = CreateArgs(stream, weights, x, y, float32, size, plan);
        if (plan.SharedTiles > 0)
        {
            LaunchScratch scratch = stream.Scratch;
            args.Partials = Shape.Address(scratch.Partials.View);
            args.Arrived = Shape.Address(scratch.Counters.View);
        }
        Launch(stream, weights, args, plan, float32 ? Float32 : Bf16);
    }

    /// <summary>
    /// y[row(i)] = W[e] · x[i] for the places i of each expert e in <paramref name="routing"/>'s order: x is sorted by expert (<see cref="GatherRows"/>), y either sorted, too, or
    /// has each place's row where <see cref="ExpertRouting.Order"/> says. Rows of places beyond the last expert's stay unwritten.
    /// </summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="weights"><c>W[experts, N, K]</c>, for which <see cref="Exists"/> holds.</param>
    /// <param name="routing">Order and offsets.</param>
    /// <param name="x"><c>[m, K]</c> BF16, 16-byte aligned.</param>
    /// <param name="y"><c>[m, N]</c> BF16 or float32, 16-byte aligned.</param>
    /// <param name="float32">Which.</param>
    /// <param name="m">Places.</param>
    /// <param name="scatters">Whether y is in the rows' order instead of the places'.</param>
    /// <param name="tileRows">For tests: the tile.</param>
    public static void LaunchGrouped(GpuStream stream, QuantizedMatrix weights, in ExpertRouting routing, ArrayView<BFloat16> x, ArrayView<byte> y, bool float32, int m, bool scatters, int? tileRows = null)
    {
        Shape.Require(stream, x, m, weights.K, nameof(x));
        Shape.Require(stream, y, m, (long)weights.N * (float32 ? sizeof(float) : sizeof(ushort)), nameof(y));
        Shape.Require(stream, routing.Order, 1, m, "routing.Order");
        Shape.Require(stream, routing.Offsets, 1, weights.Count + 1L, "routing.Offsets");
        if (m == 0)
            return;
        LinearShape shape = Describe(weights, m, true) with { Experts = weights.Count };
        LinearDevice device = LinearDevice.Of(stream.Device);
        HopperMixedPlan plan = tileRows is { } rows ? HopperMixedPlan.Of(rows, shape, device.Multiprocessors) : HopperMixedPlan.Choose(shape, device);
        HopperMixedArgs args = CreateArgs(stream, weights, x, y, float32, (m, 0), plan);
        args.Offsets = Shape.Address(routing.Offsets);
        args.Order = scatters ? Shape.Address(routing.Order) : 0;
        args.ExpertCount = weights.Count;
        Launch(stream, weights, args, plan, float32 ? Float32Grouped : Bf16Grouped);
    }

    private static void Launch(GpuStream stream, QuantizedMatrix weights, in HopperMixedArgs args, in HopperMixedPlan plan, KernelDefinition<HopperMixedArgs> kernel)
    {
        stream.Device.RequireSame(weights.Device, nameof(weights));
        stream.Device.Launch(kernel, stream, (plan.Blocks, 1, 1), HopperMixedGemm.Threads, HopperMixedGemm.SharedBytes, args);
    }

    private static LinearShape Describe(QuantizedMatrix weights, int m, bool aligned) => new(m, weights.N, weights.K, weights.Format, aligned, 0, weights.Block);

    internal static HopperMixedArgs CreateArgs(GpuStream stream, QuantizedMatrix weights, ArrayView<BFloat16> x, ArrayView<byte> y, bool float32, (int M, int YStride) size, in HopperMixedPlan plan, int copiedRows = HopperMixedGemm.CopiedRows, int tileColumns = HopperMixedGemm.TileColumns)
    {
        GpuDevice device = stream.Device;
        return new HopperMixedArgs
        {
            Input = TensorMaps.Encode(device, new TensorMapFields(Shape.Address(x), sizeof(ushort), weights.K, size.M, 2L * weights.K, HopperMixedGemm.StepColumns / 2, copiedRows)),
            Weight = TensorMaps.Encode(device, new TensorMapFields(Shape.Address(weights.Codes.View), 1, weights.K, (long)weights.Count * weights.N, weights.K, HopperMixedGemm.StepColumns, tileColumns)),
            Output = Shape.Address(y),
            OutputStride = (long)(size.YStride == 0 ? weights.N : size.YStride) * (float32 ? sizeof(float) : sizeof(ushort)),
            WeightScales = Shape.Address(weights.ScaleTable.Blocks),
            ScalesPerExpert = weights.ScaleTable.PerSlab,
            WeightScaleColumns = weights.ScaleTable.Columns,
            WeightRowShift = weights.ScaleTable.RowShift,
            WeightColumnShift = weights.ScaleTable.ColumnShift,
            ExpertCount = 1,
            M = size.M,
            N = weights.N,
            Steps = (int)(((long)weights.K + HopperMixedGemm.StepColumns - 1) / HopperMixedGemm.StepColumns),
            TileRows = plan.TileRows,
            ColumnTiles = plan.ColumnTiles,
            WholeTiles = plan.WholeTiles,
            SharedTiles = plan.SharedTiles,
        };
    }
}
