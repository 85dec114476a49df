using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Runtime;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>Launches <see cref="HopperSweep"/>.</summary>
internal static class HopperSweepLinear
{
    /// <summary>y[m, N] = x[m, K] · W[N, K]ᵀ of BF16 x.</summary>
    public static void Launch(GpuStream stream, QuantizedMatrix weights, ArrayView<BFloat16> x, ArrayView<byte> y, bool float32, (int M, int YStride) size, in HopperSweepPlan plan, in LinearShape shape) =>
        Launch(stream, weights, Describe(stream, weights, y, size) with { X = Shape.Address(x) }, float32, plan, shape);

    /// <summary>The same of quantised x.</summary>
    public static void Launch(GpuStream stream, QuantizedMatrix weights, QuantizedActivations x, ArrayView<byte> y, bool float32, (int M, int YStride) size, in HopperSweepPlan plan, in LinearShape shape) =>
        Launch(stream, weights, HopperSkinnyLinear.Of(x, Describe(stream, weights, y, size)), float32, plan, shape);

    private static HopperSkinnyArgs Describe(GpuStream stream, QuantizedMatrix weights, ArrayView<byte> y, (int M, int YStride) size) => HopperSkinnyLinear.Describe(stream, weights, y, size, SkinnyGemm.ChunkBytes);

    private static void Launch(GpuStream stream, QuantizedMatrix weights, HopperSkinnyArgs args, bool float32, in HopperSweepPlan plan, in LinearShape shape)
    {
        stream.Device.RequireSame(weights.Device, nameof(weights));
        if (HopperSweepAside.AreMapped(HopperSweepKernels.Tiles(args.M)))
            args.Multipliers = TensorMaps.Encode(stream.Device, Multipliers(weights));
        stream.Device.Launch(HopperSweepKernels.Get(shape.Format, shape.Activations, args.M, float32), stream, (plan.Blocks, 1, 1), 32 * plan.Warps, plan.SharedBytes(args.M, shape), args);
    }

    private static TensorMapFields Multipliers(QuantizedMatrix weights)
    {
        ScaleTable table = weights.ScaleTable;
        int bytes = HopperSweepPlan.MultiplierBytes(weights.Format);
        long address = weights.Format == WeightFormat.Nvfp4 ? Shape.Address(table.Groups) : Shape.Address(table.Blocks);
        return new TensorMapFields(address, bytes, table.Columns, weights.N, (long)table.Columns * bytes, HopperSweepAside.MappedRowBytes / bytes, SkinnyGemm.Rows, Promotes: false, Swizzles: false);
    }
}
