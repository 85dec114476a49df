using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.KvExpand;

namespace GpuKit.Ilgpu;

/// <summary>A layer of an FP8 cache as BF16, for attention that multiplies BF16.</summary>
internal static class KvExpand
{
    private const int Threads = 256;

    internal static readonly KernelDefinition<Kernel.Args> ToBf16 = new(Kernel.Run, new KernelTraits(Threads));

    /// <summary>Expands the positions 0 to <c>position[0] + tokens − 1</c> to the cache's own layer in BF16; nothing for a position outside the cache. Arguments were checked.</summary>
    public static void Launch(GpuStream stream, KvLayer layer, ArrayView<int> position, int tokens)
    {
        KvCache cache = layer.Cache;
        (ArrayView<BFloat16> keys, ArrayView<BFloat16> values) = cache.Memory.Expanded;
        var args = new Kernel.Args
        {
            KeyCodes = layer.Codes.Keys.Cast<uint>(),
            ValueCodes = layer.Codes.Values.Cast<uint>(),
            KeyScales = layer.Codes.KeyScales,
            ValueScales = layer.Codes.ValueScales,
            Keys = keys.Cast<uint>(),
            Values = values.Cast<uint>(),
            Position = position,
            Tokens = tokens,
            KvHeads = cache.KvHeads,
            Capacity = cache.Capacity,
            UnitsPerHead = cache.HeadDim / KvCache.Fp8HeadDimStep,
        };
        int threads = LaunchShape.Threads(stream.Device, Threads);
        stream.Device.Launch(ToBf16, stream, (LaunchShape.Blocks(stream.Device, (long)cache.Capacity * args.UnitsPerHead, threads), 1, 1), threads, 0, args);
    }
}
