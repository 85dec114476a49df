using System.Globalization;
using System.Text.Json;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// The fields of a JSON object, each read with the range it must lie in. A missing field and a null one are the same, as they
/// are to the program that writes these files.
/// </summary>
/// <param name="FileName">The file, for messages.</param>
/// <param name="Prefix">The path to this object, for messages: <c>quantization_config.</c>.</param>
/// <param name="Element">The object.</param>
internal readonly record struct JsonFields(string FileName, string Prefix, JsonElement Element)
{
    public bool TryGet(string name, out JsonElement value) =>
        Element.TryGetProperty(name, out value) && value.ValueKind != JsonValueKind.Null;

    public bool Has(string name) => TryGet(name, out _);

    /// <summary>A whole number from <paramref name="min"/> to <paramref name="max"/>; required unless there is a fallback.</summary>
    public int Int(string name, int min, int max, int? fallback = null)
    {
        string needed = $"a whole number from {min} to {max}";
        if (!TryGet(name, out JsonElement value))
        {
            return fallback ?? throw Missing(name, needed);
        }

        return TryInt(value, min, max, out int number) ? number : throw Wrong(name, value, needed);
    }

    /// <summary>A finite number in [min, max], or (min, max] when <paramref name="aboveMin"/>.</summary>
    public double Number(string name, double min, double max, double? fallback = null, bool aboveMin = false)
    {
        string needed = string.Create(CultureInfo.InvariantCulture, $"a number {(aboveMin ? "above" : "from")} {min} {(aboveMin ? "and at most" : "to")} {max}");
        if (!TryGet(name, out JsonElement value))
        {
            return fallback ?? throw Missing(name, needed);
        }

        bool good = value.ValueKind == JsonValueKind.Number && value.TryGetDouble(out double number)
            && number >= min && number <= max && !(aboveMin && number == min);
        return good ? value.GetDouble() : throw Wrong(name, value, needed);
    }

    public bool Flag(string name, bool? fallback = null)
    {
        const string needed = "true or false";
        if (!TryGet(name, out JsonElement value))
        {
            return fallback ?? throw Missing(name, needed);
        }

        return value.ValueKind is JsonValueKind.True or JsonValueKind.False ? value.GetBoolean() : throw Wrong(name, value, needed);
    }

    public string? Text(string name)
    {
        if (!TryGet(name, out JsonElement value))
        {
            return null;
        }

        return value.ValueKind == JsonValueKind.String ? value.GetString() : throw Wrong(name, value, "a string");
    }

    /// <summary>Refuses every value of a text field but one.</summary>
    public void RequireText(string name, string only, bool required)
    {
        string? value = Text(name);
        if (value is null && required)
        {
            throw Missing(name, $"\"{only}\"");
        }

        if (value is not null && value != only)
        {
            throw Unsupported(name, $"\"{value}\"", $"\"{only}\" is");
        }
    }

    /// <summary>A number, a list of numbers, or nothing: the way stop ids are written.</summary>
    public IReadOnlyList<int> Ints(string name, int min, int max, bool acceptOne)
    {
        if (!TryGet(name, out JsonElement value))
        {
            return [];
        }

        string needed = $"{(acceptOne ? "a whole number or " : "")}a list of whole numbers from {min} to {max}";
        if (acceptOne && TryInt(value, min, max, out int one))
        {
            return [one];
        }

        if (value.ValueKind != JsonValueKind.Array || value.GetArrayLength() > 65536)
        {
            throw Wrong(name, value, needed);
        }

        var numbers = new List<int>(value.GetArrayLength());
        foreach (JsonElement item in value.EnumerateArray())
        {
            numbers.Add(TryInt(item, min, max, out int number) ? number : throw Wrong(name, value, needed));
        }

        return numbers;
    }

    public IReadOnlyList<string> Texts(string name)
    {
        if (!TryGet(name, out JsonElement value))
        {
            return [];
        }

        if (value.ValueKind != JsonValueKind.Array || value.EnumerateArray().Any(e => e.ValueKind != JsonValueKind.String))
        {
            throw Wrong(name, value, "a list of strings");
        }

        return [.. value.EnumerateArray().Select(e => e.GetString()!)];
    }

    public JsonFields? Section(string name)
    {
        if (!TryGet(name, out JsonElement value))
        {
            return null;
        }

        return value.ValueKind == JsonValueKind.Object
            ? new JsonFields(FileName, $"{Prefix}{name}.", value)
            : throw Wrong(name, value, "an object");
    }

    public ModelFileException Missing(string name, string needed) =>
        new(FileName, $"'{Prefix}{name}' is missing; {needed} is needed");

    public ModelFileException Wrong(string name, JsonElement value, string needed) =>
        new(FileName, $"'{Prefix}{name}' is {Excerpt.Of(value.GetRawText())}; {needed} is needed");

    /// <summary>A value that is well-formed and means something this library does not do.</summary>
    public ModelFileException Unsupported(string name, string value, string supported) =>
        new(FileName, $"'{Prefix}{name}' is {Excerpt.Of(value)}, which is not supported; {supported}");

    private static bool TryInt(JsonElement value, int min, int max, out int number)
    {
        number = 0;
        return value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out number) && number >= min && number <= max;
    }
}
