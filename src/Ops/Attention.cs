using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.Attention;

namespace GpuKit.Ilgpu;

/// <summary>Causal attention with grouped queries over a KV cache.</summary>
public static class Attention
{
    private const int Threads = 128;

    internal static readonly KernelDefinition<Kernel.Args> Causal = new(Kernel.Run<Bf16Cells>, new KernelTraits(Threads));
    internal static readonly KernelDefinition<Kernel.Args> CausalOverFp8 = new(Kernel.Run<Fp8Cells>, new KernelTraits(Threads));

    /// <summary>
    /// <c>output[t, h] = softmax(q[t, h] · keys[h / group]ᵀ / √headDim) · values[h / group]</c> over the positions 0 to
    /// <c>position[0] + t</c>, float32 inside (online softmax), rounded once. A token whose position lies outside the cache
    /// gives NaN. Bitwise repeatable; a row's bits depend neither on other rows nor on the capacity. From 16 tokens on, heads of 64, 96, 128 or 256 columns
    /// that lie on 16-byte words run on tensor cores where the device has 32-lane warps: weights are then rounded to BF16 before values are multiplied by
    /// them, and bits differ from those of fewer tokens, but not with the number of tokens. Of an FP8 cache they multiply the numbers that its codes stand for, rounded to BF16.
    /// </summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="q"><c>[tokens, queryHeads, headDim]</c> BF16.</param>
    /// <param name="layer">Keys and values, those of the tokens themselves included.</param>
    /// <param name="position"><c>[1]</c> on the device: position of the first token.</param>
    /// <param name="output"><c>[tokens, queryHeads, headDim]</c> BF16; may be <paramref name="q"/> itself.</param>
    /// <param name="shape">Tokens and query heads.</param>
    /// <exception cref="ArgumentException">A size does not fit, a view is too short, or something lives on another device.</exception>
    public static void Apply(GpuStream stream, ArrayView<BFloat16> q, KvLayer layer, ArrayView<int> position, ArrayView<BFloat16> output, AttentionShape shape)
    {
        ArgumentNullException.ThrowIfNull(stream);
        KvCache cache = Shape.RequireCache(stream, layer, shape.QueryHeads, nameof(layer));
        Shape.RequireSize(shape.Tokens, nameof(shape.Tokens));
        Shape.Require(stream, q, shape.Tokens, (long)shape.QueryHeads * cache.HeadDim, nameof(q));
        Shape.Require(stream, output, shape.Tokens, (long)shape.QueryHeads * cache.HeadDim, nameof(output));
        if (shape.Tokens == 0)
            return;
        Shape.Require(stream, position, 1, 1, nameof(position));
        bool fp8 = cache.Format == KvCacheFormat.Fp8, vectorLoads = fp8 || Shape.IsVectorAligned(layer.Keys, 2L * cache.HeadDim);
        if (vectorLoads && (fp8 || Shape.IsVectorAligned(layer.Values, 2L * cache.HeadDim)) && Shape.IsVectorAligned(q, 2L * cache.HeadDim) && Shape.IsVectorAligned(output, 2L * cache.HeadDim)
            && FlashAttention.Exists(stream.Device, cache.HeadDim, shape))
        {
            if (fp8)
                KvExpand.Launch(stream, layer, position, shape.Tokens);
            if (HopperFlash.Exists(stream.Device, cache))
                HopperFlash.Launch(stream, q, layer, position, output, shape);
            else
                FlashAttention.Launch(stream, CreateTileArgs(q, layer, position, output, shape), cache.HeadDim);
            return;
        }
        var args = new Kernel.Args
        {
            Query = q.Cast<ushort>(),
            Keys = fp8 ? layer.Codes.Keys.Cast<uint>() : layer.Keys.Cast<uint>(),
            Values = fp8 ? layer.Codes.Values.Cast<uint>() : layer.Values.Cast<uint>(),
            // BF16 has no scales; any valid view stands in.
            KeyScales = fp8 ? layer.Codes.KeyScales : position.Cast<float>(),
            ValueScales = fp8 ? layer.Codes.ValueScales : position.Cast<float>(),
            Output = output.Cast<ushort>(),
            Position = position,
            Tokens = shape.Tokens,
            QueryHeads = shape.QueryHeads,
            GroupSize = shape.QueryHeads / cache.KvHeads,
            Capacity = cache.Capacity,
            HeadDim = cache.HeadDim,
            Scale = (float)(1 / Math.Sqrt(cache.HeadDim)),
            VectorLoads = vectorLoads ? 1 : 0,
        };
        long items = (long)shape.Tokens * shape.QueryHeads;
        int threads = LaunchShape.Threads(stream.Device, Threads);
        stream.Device.Launch(fp8 ? CausalOverFp8 : Causal, stream, (LaunchShape.Blocks(stream.Device, items, 1), 1, 1), threads, 0, args);
    }

    /// <summary>A layer in BF16: of an FP8 cache what was expanded before.</summary>
    internal static (ArrayView<BFloat16> Keys, ArrayView<BFloat16> Values) InBf16(KvLayer layer) =>
        layer.Cache.Format == KvCacheFormat.Fp8 ? layer.Cache.Memory.Expanded : (layer.Keys, layer.Values);

    internal static FlashAttentionArgs CreateTileArgs(ArrayView<BFloat16> q, KvLayer layer, ArrayView<int> position, ArrayView<BFloat16> output, AttentionShape shape) => new()
    {
        Query = q.Cast<uint>(),
        Keys = InBf16(layer).Keys.Cast<uint>(),
        Values = InBf16(layer).Values.Cast<uint>(),
        Output = output.Cast<uint>(),
        Position = position,
        Tokens = shape.Tokens,
        QueryHeads = shape.QueryHeads,
        KvHeads = layer.Cache.KvHeads,
        GroupSize = shape.QueryHeads / layer.Cache.KvHeads,
        Capacity = layer.Cache.Capacity,
        Scale = (float)(Math.Log2(Math.E) / Math.Sqrt(layer.Cache.HeadDim)),
    };
}

/// <summary>Sizes of an attention call.</summary>
/// <param name="Tokens">Number of tokens; 0 does nothing.</param>
/// <param name="QueryHeads">Query heads a token, a multiple of the cache's KV heads.</param>
public readonly record struct AttentionShape(int Tokens, int QueryHeads);
