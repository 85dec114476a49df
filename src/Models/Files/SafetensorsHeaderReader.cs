using System.Text.Json;

namespace GpuKit.Ilgpu.Models;

/// <summary>Walks the header's JSON object: the metadata, and the tensors one by one.</summary>
internal sealed class SafetensorsHeaderReader(string fileName)
{
    // What a dictionary entry costs beside its text, so that a flood of tiny ones is bounded too.
    private const int EntryBytes = 64;

    private int nameBytes;

    public Dictionary<string, TensorInfo> Tensors { get; } = new(StringComparer.Ordinal);

    public Dictionary<string, string>? Metadata { get; private set; }

    public void Read(ReadOnlySpan<byte> json)
    {
        if (json.IsEmpty || json[0] != (byte)'{')
        {
            throw Wrong("its header must start with '{'");
        }

        // The deepest legal place is a number in a shape: object, tensor, array.
        var reader = new Utf8JsonReader(json, new JsonReaderOptions { MaxDepth = 3 });
        reader.Read();
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            if (reader.ValueTextEquals("__metadata__"u8))
            {
                ReadMetadata(ref reader);
                continue;
            }

            string name = ReadName(ref reader);
            if (!Tensors.TryAdd(name, new SafetensorsTensorReader(fileName, name).Read(ref reader)))
            {
                throw Wrong($"tensor '{Excerpt.Of(name)}' stands twice in its header");
            }
        }

        // Reading on proves that nothing but white space follows.
        while (reader.Read())
        {
        }
    }

    private string ReadName(ref Utf8JsonReader reader)
    {
        int length = reader.ValueSpan.Length;
        if (length > SafetensorsHeader.MaxNameBytes)
        {
            throw Wrong($"tensor name '{Excerpt.Of(reader.ValueSpan)}' has {length} bytes, at most {SafetensorsHeader.MaxNameBytes} are allowed");
        }

        nameBytes += length;
        if (Tensors.Count == SafetensorsHeader.MaxTensors || nameBytes > SafetensorsHeader.MaxAllNameBytes)
        {
            throw Wrong($"has more than {SafetensorsHeader.MaxTensors} tensors or {SafetensorsHeader.MaxAllNameBytes} bytes of names; split it into shards");
        }

        return reader.GetString()!;
    }

    private void ReadMetadata(ref Utf8JsonReader reader)
    {
        if (Metadata is not null || !reader.Read() || reader.TokenType != JsonTokenType.StartObject)
        {
            throw Wrong("its __metadata__ stands twice or is not an object");
        }

        Metadata = new(StringComparer.Ordinal);
        long bytes = 0;
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            string key = ReadMetadataText(ref reader, ref bytes);
            if (!reader.Read() || reader.TokenType != JsonTokenType.String)
            {
                throw Wrong($"its __metadata__ '{Excerpt.Of(key)}' is not a string");
            }

            if (!Metadata.TryAdd(key, ReadMetadataText(ref reader, ref bytes)))
            {
                throw Wrong($"its __metadata__ has the key '{Excerpt.Of(key)}' twice");
            }
        }
    }

    private string ReadMetadataText(ref Utf8JsonReader reader, ref long bytes)
    {
        bytes += reader.ValueSpan.Length + EntryBytes;
        return bytes <= SafetensorsHeader.MaxMetadataBytes
            ? reader.GetString()!
            : throw Wrong($"its __metadata__ has more than {SafetensorsHeader.MaxMetadataBytes} bytes");
    }

    private ModelFileException Wrong(string problem) => new(fileName, problem);
}
