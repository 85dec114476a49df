using ILGPU;
using ILGPU.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>Checks that operators make before they launch. What passes here cannot read or write outside its tensors.</summary>
internal static class Shape
{
    /// <summary>Requires a view of at least <paramref name="rows"/> × <paramref name="columns"/> elements on the stream's device.</summary>
    public static void Require<T>(GpuStream stream, ArrayView<T> view, long rows, long columns, string name)
        where T : unmanaged
    {
        long length = checked(rows * columns);
        if (view.Length < length)
            throw new ArgumentException($"'{name}' has {view.Length} elements; [{rows}, {columns}] needs {length}.", name);
        if (length > 0)
            RequireDevice(stream, view, name);
    }

    /// <summary>Requires a dimension that is not negative.</summary>
    public static void RequireSize(long size, string name)
    {
        if (size < 0)
            throw new ArgumentOutOfRangeException(name, size, "A size cannot be negative.");
    }

    /// <summary>Requires a size of at least one.</summary>
    public static void RequirePositive(long size, string name)
    {
        if (size <= 0)
            throw new ArgumentOutOfRangeException(name, size, "A size must be positive.");
    }

    /// <summary>Requires a size between two bounds, both included.</summary>
    public static void RequireRange(long size, long least, long most, string name)
    {
        if (size < least || size > most)
            throw new ArgumentOutOfRangeException(name, size, $"Must be {least} to {most}.");
    }

    /// <summary>Requires a head dimension that the kernels support.</summary>
    public static void RequireHeadDim(int headDim, string name)
    {
        if (headDim <= 0 || headDim > Kernels.Attention.MaxHeadDim || (headDim & 1) != 0)
            throw new ArgumentOutOfRangeException(name, headDim, $"A head dimension must be even and at most {Kernels.Attention.MaxHeadDim}.");
    }

    /// <summary>Requires a layer of a cache on the stream's device whose KV heads divide the query heads.</summary>
    public static KvCache RequireCache(GpuStream stream, KvLayer layer, int queryHeads, string name)
    {
        KvCache cache = layer.Cache ?? throw new ArgumentException($"'{name}' is not a layer of a KvCache.", name);
        stream.Device.RequireSame(cache.Device, name);
        if (cache.Format == KvCacheFormat.Bf16)
            Require(stream, layer.Keys, cache.KvHeads, (long)cache.Capacity * cache.HeadDim, name);
        else
            Require(stream, layer.Codes.Keys, cache.KvHeads, (long)cache.Capacity * cache.HeadDim, name);
        if (queryHeads <= 0 || queryHeads % cache.KvHeads != 0)
            throw new ArgumentException($"{queryHeads} query heads cannot share {cache.KvHeads} KV heads evenly.", nameof(queryHeads));
        return cache;
    }

    /// <summary>Requires a number to add under a root: finite and not negative.</summary>
    public static void RequireEpsilon(float epsilon, string name)
    {
        if (!float.IsFinite(epsilon) || epsilon < 0)
            throw new ArgumentOutOfRangeException(name, epsilon, "An epsilon must be finite and not negative.");
    }

    /// <summary>Whether rows of <paramref name="rowBytes"/> bytes from the view's start are all 16-byte aligned.</summary>
    public static bool IsVectorAligned<T>(ArrayView<T> view, long rowBytes)
        where T : unmanaged => (rowBytes & 15) == 0 && (Address(view) & 15) == 0;

    /// <summary>The device address of a view's first element.</summary>
    public static long Address<T>(ArrayView<T> view)
        where T : unmanaged => view.IsValid ? AddressOf(view) : 0;

    private static long AddressOf<TView>(TView view)
        where TView : struct, IContiguousArrayView => view.Buffer.NativePtr + view.IndexInBytes;

    private static void RequireDevice<TView>(GpuStream stream, TView view, string name)
        where TView : struct, IArrayView
    {
        MemoryBuffer buffer = view.Buffer;
        if (buffer.IsDisposed)
            throw new ObjectDisposedException(name, $"The buffer behind '{name}' was disposed.");
        if (!ReferenceEquals(buffer.Accelerator, stream.Device.Accelerator))
            throw new ArgumentException($"'{name}' lives on {buffer.Accelerator.Name}, the stream on {stream.Device.Name}.", name);
    }
}
