using System.Text.Json;

namespace GpuKit.Ilgpu.Models;

/// <summary>The small parts of an object in <c>tokenizer.json</c>; the large ones (vocabulary, merges) are streamed past it.</summary>
/// <param name="prefix">The path to the object, for messages.</param>
internal sealed class TokenizerParts(string prefix)
{
    // All parts together are some kilobytes; hostile ones may not become documents of gigabytes.
    private const int MaxBytes = 1_000_000;
    private const int MaxParts = 64;

    private static readonly JsonDocumentOptions Strict = new() { AllowDuplicateProperties = false, MaxDepth = 32 };

    private readonly Dictionary<string, JsonElement> parts = new(StringComparer.Ordinal);
    private long bytes;

    /// <summary>Reads the property that the reader stands on, name and value.</summary>
    public void Read(ref Utf8JsonReader reader, ReadOnlySpan<byte> json)
    {
        string name = reader.ValueSpan.Length <= 64 && parts.Count < MaxParts
            ? reader.GetString()!
            : throw new ModelFileException(TokenizerFile.FileName, $"'{prefix}{Excerpt.Of(reader.ValueSpan)}' is no part that such a file has");
        reader.Read();
        int start = (int)reader.TokenStartIndex;
        reader.Skip();
        int length = (int)reader.BytesConsumed - start;
        bytes += length;
        if (bytes > MaxBytes)
        {
            throw new ModelFileException(TokenizerFile.FileName, $"has {bytes} bytes of parts up to '{prefix}{Excerpt.Of(name)}'; at most {MaxBytes} are allowed beside vocabulary and merges");
        }

        if (!parts.TryAdd(name, JsonElement.Parse(json.Slice(start, length), Strict)))
        {
            throw new ModelFileException(TokenizerFile.FileName, $"'{prefix}{Excerpt.Of(name)}' stands twice");
        }
    }

    /// <summary>A part that is there and not null.</summary>
    public bool TryGet(string name, out JsonElement value) =>
        parts.TryGetValue(name, out value) && value.ValueKind != JsonValueKind.Null;

    /// <summary>The fields of a part that is an object; null when it is absent.</summary>
    public JsonFields? Section(string name)
    {
        if (!TryGet(name, out JsonElement value))
        {
            return null;
        }

        return value.ValueKind == JsonValueKind.Object
            ? new JsonFields(TokenizerFile.FileName, $"{prefix}{name}.", value)
            : throw Unsupported(name, "null or an object is needed");
    }

    /// <summary>The refusal of a part's value.</summary>
    public ModelFileException Unsupported(string name, string supported) => new(
        TokenizerFile.FileName,
        TryGet(name, out JsonElement value)
            ? $"'{prefix}{name}' is {Excerpt.Of(value.GetRawText())}, which is not supported; {supported}"
            : $"'{prefix}{name}' is missing; {supported}");
}
