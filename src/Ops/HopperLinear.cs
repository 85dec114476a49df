using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Runtime;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>Launches <see cref="HopperGemm"/>: describes the matrices to the copy engine and picks the instance.</summary>
internal static class HopperLinear
{
    /// <summary>Whether the copy engine can store y: 16-byte words.</summary>
    public static bool CanStore(ArrayView<byte> y, int n, bool float32, int yStride) =>
        Shape.IsVectorAligned(y, (yStride == 0 ? n : yStride) * (float32 ? 4L : 2));

    /// <summary>y[m, N] = x[m, K] · W[N, K]ᵀ in BF16.</summary>
    public static void Launch(GpuStream stream, QuantizedMatrix weights, ArrayView<BFloat16> x, ArrayView<byte> y, bool float32, (int M, int YStride) size, in HopperPlan plan) =>
        Launch(stream, weights, (x.Cast<byte>(), 2, default), y, float32, size, plan);

    /// <summary>The same with FP8 on both sides.</summary>
    public static void Launch(GpuStream stream, QuantizedMatrix weights, QuantizedActivations x, ArrayView<byte> y, bool float32, (int M, int YStride) size, in HopperPlan plan) =>
        Launch(stream, weights, (x.Codes, 1, x.ScaleTable), y, float32, size, plan);

    private static void Launch(GpuStream stream, QuantizedMatrix weights, (ArrayView<byte> Elements, int Bytes, Kernels.Formats.ScaleTable Scales) x, ArrayView<byte> y, bool float32, (int M, int YStride) size, in HopperPlan plan)
    {
        GpuDevice device = stream.Device;
        (int tileRows, int tileColumns) = HopperPlan.Size(plan.Kind);
        int elements = HopperGemm.StepBytes / x.Bytes, outputBytes = float32 ? 4 : 2;
        int stride = size.YStride == 0 ? weights.N : size.YStride;
        var args = new HopperArgs
        {
            Input = TensorMaps.Encode(device, new TensorMapFields(Shape.Address(x.Elements), x.Bytes, weights.K, size.M, (long)weights.K * x.Bytes, elements, tileRows)),
            Weight = TensorMaps.Encode(device, new TensorMapFields(Shape.Address(weights.Codes.View), x.Bytes, weights.K, weights.N, (long)weights.K * x.Bytes, elements, tileColumns / (plan.Clusters ? 2 : 1))),
            Output = TensorMaps.Encode(device, new TensorMapFields(Shape.Address(y), outputBytes, weights.N, size.M, (long)stride * outputBytes, HopperGemm.StepBytes / outputBytes, HopperGemm.WarpgroupRows)),
            InputScales = Shape.Address(x.Scales.Blocks),
            InputScaleColumns = x.Scales.Columns,
            WeightScales = Shape.Address(weights.ScaleTable.Blocks),
            WeightScaleColumns = weights.ScaleTable.Columns,
            WeightRowShift = weights.ScaleTable.RowShift,
            WeightColumnShift = weights.ScaleTable.ColumnShift,
            M = size.M,
            N = weights.N,
            Steps = (int)(((long)weights.K + elements - 1) / elements),
            RowTiles = plan.RowTiles,
            ColumnTiles = plan.ColumnTiles,
        };
        (KernelDefinition<HopperArgs> kernel, int shared) = HopperKernels.Get(plan, float32);
        device.Launch(kernel, stream, (plan.Blocks, 1, 1), HopperGemm.Threads, shared, args);
    }
}
