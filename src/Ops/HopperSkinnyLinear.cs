using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Runtime;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>Launches <see cref="HopperSkinnyGemm"/>.</summary>
internal static class HopperSkinnyLinear
{
    /// <summary>y[m, N] = x[m, K] · W[N, K]ᵀ.</summary>
    public static void Launch(GpuStream stream, QuantizedMatrix weights, ArrayView<BFloat16> x, ArrayView<byte> y, bool float32, (int M, int YStride) size, int blocks)
    {
        stream.Device.RequireSame(weights.Device, nameof(weights));
        long rowBytes = weights.Format.Info().RowBytes(weights.K);
        var args = new HopperSkinnyArgs
        {
            Weight = TensorMaps.Encode(stream.Device, new TensorMapFields(Shape.Address(weights.Codes.View), 1, rowBytes, weights.N, rowBytes, HopperSkinnyGemm.ChunkBytes, HopperSkinnyGemm.Rows)),
            X = Shape.Address(x),
            Output = Shape.Address(y),
            Scales = Shape.Address(weights.ScaleTable.Blocks),
            Groups = Shape.Address(weights.ScaleTable.Groups),
            ZeroPoints = Shape.Address(weights.ScaleTable.ZeroPoints),
            OutputStride = size.YStride == 0 ? weights.N : size.YStride,
            M = size.M,
            N = weights.N,
            K = weights.K,
            ScaleRowShift = weights.ScaleTable.RowShift,
            ScaleColumnShift = weights.ScaleTable.ColumnShift,
            ScaleColumns = weights.ScaleTable.Columns,
            Tiles = HopperSkinnyPlan.Tiles(weights.N),
            Chunks = HopperSkinnyPlan.Chunks(weights.K),
        };
        int shared = HopperSkinnyGemm.SharedBytes(size.M > SkinnyGemm.Columns ? 2 : 1, args.Chunks * HopperSkinnyGemm.ChunkCodes);
        stream.Device.Launch(HopperSkinnyKernels.Get(weights.Format, size.M, float32), stream, (blocks, 1, 1), HopperSkinnyGemm.Threads, shared, args);
    }
}
