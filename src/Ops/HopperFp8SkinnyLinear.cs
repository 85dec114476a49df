using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Runtime;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>Launches <see cref="HopperFp8Skinny"/>: the one place where run-time choices become its type arguments.</summary>
internal static class HopperFp8SkinnyLinear
{
    // The bound holds the compiler to 128 registers a thread, as that of SkinnyGemm does.
    private static readonly KernelTraits Traits = new(32 * SkinnyGemm.MostWarps, MinArch: 90, ExactArch: "90a", NeedsWarp32: true, Overlaps: true, HasPlainArguments: true);

    private static readonly Dictionary<(bool Float32, int Tiles), KernelDefinition<HopperFp8SkinnyArgs>> ByKey = new()
    {
        [(false, 1)] = new(HopperFp8Skinny.Run<SkinnyBf16Output, OneTile>, Traits),
        [(false, 2)] = new(HopperFp8Skinny.Run<SkinnyBf16Output, TwoTiles>, Traits),
        [(true, 1)] = new(HopperFp8Skinny.Run<SkinnyFloat32Output, OneTile>, Traits),
        [(true, 2)] = new(HopperFp8Skinny.Run<SkinnyFloat32Output, TwoTiles>, Traits),
    };

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = ByKey.Values;

    /// <summary>The kernel for <paramref name="m"/> rows.</summary>
    public static KernelDefinition<HopperFp8SkinnyArgs> Get(int m, bool float32) => ByKey[(float32, SkinnyGemm.Tiles(m, halves: false))];

    /// <summary>y[m, N] = x[m, K] · W[N, K]ᵀ by blocks of so many warps, each of which asks for so many chunks (1 or 2) early.</summary>
    public static void Launch(GpuStream stream, QuantizedMatrix weights, QuantizedActivations x, ArrayView<byte> y, bool float32, (int M, int YStride) size, int warps, int earlyChunks)
    {
        stream.Device.RequireSame(weights.Device, nameof(weights));
        int tiles = SkinnyGemm.Tiles(size.M, halves: false);
        var args = new HopperFp8SkinnyArgs
        {
            Weight = TensorMaps.Encode(stream.Device, new TensorMapFields(Shape.Address(weights.Codes.View), 1, weights.K, weights.N, weights.K, HopperFp8Skinny.ChunkColumns, HopperFp8Skinny.Rows, Promotes: false)),
            Input = TensorMaps.Encode(stream.Device, new TensorMapFields(Shape.Address(x.Codes.View), 1, weights.K, size.M, weights.K, HopperFp8Skinny.ChunkColumns, tiles * SkinnyGemm.Columns, Promotes: false)),
            Output = Shape.Address(y),
            InputScales = Shape.Address(x.ScaleTable.Blocks),
            WeightScales = Shape.Address(weights.ScaleTable.Blocks),
            OutputStride = size.YStride == 0 ? weights.N : size.YStride,
            EarlyChunks = earlyChunks,
            WeightRowShift = weights.ScaleTable.RowShift,
            M = size.M,
            N = weights.N,
            K = weights.K,
        };
        stream.Device.Launch(Get(size.M, float32), stream, (HopperFp8SkinnyPlan.Blocks(weights.N), 1, 1), 32 * warps, HopperFp8Skinny.SharedBytes(warps, tiles), args);
    }
}
