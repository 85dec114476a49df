using ILGPU;
using ILGPU.Runtime;

namespace GpuKit.Ilgpu.Tests.Support;

/// <summary>Reads and writes the layers of a KV cache from the host.</summary>
public static class CacheContents
{
    public static void Fill(KvCache cache, BFloat16 value)
    {
        for (int layer = 0; layer < cache.Layers; layer++)
        {
            Write(cache.Keys(layer), value);
            Write(cache.Values(layer), value);
        }
    }

    public static void Write<T>(ArrayView<T> view, T[] contents)
        where T : unmanaged => view.SubView(0, contents.Length).CopyFromCPU(contents);

    public static T[] Read<T>(ArrayView<T> view)
        where T : unmanaged
    {
        var contents = new T[view.Length];
        view.CopyToCPU(contents);
        return contents;
    }

    private static void Write(ArrayView<BFloat16> view, BFloat16 value) =>
        Write(view, [.. Enumerable.Repeat(value, (int)view.Length)]);
}
