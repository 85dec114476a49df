using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>One layer of every sequence of a <see cref="KvCacheBatch"/>.</summary>
/// <param name="First">The layer of the first sequence.</param>
/// <param name="Keys">From the first sequence's keys of the layer to the end of the memory.</param>
/// <param name="Values">As <paramref name="Keys"/>.</param>
/// <param name="Sequences">How many sequences there are.</param>
/// <param name="Stride">Elements from one sequence to the next.</param>
internal readonly record struct KvLayerBatch(KvLayer First, ArrayView<BFloat16> Keys, ArrayView<BFloat16> Values, int Sequences, long Stride)
{
    /// <summary>Codes and scales likewise, of an FP8 cache.</summary>
    public KvCodes Codes { get; init; }

    /// <summary>A layer of one sequence.</summary>
    public static KvLayerBatch Of(KvLayer layer) => new(layer, layer.Keys, layer.Values, 1, 0) { Codes = layer.Codes };
}

/// <summary>
/// Caches of several sequences in one piece of memory, <c>[sequences, layers, kvHeads, capacity, headDim]</c>: each is a <see cref="KvCache"/> of its own for
/// whatever runs over one sequence, and a launch over all finds them at equal distances.
/// </summary>
internal sealed class KvCacheBatch : IDisposable
{
    private readonly KvCache whole;
    private readonly KvCache[] parts;

    /// <summary>Allocates the caches.</summary>
    /// <param name="device">Device that holds them.</param>
    /// <param name="sequences">Number of sequences.</param>
    /// <param name="layers">Layers a sequence.</param>
    /// <param name="kvHeads">KV heads a layer.</param>
    /// <param name="headDim">Elements a head.</param>
    /// <param name="capacity">Positions a sequence.</param>
    /// <param name="format">How they are stored.</param>
    /// <exception cref="ArgumentException">A size is out of range.</exception>
    /// <exception cref="GpuException">Memory is exhausted; nothing stays allocated.</exception>
    public KvCacheBatch(GpuDevice device, int sequences, int layers, int kvHeads, int headDim, int capacity, KvCacheFormat format = KvCacheFormat.Bf16)
    {
        Shape.RequirePositive(sequences, nameof(sequences));
        Layers = layers;
        whole = new KvCache(device, checked(sequences * layers), kvHeads, headDim, capacity, format);
        parts = [.. Enumerable.Range(0, sequences).Select(s => new KvCache(whole, s * layers, layers))];
    }

    /// <summary>Layers a sequence.</summary>
    public int Layers { get; }

    /// <summary>The cache of one sequence; valid as long as this object.</summary>
    public KvCache this[int sequence] => parts[sequence];

    /// <summary>A layer of all sequences.</summary>
    public KvLayerBatch Layer(int layer)
    {
        KvCodes all = whole.Memory.Codes;
        long start = layer * whole.LayerLength, row = start / whole.HeadDim;
        return new KvLayerBatch(parts[0].Layer(layer), From(whole.AllKeys, start), From(whole.AllValues, start), parts.Length, Layers * whole.LayerLength)
        {
            Codes = new KvCodes(From(all.Keys, start), From(all.Values, start), From(all.KeyScales, row), From(all.ValueScales, row)),
        };
    }

    public void Dispose() => whole.Dispose();

    private static ArrayView<T> From<T>(ArrayView<T> all, long start)
        where T : unmanaged => all.Length == 0 ? default : all.SubView(start, all.Length - start);
}
