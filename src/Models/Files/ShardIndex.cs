using System.Text.Json;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// <c>model.safetensors.index.json</c>: which shard holds which tensor. Shard names are bare file names; anything that could
/// lead out of the folder is refused.
/// </summary>
internal static class ShardIndex
{
    public const string FileName = "model.safetensors.index.json";

    private const int MaxBytes = 16_000_000;
    private const int MaxTensors = 200_000;
    private const int MaxShards = 1_000;
    private const int MaxShardNameBytes = 255;

    // Characters that separate, abbreviate or redirect paths on any system, not only on this one.
    private static readonly System.Buffers.SearchValues<char> Forbidden = System.Buffers.SearchValues.Create("/\\:*?\"<>|");

    /// <summary>The shard of each tensor.</summary>
    public static Dictionary<string, string> Read(ModelFolder folder)
    {
        using MappedFile file = folder.Map(FileName, MaxBytes);
        ReadOnlySpan<byte> json = file.Span(0, (int)file.Length);
        ModelJson.RequireUtf8(json, FileName);
        try
        {
            return ReadObject(json);
        }
        catch (Exception e) when (ModelJson.IsMalformed(e))
        {
            throw ModelJson.Malformed(FileName, e);
        }
    }

    private static Dictionary<string, string> ReadObject(ReadOnlySpan<byte> json)
    {
        var reader = new Utf8JsonReader(json, new JsonReaderOptions { MaxDepth = 16 });
        if (!reader.Read() || reader.TokenType != JsonTokenType.StartObject)
        {
            throw Wrong("holds no JSON object");
        }

        Dictionary<string, string>? map = null;
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            if (!reader.ValueTextEquals("weight_map"u8))
            {
                reader.Skip();
                continue;
            }

            map = map is null ? ReadMap(ref reader) : throw Wrong("has 'weight_map' twice");
        }

        while (reader.Read())
        {
        }

        return map ?? throw Wrong("'weight_map' is missing; an object of tensor names and shard files is needed");
    }

    private static Dictionary<string, string> ReadMap(ref Utf8JsonReader reader)
    {
        if (!reader.Read() || reader.TokenType != JsonTokenType.StartObject)
        {
            throw Wrong("'weight_map' is not an object");
        }

        var map = new Dictionary<string, string>(StringComparer.Ordinal);
        var shards = new Dictionary<string, string>(StringComparer.Ordinal);
        string shard = "";
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            if (map.Count == MaxTensors || reader.ValueSpan.Length > SafetensorsHeader.MaxNameBytes)
            {
                throw Wrong($"'weight_map' has more than {MaxTensors} tensors or a name of more than {SafetensorsHeader.MaxNameBytes} bytes");
            }

            string name = reader.GetString()!;
            if (!reader.Read() || reader.TokenType != JsonTokenType.String || reader.ValueSpan.Length > MaxShardNameBytes)
            {
                throw Wrong($"'weight_map' gives no shard for '{Excerpt.Of(name)}'; a file name of at most {MaxShardNameBytes} bytes is needed");
            }

            // Neighbouring tensors share a shard, whose name need not be made anew.
            if (shard.Length == 0 || !reader.ValueTextEquals(shard))
            {
                shard = Shared(shards, reader.GetString()!);
            }

            if (!map.TryAdd(name, shard))
            {
                throw Wrong($"'weight_map' has '{Excerpt.Of(name)}' twice");
            }
        }

        return map.Count > 0 ? map : throw Wrong("'weight_map' names no tensor");
    }

    private static string Shared(Dictionary<string, string> shards, string shard)
    {
        if (shards.TryGetValue(shard, out string? known))
        {
            return known;
        }

        if (shards.Count == MaxShards || shard.AsSpan().IndexOfAny(Forbidden) >= 0 || shard.Any(char.IsControl)
            || shard.StartsWith('.') || !shard.EndsWith(".safetensors", StringComparison.Ordinal))
        {
            throw Wrong($"'weight_map' names the shard '{Excerpt.Of(shard)}'; at most {MaxShards} bare file names ending in .safetensors are allowed");
        }

        shards.Add(shard, shard);
        return shard;
    }

    private static ModelFileException Wrong(string problem) => new(FileName, problem);
}
