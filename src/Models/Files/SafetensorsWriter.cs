using System.Buffers.Binary;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace GpuKit.Ilgpu.Models;

/// <summary>Writes safetensors files.</summary>
public static class SafetensorsWriter
{
    // Multi-byte elements stay aligned in a reader's map: the header ends on this boundary and wide types come first.
    private const int Alignment = 8;

    /// <summary>Writes a file, replacing one that is there only when all of it is written.</summary>
    /// <param name="path">The file.</param>
    /// <param name="tensors">Names, types, extents and row-major little-endian bytes. They are stored widest element first, then by name.</param>
    /// <param name="metadata">The file's <c>__metadata__</c>, or null for none.</param>
    /// <exception cref="ArgumentException">A name is used twice or reserved, or bytes and shape disagree.</exception>
    public static void Write(
        string path,
        IEnumerable<(string Name, TensorType Type, long[] Shape, byte[] Bytes)> tensors,
        IReadOnlyDictionary<string, string>? metadata = null)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(path);
        ArgumentNullException.ThrowIfNull(tensors);
        (string Name, TensorType Type, long[] Shape, byte[] Bytes)[] ordered =
            [.. tensors.OrderByDescending(t => t.Type.SizeInBytes()).ThenBy(t => t.Name, StringComparer.Ordinal)];
        Check(ordered);

        byte[] header = Header(ordered, metadata);
        string partial = path + ".partial";
        using (FileStream file = File.Create(partial))
        {
            Span<byte> length = stackalloc byte[sizeof(long)];
            BinaryPrimitives.WriteInt64LittleEndian(length, header.Length);
            file.Write(length);
            file.Write(header);
            foreach ((_, _, _, byte[] bytes) in ordered)
            {
                file.Write(bytes);
            }
        }

        File.Move(partial, path, overwrite: true);
    }

    private static void Check((string Name, TensorType Type, long[] Shape, byte[] Bytes)[] tensors)
    {
        string? before = null;
        foreach ((string name, TensorType type, long[] shape, byte[] bytes) in tensors.OrderBy(t => t.Name, StringComparer.Ordinal))
        {
            if (name == before || name == "__metadata__")
            {
                throw new ArgumentException($"tensor name '{name}' is used twice or reserved", nameof(tensors));
            }

            long expected = shape.Aggregate((long)type.SizeInBytes(), (product, extent) =>
                checked(product * (extent >= 0 ? extent : throw new ArgumentException($"tensor '{name}' has the extent {extent}", nameof(tensors)))));
            if (bytes.Length != expected)
            {
                throw new ArgumentException(
                    $"tensor '{name}' is {type.Spelling()} [{string.Join(", ", shape)}], which takes {expected} bytes; it has {bytes.Length}", nameof(tensors));
            }

            before = name;
        }
    }

    private static byte[] Header(
        (string Name, TensorType Type, long[] Shape, byte[] Bytes)[] tensors, IReadOnlyDictionary<string, string>? metadata)
    {
        using var text = new MemoryStream();
        using (var json = new Utf8JsonWriter(text, new JsonWriterOptions { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
        {
            json.WriteStartObject();
            if (metadata is not null)
            {
                json.WriteStartObject("__metadata__");
                foreach ((string key, string value) in metadata)
                {
                    json.WriteString(key, value);
                }

                json.WriteEndObject();
            }

            long offset = 0;
            foreach ((string name, TensorType type, long[] shape, byte[] bytes) in tensors)
            {
                json.WriteStartObject(name);
                json.WriteString("dtype", type.Spelling());
                WriteNumbers(json, "shape", shape);
                WriteNumbers(json, "data_offsets", [offset, offset + bytes.Length]);
                json.WriteEndObject();
                offset += bytes.Length;
            }

            json.WriteEndObject();
        }

        while (text.Length % Alignment != 0)
        {
            text.WriteByte((byte)' ');
        }

        return text.ToArray();
    }

    private static void WriteNumbers(Utf8JsonWriter json, string name, ReadOnlySpan<long> numbers)
    {
        json.WriteStartArray(name);
        foreach (long number in numbers)
        {
            json.WriteNumberValue(number);
        }

        json.WriteEndArray();
    }
}
