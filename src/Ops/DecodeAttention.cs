using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.DecodeAttention;

namespace GpuKit.Ilgpu;

/// <summary>What blocks of <see cref="DecodeAttention"/> leave for each other; one call at a time may use it.</summary>
internal sealed class DecodeAttentionWorkspace : IDisposable
{
    /// <summary>Allocates for the heads of some sequences' caches.</summary>
    public DecodeAttentionWorkspace(GpuDevice device, int kvHeads, int headDim, int sequences = 1)
    {
        long heads = (long)sequences * kvHeads;
        Sums = device.Allocate<float>(heads * Kernel.MostParts * Kernel.MostGroup * headDim);
        try
        {
            // Largest scores and masses, and a count, of every slice of a head.
            Masses = device.Allocate<float>(heads * Kernel.MostParts * (headDim / Kernel.SliceColumns) * 2 * Kernel.MostGroup);
            Done = device.Allocate<int>(heads * (headDim / Kernel.SliceColumns));
            Done.Fill(device.DefaultStream, 0);
            device.DefaultStream.Synchronize();
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Sums of the parts.</summary>
    public DeviceBuffer<float> Sums { get; }

    /// <summary>Largest scores and masses of the parts.</summary>
    public DeviceBuffer<float> Masses { get; } = null!;

    /// <summary>Parts that are done: zero between calls.</summary>
    public DeviceBuffer<int> Done { get; } = null!;

    /// <summary>Stages of tiles in shared memory, 1 or 2; 0 leaves them to the launch. Bits do not depend on them.</summary>
    public int Stages { get; init; }

    public void Dispose()
    {
        Sums.Dispose();
        Masses?.Dispose();
        Done?.Dispose();
    }
}

/// <summary>
/// Head norms, rotary, the write to the KV cache and attention of one token in one launch that splits the context over blocks. On devices
/// with 32-lane warps, for heads of 64 or 128 columns and at most eight query heads a KV head.
/// </summary>
internal static class DecodeAttention
{
    private static readonly KernelTraits Traits = new(32 * Kernel.MostWarps, NeedsWarp32: true, Overlaps: true, BlocksPerMultiprocessor: 2);

    internal static readonly KernelDefinition<DecodeAttentionArgs> OfHeads64 = new(Kernel.Run<Head64, Bf16Tiles>, Traits);
    internal static readonly KernelDefinition<DecodeAttentionArgs> OfHeads128 = new(Kernel.Run<Head128, Bf16Tiles>, Traits);
    internal static readonly KernelDefinition<DecodeAttentionArgs> OfHeads64Fp8 = new(Kernel.Run<Head64, Fp8Tiles>, Traits);
    internal static readonly KernelDefinition<DecodeAttentionArgs> OfHeads128Fp8 = new(Kernel.Run<Head128, Fp8Tiles>, Traits);

    /// <summary>Whether heads of this kind run here.</summary>
    public static bool Exists(GpuDevice device, int queryHeads, int kvHeads, int headDim) =>
        device.WarpSize == 32 && device.MaxThreadsPerBlock >= 32 * Kernel.LeastWarps && headDim is 64 or 128 && queryHeads % kvHeads == 0 && queryHeads / kvHeads <= Kernel.MostGroup
        // A stage of the widest tiles.
        && Kernel.StageBytes<Head128, Bf16Tiles>(Warps(device)) + Kernel.StaticBytes <= device.MaxSharedBytesPerBlock;

    private static int Warps(GpuDevice device) => device.MaxThreadsPerBlock >= 32 * Kernel.MostWarps ? Kernel.MostWarps : Kernel.LeastWarps;

    /// <summary>
    /// What <see cref="QkNormRotary"/> and <see cref="Attention"/> do for one token, float32 inside but for the weights of the values, which are rounded to BF16. A
    /// position outside the cache gives NaN and stores nothing. Bitwise repeatable; the order of sums depends on the position alone. Earlier
    /// positions of the cache and <paramref name="position"/> must be older than the launch before this one in a graph.
    /// </summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="qkv"><c>[queryHeads + 2·kvHeads, headDim]</c> BF16, on a 4-byte boundary.</param>
    /// <param name="position"><c>[1]</c> on the device.</param>
    /// <param name="layer">Layer of the cache: read, and written at the position.</param>
    /// <param name="output"><c>[queryHeads, headDim]</c> BF16 and a workspace for the cache's heads.</param>
    /// <param name="options">Heads, gains and angles; one token.</param>
    /// <exception cref="ArgumentException">A size does not fit, a view is too short, or something lives on another device.</exception>
    public static void Apply(GpuStream stream, ArrayView<BFloat16> qkv, ArrayView<int> position, KvLayer layer, (ArrayView<BFloat16> Attended, DecodeAttentionWorkspace Workspace) output, in QkNormRotaryOptions options) =>
        Launch(stream, qkv, position, KvLayerBatch.Of(layer), output, options);

    /// <summary>
    /// The same for one token of each of several sequences, over its own cache. A sequence whose position is negative has no token: its row becomes NaN and costs
    /// next to nothing. A row's bits do not depend on the other sequences.
    /// </summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="qkv"><c>[sequences, queryHeads + 2·kvHeads, headDim]</c> BF16, on a 4-byte boundary.</param>
    /// <param name="positions"><c>[sequences]</c> on the device.</param>
    /// <param name="layer">Layer of the caches: read, and written at the positions.</param>
    /// <param name="output"><c>[sequences, queryHeads, headDim]</c> BF16 and a workspace for as many sequences.</param>
    /// <param name="options">Heads, gains and angles; a token a sequence.</param>
    /// <exception cref="ArgumentException">A size does not fit, a view is too short, or something lives on another device.</exception>
    public static void ApplyBatch(GpuStream stream, ArrayView<BFloat16> qkv, ArrayView<int> positions, in KvLayerBatch layer, (ArrayView<BFloat16> Attended, DecodeAttentionWorkspace Workspace) output, in QkNormRotaryOptions options) =>
        Launch(stream, qkv, positions, layer, output, options);

    private static void Launch(GpuStream stream, ArrayView<BFloat16> qkv, ArrayView<int> positions, in KvLayerBatch batch, (ArrayView<BFloat16> Attended, DecodeAttentionWorkspace Workspace) output, in QkNormRotaryOptions options)
    {
        ArgumentNullException.ThrowIfNull(stream);
        KvLayer layer = batch.First;
        KvCache cache = Shape.RequireCache(stream, layer, options.QueryHeads, nameof(layer));
        QkNormRotary.RequireTable(stream, cache, options);
        int sequences = batch.Sequences;
        bool fp8 = cache.Format == KvCacheFormat.Fp8;
        if (options.Tokens != sequences || !Exists(stream.Device, options.QueryHeads, cache.KvHeads, cache.HeadDim) || !IsAligned(layer) || (Shape.Address(qkv) & 3) != 0)
            throw new NotSupportedException($"{options.Tokens} tokens of {sequences} sequences with {options.QueryHeads} query heads of {cache.HeadDim} over {cache.KvHeads} KV heads do not run in one launch on {stream.Device.Name}.");
        Shape.Require(stream, qkv, sequences * (options.QueryHeads + (2L * cache.KvHeads)), cache.HeadDim, nameof(qkv));
        Shape.Require(stream, output.Attended, (long)sequences * options.QueryHeads, cache.HeadDim, nameof(output));
        Shape.Require(stream, positions, 1, sequences, nameof(positions));
        bool gains = options.QueryGain.Length > 0 || options.KeyGain.Length > 0;
        Shape.Require(stream, options.QueryGain, gains ? 1 : 0, cache.HeadDim, nameof(options.QueryGain));
        Shape.Require(stream, options.KeyGain, gains ? 1 : 0, cache.HeadDim, nameof(options.KeyGain));
        DecodeAttentionWorkspace workspace = output.Workspace;
        Shape.Require(stream, workspace.Sums.View, (long)sequences * cache.KvHeads * Kernel.MostParts, (long)Kernel.MostGroup * cache.HeadDim, nameof(output));
        var args = new DecodeAttentionArgs
        {
            Qkv = qkv.Cast<ushort>(),
            Keys = fp8 ? batch.Codes.Keys.Cast<uint>() : batch.Keys.Cast<uint>(),
            Values = fp8 ? batch.Codes.Values.Cast<uint>() : batch.Values.Cast<uint>(),
            // BF16 has no scales; any valid view stands in.
            KeyScales = fp8 ? batch.Codes.KeyScales : options.Table.Cos,
            ValueScales = fp8 ? batch.Codes.ValueScales : options.Table.Sin,
            ScaleStride = batch.Stride / cache.HeadDim,
            // Without gains the kernel reads none; any valid view stands in.
            QueryGain = (gains ? options.QueryGain : qkv).Cast<ushort>(),
            KeyGain = (gains ? options.KeyGain : qkv).Cast<ushort>(),
            Cos = options.Table.Cos,
            Sin = options.Table.Sin,
            Position = positions.SubView(0, sequences),
            Output = output.Attended.SubView(0, (long)sequences * options.QueryHeads * cache.HeadDim).Cast<ushort>(),
            Sums = workspace.Sums,
            Masses = workspace.Masses,
            Done = workspace.Done,
            Stride = batch.Stride / (fp8 ? 4 : 2),
            KvHeads = cache.KvHeads,
            GroupSize = options.QueryHeads / cache.KvHeads,
            Capacity = cache.Capacity,
            HasGains = gains ? 1 : 0,
            Epsilon = options.Epsilon,
            Scale = (float)(Math.Log2(Math.E) / Math.Sqrt(cache.HeadDim)),
        };
        int warps = Warps(stream.Device);
        int parts = Kernel.Parts((cache.Capacity + Kernel.TilePositions - 1L) / Kernel.TilePositions, warps, Kernel.MostParts);
        (KernelDefinition<DecodeAttentionArgs> kernel, int stageBytes) = cache.HeadDim == 64
            ? (fp8 ? (OfHeads64Fp8, Kernel.StageBytes<Head64, Fp8Tiles>(warps)) : (OfHeads64, Kernel.StageBytes<Head64, Bf16Tiles>(warps)))
            : fp8 ? (OfHeads128Fp8, Kernel.StageBytes<Head128, Fp8Tiles>(warps)) : (OfHeads128, Kernel.StageBytes<Head128, Bf16Tiles>(warps));
        args.Stages = workspace.Stages > 0 ? workspace.Stages : Stages(stream.Device, (long)parts * cache.KvHeads * sequences, stageBytes);
        stream.Device.Launch(kernel, stream, (parts, cache.KvHeads, sequences), 32 * warps, args.Stages * stageBytes, args);
    }

    // A block that has a multiprocessor to itself requests two chunks at once, where it may have the memory; several share it, and request one each.
    private static int Stages(GpuDevice device, long blocks, int stageBytes) =>
        blocks <= device.MultiprocessorCount && (2 * stageBytes) + Kernel.StaticBytes <= device.MaxSharedBytesPerBlock ? 2 : 1;

    // Codes lie on 16-byte words as they are allocated.
    private static bool IsAligned(KvLayer layer) => layer.Cache.Format == KvCacheFormat.Fp8
        || (Shape.IsVectorAligned(layer.Keys, 2L * layer.Cache.HeadDim) && Shape.IsVectorAligned(layer.Values, 2L * layer.Cache.HeadDim));
}
