using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>Keys and values of one layer of a <see cref="KvCache"/>; valid as long as the cache.</summary>
public readonly struct KvLayer
{
    internal KvLayer(KvCache cache, ArrayView<BFloat16> keys, ArrayView<BFloat16> values, in KvCodes codes)
    {
        Cache = cache;
        Keys = keys;
        Values = values;
        Codes = codes;
    }

    /// <summary><c>[kvHeads, capacity, headDim]</c> BF16; empty in an FP8 cache.</summary>
    public ArrayView<BFloat16> Keys { get; }

    /// <summary><c>[kvHeads, capacity, headDim]</c> BF16; empty in an FP8 cache.</summary>
    public ArrayView<BFloat16> Values { get; }

    internal KvCodes Codes { get; }

    internal KvCache Cache { get; }
}

/// <summary>
/// The keys and values of every layer for one sequence: <c>[kvHeads, capacity, headDim]</c>, stored once a KV head, in BF16 or as FP8 codes with a scale a row. All
/// memory is allocated by the constructor; contents are undefined until written. The caller keeps count of the positions.
/// </summary>
public sealed class KvCache : IDisposable
{
    // Codes are loaded 16 at a time.
    internal const int Fp8HeadDimStep = 16;

    private readonly KvMemory memory;
    private readonly int firstLayer;
    private readonly bool ownsMemory = true;

    /// <summary>Allocates a cache.</summary>
    /// <param name="device">Device that holds it.</param>
    /// <param name="layers">Number of layers.</param>
    /// <param name="kvHeads">KV heads a layer.</param>
    /// <param name="headDim">Elements a head: even, at most 256; a multiple of 16 in FP8.</param>
    /// <param name="capacity">Positions that fit.</param>
    /// <param name="format">
    /// How they are stored. An FP8 cache on a device whose attention of many tokens runs on tensor cores holds one layer in BF16 besides, to which that attention expands the
    /// layer it runs over: operators on one FP8 cache must not run side by side on several streams.
    /// </param>
    /// <exception cref="ArgumentException">A size is out of range.</exception>
    /// <exception cref="GpuException">Memory is exhausted (<see cref="GpuFault.OutOfMemory"/>).</exception>
    public KvCache(GpuDevice device, int layers, int kvHeads, int headDim, int capacity, KvCacheFormat format = KvCacheFormat.Bf16)
    {
        ArgumentNullException.ThrowIfNull(device);
        Shape.RequirePositive(layers, nameof(layers));
        Shape.RequirePositive(kvHeads, nameof(kvHeads));
        Shape.RequireHeadDim(headDim, nameof(headDim));
        Shape.RequirePositive(capacity, nameof(capacity));
        if (!Enum.IsDefined(format))
            throw new ArgumentOutOfRangeException(nameof(format), format, "There is no such format.");
        if (format == KvCacheFormat.Fp8 && headDim % Fp8HeadDimStep != 0)
            throw new ArgumentOutOfRangeException(nameof(headDim), headDim, $"The head dimension of an FP8 cache must be a multiple of {Fp8HeadDimStep}.");
        (Device, Layers, KvHeads, HeadDim, Capacity, Format) = (device, layers, kvHeads, headDim, capacity, format);
        LayerLength = checked((long)kvHeads * capacity * headDim);
        long rows = (long)kvHeads * capacity;
        memory = new KvMemory(device, format, checked(rows * layers), headDim, FlashAttention.RunsOn(device, headDim) ? rows : 0);
    }

    /// <summary>Some layers of another cache, without memory of its own.</summary>
    internal KvCache(KvCache whole, int firstLayer, int layers)
    {
        (Device, Layers, KvHeads, HeadDim, Capacity, Format) = (whole.Device, layers, whole.KvHeads, whole.HeadDim, whole.Capacity, whole.Format);
        LayerLength = whole.LayerLength;
        (memory, this.firstLayer, ownsMemory) = (whole.memory, firstLayer, false);
    }

    /// <summary>The device that holds the cache.</summary>
    public GpuDevice Device { get; }

    /// <summary>Number of layers.</summary>
    public int Layers { get; }

    /// <summary>KV heads a layer.</summary>
    public int KvHeads { get; }

    /// <summary>Elements a head.</summary>
    public int HeadDim { get; }

    /// <summary>Positions that fit.</summary>
    public int Capacity { get; }

    /// <summary>How keys and values are stored.</summary>
    public KvCacheFormat Format { get; }

    /// <summary>Device memory held.</summary>
    public long Bytes => ownsMemory ? memory.Bytes : 0;

    internal long LayerLength { get; }

    internal KvMemory Memory => memory;

    internal ArrayView<BFloat16> AllKeys => memory.Keys;

    internal ArrayView<BFloat16> AllValues => memory.Values;

    /// <summary>Keys of a layer, <c>[kvHeads, capacity, headDim]</c>; empty in an FP8 cache.</summary>
    public ArrayView<BFloat16> Keys(int layer) => Part(memory.Keys, layer, HeadDim);

    /// <summary>Values of a layer, <c>[kvHeads, capacity, headDim]</c>; empty in an FP8 cache.</summary>
    public ArrayView<BFloat16> Values(int layer) => Part(memory.Values, layer, HeadDim);

    /// <summary>Both, as operators take them.</summary>
    public KvLayer Layer(int layer)
    {
        KvCodes all = memory.Codes;
        var codes = new KvCodes(Part(all.Keys, layer, HeadDim), Part(all.Values, layer, HeadDim), Part(all.KeyScales, layer, 1), Part(all.ValueScales, layer, 1));
        return new KvLayer(this, Keys(layer), Values(layer), codes);
    }

    private ArrayView<T> Part<T>(ArrayView<T> all, int layer, int rowLength)
        where T : unmanaged
    {
        if (layer < 0 || layer >= Layers)
            throw new ArgumentOutOfRangeException(nameof(layer), layer, $"The cache has {Layers} layers.");
        long length = LayerLength / HeadDim * rowLength;
        return all.Length == 0 ? default : all.SubView((firstLayer + layer) * length, length);
    }

    /// <summary>Returns the memory. Work that uses it must have finished.</summary>
    public void Dispose()
    {
        if (ownsMemory)
            memory.Dispose();
    }
}
