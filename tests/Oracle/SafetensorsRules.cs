using System.Numerics;
using System.Text;
using System.Text.Json;

namespace GpuKit.Ilgpu.Tests.Oracle;

/// <summary>
/// What a safetensors header says, read slowly and by the book, sharing no code with the library's reader: UTF-8; a JSON object that starts
/// at once; no key twice; <c>__metadata__</c> from strings to strings; tensors of exactly dtype, shape and data_offsets; whole numbers from 0
/// to 2⁶³ − 1; at most eight extents whose product in bytes stays below 2⁶³ from the first on and equals the range; ranges in order without hole
/// or overlap from 0 to the end of the data.
/// </summary>
internal sealed record SafetensorsRules(Dictionary<string, SafetensorsRules.Tensor> Tensors, Dictionary<string, string> Metadata)
{
    /// <summary>A tensor's entry.</summary>
    public sealed record Tensor(string Type, long[] Shape, long Begin, long End);

    /// <summary>The contents of a header that keeps all rules, else null.</summary>
    public static SafetensorsRules? Read(byte[] header, long dataBytes)
    {
        try
        {
            string text = new UTF8Encoding(false, throwOnInvalidBytes: true).GetString(header);
            if (!text.StartsWith('{'))
                return null;
            using var document = JsonDocument.Parse(text);
            SafetensorsRules? rules = Read(document.RootElement);
            return rules is not null && CoversData(rules.Tensors.Values, dataBytes) ? rules : null;
        }
        catch (Exception e) when (e is DecoderFallbackException or JsonException or InvalidOperationException)
        {
            // A lone surrogate in a name or a text is an InvalidOperationException.
            return null;
        }
    }

    private static SafetensorsRules? Read(JsonElement root)
    {
        if (Members(root) is not { } members)
            return null;
        var tensors = new Dictionary<string, Tensor>();
        var metadata = new Dictionary<string, string>();
        foreach ((string name, JsonElement value) in members)
        {
            if (name == "__metadata__")
            {
                if (Members(value) is not { } texts || texts.Values.Any(t => t.ValueKind != JsonValueKind.String))
                    return null;
                metadata = texts.ToDictionary(t => t.Key, t => t.Value.GetString()!);
            }
            else if (ReadTensor(value) is { } tensor)
            {
                tensors.Add(name, tensor);
            }
            else
            {
                return null;
            }
        }

        return new SafetensorsRules(tensors, metadata);
    }

    private static Tensor? ReadTensor(JsonElement value)
    {
        if (Members(value) is not { Count: 3 } fields
            || !fields.TryGetValue("dtype", out JsonElement type) || type.ValueKind != JsonValueKind.String || ElementBytes(type.GetString()!) is not { } bytes
            || !fields.TryGetValue("shape", out JsonElement extents) || Numbers(extents) is not { Length: <= 8 } shape
            || !fields.TryGetValue("data_offsets", out JsonElement range) || Numbers(range) is not { Length: 2 } offsets)
        {
            return null;
        }

        BigInteger product = bytes;
        foreach (long extent in shape)
        {
            product *= extent;
            if (product > long.MaxValue)
                return null;
        }

        return offsets[0] + product == offsets[1] ? new Tensor(type.GetString()!, shape, offsets[0], offsets[1]) : null;
    }

    private static int? ElementBytes(string type) => type switch
    {
        "F64" or "I64" or "U64" => 8,
        "F32" or "I32" or "U32" => 4,
        "F16" or "BF16" or "I16" or "U16" => 2,
        "F8_E4M3" or "F8_E5M2" or "I8" or "U8" or "BOOL" => 1,
        _ => null,
    };

    // The members of an object, null for other values and when a name stands twice.
    private static Dictionary<string, JsonElement>? Members(JsonElement value)
    {
        if (value.ValueKind != JsonValueKind.Object)
            return null;
        var members = new Dictionary<string, JsonElement>();
        foreach (JsonProperty member in value.EnumerateObject())
            if (!members.TryAdd(member.Name, member.Value))
                return null;
        return members;
    }

    private static long[]? Numbers(JsonElement list)
    {
        if (list.ValueKind != JsonValueKind.Array)
            return null;
        var numbers = new List<long>();
        foreach (JsonElement item in list.EnumerateArray())
        {
            string text = item.GetRawText();
            if (!text.All(char.IsAsciiDigit) || BigInteger.Parse(text) > long.MaxValue)
                return null;
            numbers.Add((long)BigInteger.Parse(text));
        }

        return [.. numbers];
    }

    private static bool CoversData(IEnumerable<Tensor> tensors, long dataBytes)
    {
        long end = 0;
        foreach (Tensor tensor in tensors.OrderBy(t => t.Begin).ThenBy(t => t.End))
        {
            if (tensor.Begin != end)
                return false;
            end = tensor.End;
        }

        return end == dataBytes;
    }
}
