using System.Runtime.CompilerServices;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>Keys and values of one layer of a <see cref="KvCache"/>; valid as long as the cache.</summary>
public readonly struct KvLayer
{
    internal KvLayer(KvCache cache, ArrayView<BFloat16> keys, ArrayView<BFloat16> values)
    {
        Cache = cache;
        Keys = keys;
        Values = values;
    }

    /// <summary><c>[kvHeads, capacity, headDim]</c> BF16.</summary>
    public ArrayView<BFloat16> Keys { get; }

    /// <summary><c>[kvHeads, capacity, headDim]</c> BF16.</summary>
    public ArrayView<BFloat16> Values { get; }

    internal KvCache Cache { get; }
}

/// <summary>
/// The keys and values of every layer for one sequence: BF16 <c>[kvHeads, capacity, headDim]</c>, stored once a KV head. All
/// memory is allocated by the constructor; contents are undefined until written. The caller keeps count of the positions.
/// </summary>
public sealed class KvCache : IDisposable
{
    private readonly DeviceBuffer<BFloat16> keys;
    private readonly DeviceBuffer<BFloat16> values;
    private readonly int firstLayer;
    private readonly bool ownsMemory = true;

    /// <summary>Allocates a cache.</summary>
    /// <param name="device">Device that holds it.</param>
    /// <param name="layers">Number of layers.</param>
    /// <param name="kvHeads">KV heads a layer.</param>
    /// <param name="headDim">Elements a head: even, at most 256.</param>
    /// <param name="capacity">Positions that fit.</param>
    /// <exception cref="ArgumentException">A size is out of range.</exception>
    /// <exception cref="GpuException">Memory is exhausted (<see cref="GpuFault.OutOfMemory"/>).</exception>
    public KvCache(GpuDevice device, int layers, int kvHeads, int headDim, int capacity)
    {
        ArgumentNullException.ThrowIfNull(device);
        Shape.RequirePositive(layers, nameof(layers));
        Shape.RequirePositive(kvHeads, nameof(kvHeads));
        Shape.RequireHeadDim(headDim, nameof(headDim));
        Shape.RequirePositive(capacity, nameof(capacity));
        (Device, Layers, KvHeads, HeadDim, Capacity) = (device, layers, kvHeads, headDim, capacity);
        LayerLength = checked((long)kvHeads * capacity * headDim);
        keys = device.Allocate<BFloat16>(checked(LayerLength * layers));
        try
        {
            values = device.Allocate<BFloat16>(LayerLength * layers);
        }
        catch
        {
            keys.Dispose();
            throw;
        }
    }

    /// <summary>Some layers of another cache, without memory of its own.</summary>
    internal KvCache(KvCache whole, int firstLayer, int layers)
    {
        (Device, Layers, KvHeads, HeadDim, Capacity) = (whole.Device, layers, whole.KvHeads, whole.HeadDim, whole.Capacity);
        LayerLength = whole.LayerLength;
        (keys, values, this.firstLayer, ownsMemory) = (whole.keys, whole.values, firstLayer, false);
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

    /// <summary>Device memory held.</summary>
    public long Bytes => 2 * LayerLength * Layers * Unsafe.SizeOf<BFloat16>();

    internal long LayerLength { get; }

    internal ArrayView<BFloat16> AllKeys => keys.View;

    internal ArrayView<BFloat16> AllValues => values.View;

    /// <summary>Keys of a layer, <c>[kvHeads, capacity, headDim]</c>.</summary>
    public ArrayView<BFloat16> Keys(int layer) => Part(keys, layer);

    /// <summary>Values of a layer, <c>[kvHeads, capacity, headDim]</c>.</summary>
    public ArrayView<BFloat16> Values(int layer) => Part(values, layer);

    /// <summary>Both, as operators take them.</summary>
    public KvLayer Layer(int layer) => new(this, Keys(layer), Values(layer));

    private ArrayView<BFloat16> Part(DeviceBuffer<BFloat16> buffer, int layer)
    {
        if (layer < 0 || layer >= Layers)
            throw new ArgumentOutOfRangeException(nameof(layer), layer, $"The cache has {Layers} layers.");
        return buffer.View.SubView((firstLayer + layer) * LayerLength, LayerLength);
    }

    /// <summary>Returns the memory. Work that uses it must have finished.</summary>
    public void Dispose()
    {
        if (!ownsMemory)
            return;
        keys.Dispose();
        values.Dispose();
    }
}
