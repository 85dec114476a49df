using System.Buffers.Binary;
using System.Reflection;
using System.Runtime.InteropServices;
using ILGPU;
using ILGPU.Runtime;

namespace GpuKit.Ilgpu.Runtime;

/// <summary>
/// An argument struct as ILGPU lays it out for a kernel, for launches that ILGPU does not make itself: fields in their order, each on a multiple of its size; a view is its
/// address and the number of its elements, eight bytes each.
/// </summary>
internal static class ArgumentBytes
{
    private const int ViewBytes = 16, MostAlignment = 8;

    /// <summary>The bytes of a struct of views, 32-bit and 64-bit numbers.</summary>
    public static byte[] Pack<TArgs>(in TArgs args)
        where TArgs : struct
    {
        object boxed = args;
        // In the order of declaration, which is that of the metadata.
        FieldInfo[] fields = [.. typeof(TArgs).GetFields(BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic).OrderBy(f => f.MetadataToken)];
        var bytes = new List<byte>();
        foreach (FieldInfo field in fields)
            Append(bytes, field.GetValue(boxed)!, field.Name);
        Align(bytes, MostAlignment);
        return [.. bytes];
    }

    private static void Append(List<byte> bytes, object value, string name)
    {
        Span<byte> part = stackalloc byte[ViewBytes];
        switch (value)
        {
            case IContiguousArrayView view:
                Align(bytes, MostAlignment);
                BinaryPrimitives.WriteInt64LittleEndian(part, view.IsValid ? view.Buffer.NativePtr + view.IndexInBytes : 0);
                BinaryPrimitives.WriteInt64LittleEndian(part[sizeof(long)..], view.Length);
                bytes.AddRange(part);
                return;
            case long number:
                Align(bytes, sizeof(long));
                bytes.AddRange(MemoryMarshal.AsBytes(new ReadOnlySpan<long>(in number)));
                return;
            case int number:
                Align(bytes, sizeof(int));
                bytes.AddRange(MemoryMarshal.AsBytes(new ReadOnlySpan<int>(in number)));
                return;
            case float number:
                Align(bytes, sizeof(float));
                bytes.AddRange(MemoryMarshal.AsBytes(new ReadOnlySpan<float>(in number)));
                return;
            default:
                throw new NotSupportedException($"The argument {name} is a {value.GetType().Name}; views, int, long and float can be packed.");
        }
    }

    private static void Align(List<byte> bytes, int alignment)
    {
        while (bytes.Count % alignment != 0)
            bytes.Add(0);
    }
}
