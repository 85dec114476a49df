using System.Text.Json;
using System.Text.Unicode;

namespace GpuKit.Ilgpu.Models;

/// <summary>Reads the small JSON files of a model folder, turning every way in which they can be wrong into one exception.</summary>
internal static class ModelJson
{
    /// <summary>Configuration files have kilobytes; 2 MB of hostile JSON still fits the budget of a document.</summary>
    public const int MaxBytes = 2_000_000;

    private static readonly JsonDocumentOptions Strict = new() { AllowDuplicateProperties = false, MaxDepth = 32 };

    /// <summary>Reads a whole file as one JSON object without duplicate keys.</summary>
    public static T Read<T>(ModelFolder folder, string fileName, Func<JsonFields, T> read)
    {
        using MappedFile file = folder.Map(fileName, MaxBytes);
        return Read(file.Span(0, (int)file.Length), fileName, read);
    }

    public static T Read<T>(ReadOnlySpan<byte> json, string fileName, Func<JsonFields, T> read)
    {
        RequireUtf8(json, fileName);
        try
        {
            JsonElement root = JsonElement.Parse(json, Strict);
            if (root.ValueKind != JsonValueKind.Object)
            {
                throw new ModelFileException(fileName, $"holds a JSON {root.ValueKind}, an object is needed");
            }

            return read(new JsonFields(fileName, "", root));
        }
        catch (Exception e) when (IsMalformed(e))
        {
            throw Malformed(fileName, e);
        }
    }

    /// <summary>Refuses what is not UTF-8: the JSON reader looks at the bytes of strings only when one is asked for.</summary>
    public static void RequireUtf8(ReadOnlySpan<byte> json, string fileName)
    {
        if (!Utf8.IsValid(json))
        {
            throw new ModelFileException(fileName, "is not UTF-8, which JSON files are");
        }
    }

    /// <summary>
    /// What the JSON reader throws for malformed text: besides its own exception, a lone surrogate in a string is an
    /// <see cref="InvalidOperationException"/>.
    /// </summary>
    public static bool IsMalformed(Exception e) => e is JsonException or InvalidOperationException or FormatException;

    public static ModelFileException Malformed(string fileName, Exception e) =>
        new(fileName, $"is not valid JSON: {Excerpt.Of(e.Message)}", e);
}
