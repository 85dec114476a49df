using System.Runtime.CompilerServices;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>The codes of an FP8 layer, or of several sequences' from the first on.</summary>
/// <param name="Keys"><c>[kvHeads, capacity, headDim]</c> E4M3.</param>
/// <param name="Values">As <paramref name="Keys"/>.</param>
/// <param name="KeyScales"><c>[kvHeads, capacity]</c> float32.</param>
/// <param name="ValueScales">As <paramref name="KeyScales"/>.</param>
internal readonly record struct KvCodes(ArrayView<byte> Keys, ArrayView<byte> Values, ArrayView<float> KeyScales, ArrayView<float> ValueScales);

/// <summary>
/// The buffers of a <see cref="KvCache"/>, in its format. An FP8 cache has one layer in BF16 besides, where attention of many tokens, which multiplies BF16, finds the layer it runs over.
/// </summary>
internal sealed class KvMemory : IDisposable
{
    private readonly List<IDisposable> owned = [];
    private readonly DeviceBuffer<BFloat16>? keys, values, expandedKeys, expandedValues;
    private readonly DeviceBuffer<byte>? keyCodes, valueCodes;
    private readonly DeviceBuffer<float>? keyScales, valueScales;

    /// <summary>Allocates.</summary>
    /// <param name="device">Device that holds it.</param>
    /// <param name="format">What is stored.</param>
    /// <param name="rows">Positions of all KV heads of all layers.</param>
    /// <param name="headDim">Numbers a row.</param>
    /// <param name="layerRows">Rows of a layer to expand; 0 where nothing expands one.</param>
    public KvMemory(GpuDevice device, KvCacheFormat format, long rows, int headDim, long layerRows)
    {
        try
        {
            if (format == KvCacheFormat.Bf16)
            {
                keys = Own(device.Allocate<BFloat16>(checked(rows * headDim)));
                values = Own(device.Allocate<BFloat16>(rows * headDim));
                return;
            }
            keyCodes = Own(device.Allocate<byte>(checked(rows * headDim)));
            valueCodes = Own(device.Allocate<byte>(rows * headDim));
            keyScales = Own(device.Allocate<float>(rows));
            valueScales = Own(device.Allocate<float>(rows));
            if (layerRows == 0)
                return;
            expandedKeys = Own(device.Allocate<BFloat16>(layerRows * headDim));
            expandedValues = Own(device.Allocate<BFloat16>(layerRows * headDim));
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Device memory held.</summary>
    public long Bytes { get; private set; }

    /// <summary>Numbers of a BF16 cache; empty in FP8.</summary>
    public ArrayView<BFloat16> Keys => keys?.View ?? default;

    /// <summary>As <see cref="Keys"/>.</summary>
    public ArrayView<BFloat16> Values => values?.View ?? default;

    /// <summary>Codes and scales of an FP8 cache; empty in BF16.</summary>
    public KvCodes Codes => keyCodes is null ? default : new KvCodes(keyCodes.View, valueCodes!.View, keyScales!.View, valueScales!.View);

    /// <summary>A layer in BF16; empty where there is none.</summary>
    public (ArrayView<BFloat16> Keys, ArrayView<BFloat16> Values) Expanded => (expandedKeys?.View ?? default, expandedValues?.View ?? default);

    public void Dispose()
    {
        owned.ForEach(o => o.Dispose());
        owned.Clear();
    }

    private DeviceBuffer<T> Own<T>(DeviceBuffer<T> buffer)
        where T : unmanaged
    {
        owned.Add(buffer);
        Bytes += buffer.Length * Unsafe.SizeOf<T>();
        return buffer;
    }
}
