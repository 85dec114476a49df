using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.HopperFlash;

namespace GpuKit.Ilgpu;

/// <summary>Launches <see cref="Kernel"/>: <see cref="Attention"/> of many tokens on Hopper.</summary>
internal static class HopperFlash
{
    // One block a multiprocessor: without that bound the compiler ignores the exchange of registers between warpgroups.
    private static readonly KernelTraits Traits = new(Kernel.Threads, MinArch: 90, ExactArch: "90a", NeedsWarp32: true, BlocksPerMultiprocessor: 1, HasPlainArguments: true);

    internal static readonly KernelDefinition<HopperFlashArgs> Causal = new(Kernel.Run, Traits);

    /// <summary>Whether a card has the kernel; views begin on 16-byte words, and so do their rows.</summary>
    public static bool Exists(GpuDevice device, KvCache cache) => device.IsCuda && device.Target?.Name == "90a" && Takes(cache);

    /// <summary>Whether the kernel takes such heads, and the copy engine so many rows.</summary>
    public static bool Takes(KvCache cache) => cache.HeadDim == Kernel.HeadDim && (long)cache.KvHeads * cache.Capacity <= int.MaxValue - Kernel.TilePositions;

    /// <summary>Launches it; arguments were checked.</summary>
    public static void Launch(GpuStream stream, ArrayView<BFloat16> q, KvLayer layer, ArrayView<int> position, ArrayView<BFloat16> output, AttentionShape shape)
    {
        GpuDevice device = stream.Device;
        KvCache cache = layer.Cache;
        (ArrayView<BFloat16> keys, ArrayView<BFloat16> values) = Attention.InBf16(layer);
        var args = new HopperFlashArgs
        {
            Keys = Describe(device, keys, cache),
            Values = Describe(device, values, cache),
            ValueAddress = Shape.Address(values),
            Query = Shape.Address(q),
            Output = Shape.Address(output),
            Position = Shape.Address(position),
            Tokens = shape.Tokens,
            QueryHeads = shape.QueryHeads,
            KvHeads = cache.KvHeads,
            GroupSize = shape.QueryHeads / cache.KvHeads,
            Capacity = cache.Capacity,
            Scale = (float)(Math.Log2(Math.E) / Math.Sqrt(cache.HeadDim)),
        };
        int rows = shape.Tokens * args.GroupSize;
        device.Launch(Causal, stream, ((rows + Kernel.BlockRows - 1) / Kernel.BlockRows * cache.KvHeads, 1, 1), Kernel.Threads, Kernel.SharedBytes, args);
    }

    private static TensorMap Describe(GpuDevice device, ArrayView<BFloat16> heads, KvCache cache) =>
        TensorMaps.Encode(device, new TensorMapFields(Shape.Address(heads), sizeof(ushort), Kernel.HeadDim, (long)cache.KvHeads * cache.Capacity, 2L * Kernel.HeadDim, Kernel.RowBytes / sizeof(ushort), Kernel.TilePositions));
}
