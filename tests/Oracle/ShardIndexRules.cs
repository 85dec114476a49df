using System.Text;
using System.Text.Json;

namespace GpuKit.Ilgpu.Tests.Oracle;

/// <summary>
/// What <c>model.safetensors.index.json</c> says, read slowly and by the book, sharing no code with the library's reader: a JSON object with
/// one <c>weight_map</c> from names, none twice, to bare file names that end in .safetensors.
/// </summary>
internal static class ShardIndexRules
{
    /// <summary>The shard of each tensor, null when a rule is broken.</summary>
    public static Dictionary<string, string>? Read(byte[] json)
    {
        try
        {
            _ = new UTF8Encoding(false, throwOnInvalidBytes: true).GetString(json);
            using var document = JsonDocument.Parse(json, new JsonDocumentOptions { MaxDepth = 16 });
            if (document.RootElement.ValueKind != JsonValueKind.Object)
                return null;
            JsonElement[] maps = [.. document.RootElement.EnumerateObject().Where(p => p.NameEquals("weight_map")).Select(p => p.Value)];
            if (maps is not [{ ValueKind: JsonValueKind.Object } map])
                return null;
            var shards = new Dictionary<string, string>();
            foreach (JsonProperty entry in map.EnumerateObject())
                if (entry.Value.ValueKind != JsonValueKind.String || !IsBareName(entry.Value.GetString()!) || !shards.TryAdd(entry.Name, entry.Value.GetString()!))
                    return null;
            return shards.Count > 0 ? shards : null;
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or DecoderFallbackException)
        {
            return null;
        }
    }

    private static bool IsBareName(string name) =>
        name.EndsWith(".safetensors", StringComparison.Ordinal) && name[0] != '.' && !name.Any(c => char.IsControl(c) || "/\\:*?\"<>|".Contains(c, StringComparison.Ordinal));
}
