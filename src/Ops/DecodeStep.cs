using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.DecodeStep;

namespace GpuKit.Ilgpu;

/// <summary>The weights of one sparse layer.</summary>
/// <param name="QueryKeyValue"><c>[(queryHeads + 2·kvHeads)·headDim, hidden]</c>.</param>
/// <param name="Output"><c>[hidden, queryHeads·headDim]</c>.</param>
/// <param name="Experts">Gate and up, and down.</param>
/// <param name="Router"><c>[experts, hidden]</c> BF16.</param>
/// <param name="InputGain"><c>[hidden]</c>, gains of the norm before attention.</param>
/// <param name="ExpertGain"><c>[hidden]</c>, gains of the norm before the experts.</param>
/// <param name="QueryGain"><c>[headDim]</c>, gains of query heads.</param>
/// <param name="KeyGain"><c>[headDim]</c>, gains of key heads.</param>
internal sealed record DecodeStepLayer(
    QuantizedMatrix QueryKeyValue, QuantizedMatrix Output, ExpertStack Experts, QuantizedMatrix Router,
    ArrayView<BFloat16> InputGain, ArrayView<BFloat16> ExpertGain, DeviceBuffer<BFloat16> QueryGain, DeviceBuffer<BFloat16> KeyGain);

/// <summary>
/// All layers of a Mixture-of-Experts model over one token in one launch, for block-FP8 weights on compute capability 9.0 and newer (and the CPU device for checking). Owns
/// its workspaces; one call at a time may use it. Bitwise repeatable.
/// </summary>
internal sealed class DecodeStep : IDisposable
{
    private static readonly KernelTraits Traits = new(32 * (DecodeStepPlan.MostMultipliers + Kernel.Producers), MinArch: 90, NeedsWarp32: true, IsCooperative: true);

    internal static readonly KernelDefinition<DecodeStepArgs> OfHeads64 = new(Kernel.Run<StreamedFp8, Head64>, Traits);
    internal static readonly KernelDefinition<DecodeStepArgs> OfHeads128 = new(Kernel.Run<StreamedFp8, Head128>, Traits);

    private readonly List<IDisposable> owned = [];
    private readonly DecodeStepShape shape;
    private readonly DecodeStepPlan plan;
    private readonly DecodeStepArgs args;

