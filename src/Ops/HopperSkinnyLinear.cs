using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Runtime;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>Launches <see cref="HopperSkinnyGemm"/>.</summary>
internal static class HopperSkinnyLinear
{
    /// <summary>y[m, N] = x[m, K] · W[N, K]ᵀ of BF16 x.</summary>
    public static void Launch(GpuStream stream, QuantizedMatrix weights, ArrayView<BFloat16> x, ArrayView<byte> y, bool float32, (int M, int YStride) size, int blocks) =>
        Launch(stream, weights, null, Describe(stream, weights, y, size) with { X = Shape.Address(x) }, float32, blocks);

    /// <summary>The same of quantised x.</summary>
    public static void Launch(GpuStream stream, QuantizedMatrix weights, QuantizedActivations x, ArrayView<byte> y, bool float32, (int M, int YStride) size, int blocks) =>
        Launch(stream, weights, x.Format, Of(x, Describe(stream, weights, y, size)), float32, blocks);

    /// <summary>Arguments with quantised x.</summary>
    internal static HopperSkinnyArgs Of(QuantizedActivations x, HopperSkinnyArgs args)
    {
        args.X = Shape.Address(x.Codes.View);
        args.InputGroups = Shape.Address(x.ScaleTable.Groups);
        args.InputScales = Shape.Address(x.ScaleTable.Blocks);
        return args;
    }

    private static void Launch(GpuStream stream, QuantizedMatrix weights, ActivationFormat? activations, HopperSkinnyArgs args, bool float32, int blocks)
    {
        stream.Device.RequireSame(weights.Device, nameof(weights));
        int shared = HopperSkinnyGemm.SharedBytes(args.M > SkinnyGemm.Columns ? 2 : 1, args.Chunks * HopperSkinnyGemm.ChunkCodes);
        stream.Device.Launch(HopperSkinnyKernels.Get(weights.Format, activations, args.M, float32), stream, (blocks, 1, 1), HopperSkinnyGemm.Threads, shared, args);
    }

    private static HopperSkinnyArgs Describe(GpuStream stream, QuantizedMatrix weights, ArrayView<byte> y, (int M, int YStride) size) => Describe(stream, weights, y, size, HopperSkinnyGemm.ChunkBytes);

    /// <summary>Arguments without x; the copy engine brings tiles of so many bytes of 32 rows of W, narrower ones than HopperSkinnyGemm's with their words in order.</summary>
    internal static HopperSkinnyArgs Describe(GpuStream stream, QuantizedMatrix weights, ArrayView<byte> y, (int M, int YStride) size, int chunkBytes)
    {
        bool isWide = chunkBytes == HopperSkinnyGemm.ChunkBytes;
        long rowBytes = weights.Format.Info().RowBytes(weights.K);
        return new HopperSkinnyArgs
        {
            Weight = TensorMaps.Encode(stream.Device, new TensorMapFields(Shape.Address(weights.Codes.View), 1, rowBytes, weights.N, rowBytes, chunkBytes, HopperSkinnyGemm.Rows, Promotes: isWide, Swizzles: isWide)),
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
    }
}