    /// <summary>Lays out what the launches need for a model and a cache, which must outlive this.</summary>
    /// <param name="shape">The model's extents; <see cref="Exists"/> must hold.</param>
    /// <param name="layers">Its layers.</param>
    /// <param name="cache">One layer each.</param>
    /// <param name="rotary">Angles for every position of the cache.</param>
    /// <param name="options">The norms' epsilon, and whether the chosen experts' probabilities are divided by their sum.</param>
    /// <exception cref="GpuException">Device memory is exhausted; nothing stays allocated.</exception>
    public DecodeStep(in DecodeStepShape shape, IReadOnlyList<DecodeStepLayer> layers, KvCache cache, RotaryTable rotary, (float Epsilon, bool Normalize) options)
    {
        GpuDevice device = cache.Device;
        if (!Exists(device, shape, layers) || cache.Layers != layers.Count || cache.KvHeads != shape.KvHeads || cache.HeadDim != shape.HeadDim || rotary.Positions < cache.Capacity)
            throw new NotSupportedException($"{layers.Count} layers of {shape} do not run in one launch on {device.Name}.");
        this.shape = shape;
        plan = Plan(device, shape)!.Value;
        try
        {
            var attention = Own(new DecodeAttentionWorkspace(device, shape.KvHeads, shape.HeadDim));
            Logits = Own(device.Allocate<float>((long)layers.Count * shape.Experts));
            ScaleBlock block = layers[0].QueryKeyValue.Block;
            args = new DecodeStepArgs
            {
                Layers = Own(device.Upload<long>(Addresses(layers))),
                HeadGains = Own(device.Upload<BFloat16>(HeadGains(device, layers))).View.Cast<ushort>(),
                Keys = cache.AllKeys.Cast<uint>(),
                Values = cache.AllValues.Cast<uint>(),
                Cos = rotary.Cos,
                Sin = rotary.Sin,
                QueryKeyValue = Own(device.Allocate<ushort>(shape.QueryKeyValueRows)),
                Attended = Own(device.Allocate<ushort>(shape.AttentionWidth)),
                Activated = Own(device.Allocate<ushort>((long)shape.TopK * shape.Width)),
                RouterSums = Zeros<long>(device, shape.Experts),
                Logits = Logits,
                PartSums = attention.Sums,
                PartMasses = attention.Masses,
                PartsDone = attention.Done,
                Flags = Zeros<int>(device, Kernel.Flags),
                LayerCount = layers.Count,
                Hidden = shape.Hidden,
                KvHeads = shape.KvHeads,
                GroupSize = shape.QueryHeads / shape.KvHeads,
                Capacity = cache.Capacity,
                Experts = shape.Experts,
                TopK = shape.TopK,
                Width = shape.Width,
                Normalize = options.Normalize ? 1 : 0,
                RowShift = block.RowShift,
                ColumnShift = block.ColumnShift,
                DenseSlots = plan.DenseSlots,
                ExpertSlots = plan.ExpertSlots,
                MostRows = plan.MostRows,
                Epsilon = options.Epsilon,
                Scale = (float)(Math.Log2(Math.E) / Math.Sqrt(shape.HeadDim)),
            };
            device.DefaultStream.Synchronize();
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary><c>[layers, experts]</c> float32: the routers' logits of the last call.</summary>
    public DeviceBuffer<float> Logits { get; } = null!;

    /// <summary>Whether such layers run here.</summary>
    public static bool Exists(GpuDevice device, in DecodeStepShape shape, IReadOnlyList<DecodeStepLayer> layers)
    {
        if (layers.Count == 0 || !(device.IsCuda ? device.Target!.Value.Number >= Traits.MinArch : device.WarpSize == 32) || Plan(device, shape) is null)
            return false;
        ScaleBlock block = layers[0].QueryKeyValue.Block;
        return layers.All(l => DecodeLinear.CanFeed(l.Router) && new[] { l.QueryKeyValue, l.Output, l.Experts.GateUp, l.Experts.Down }.All(m => CanStream(m, block)))
            // Up's rows begin on a block's edge, or scales of gate and up would be one.
            && shape.Width % block.Rows == 0;
    }

    /// <summary>Runs all layers.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="residual"><c>[hidden]</c> float32: the token's residual stream, complete before and after.</param>
    /// <param name="position"><c>[1]</c> on the device: where the token's keys and values go.</param>
    /// <exception cref="ArgumentException">A view is too short or lives on another device.</exception>
    public void Run(GpuStream stream, ArrayView<float> residual, ArrayView<int> position)
    {
        ArgumentNullException.ThrowIfNull(stream);
        Shape.Require(stream, residual, 1, shape.Hidden, nameof(residual));
        Shape.Require(stream, position, 1, 1, nameof(position));
        DecodeStepArgs now = args;
        now.Residual = residual.SubView(0, shape.Hidden);
        now.Position = position.SubView(0, 1);
        stream.Device.Launch(shape.HeadDim == 64 ? OfHeads64 : OfHeads128, stream, (plan.Blocks, 1, 1), plan.Threads, plan.SharedBytes, now);
    }

    public void Dispose()
    {
        for (int i = owned.Count - 1; i >= 0; i--)
            owned[i].Dispose();
        owned.Clear();
    }

    private static DecodeStepPlan? Plan(GpuDevice device, in DecodeStepShape shape) =>
        DecodeStepPlan.Choose(shape, device.MultiprocessorCount, device.MaxThreadsPerBlock, device.MaxSharedBytesPerBlock);

    private static bool CanStream(QuantizedMatrix matrix, ScaleBlock block) =>
        matrix.Format == WeightFormat.Fp8Block && matrix.Block == block && block.Rows >= DecodeStepRing.GroupRows && block.Columns >= 64
        && Math.Min(matrix.K, DecodeStepSegment.MostCodes) / block.Columns * sizeof(float) <= DecodeStepSegment.ScaleBytes;

    private static long[] Addresses(IReadOnlyList<DecodeStepLayer> layers)
    {
        var table = new long[layers.Count * (int)DecodeLayerField.Count];
        for (int i = 0; i < layers.Count; i++)
        {
            Span<long> row = table.AsSpan(i * (int)DecodeLayerField.Count, (int)DecodeLayerField.Count);
            DecodeStepLayer layer = layers[i];
            (QuantizedMatrix Matrix, DecodeLayerField Codes)[] matrices =
            [
                (layer.QueryKeyValue, DecodeLayerField.QueryKeyValue), (layer.Output, DecodeLayerField.Output),
                (layer.Experts.GateUp, DecodeLayerField.GateUp), (layer.Experts.Down, DecodeLayerField.Down),
            ];
            foreach ((QuantizedMatrix matrix, DecodeLayerField codes) in matrices)
            {
                row[(int)codes] = Shape.Address(matrix.Codes.View);
                row[(int)codes + 1] = Shape.Address(matrix.Scales.View);
            }
            row[(int)DecodeLayerField.Router] = Shape.Address(layer.Router.Codes.View);
            row[(int)DecodeLayerField.InputGain] = Shape.Address(layer.InputGain);
            row[(int)DecodeLayerField.ExpertGain] = Shape.Address(layer.ExpertGain);
        }
        return table;
    }

    // Gathered: attention reads them as parts of one view.
    private static BFloat16[] HeadGains(GpuDevice device, IReadOnlyList<DecodeStepLayer> layers) =>
        [.. layers.SelectMany(l => l.QueryGain.ToArray(device.DefaultStream).Concat(l.KeyGain.ToArray(device.DefaultStream)))];

    private DeviceBuffer<T> Zeros<T>(GpuDevice device, long length)
        where T : unmanaged
    {
        DeviceBuffer<T> buffer = Own(device.Allocate<T>(length));
        buffer.Fill(device.DefaultStream, default);
        return buffer;
    }

    private T Own<T>(T resource)
        where T : IDisposable
    {
        owned.Add(resource);
        return resource;
    }
}
