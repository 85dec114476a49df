using System.Text;
using System.Text.Json;
using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Tests.Oracle;

/// <summary>What accepted configurations must say, read once more from the text itself.</summary>
internal static class ConfigRules
{
    /// <summary>Every count of an accepted <c>config.json</c> is the number in the text, positive and within its limit.</summary>
    public static void Check(byte[] json, Qwen3MoeConfig config)
    {
        JsonElement root = Root(json);
        (string Name, int Value, int Most)[] counts =
        [
            ("hidden_size", config.HiddenSize, 1 << 20), ("num_hidden_layers", config.Layers, 4096), ("num_attention_heads", config.QueryHeads, 4096),
            ("num_key_value_heads", config.KeyValueHeads, 4096), ("head_dim", config.HeadDim, 4096), ("intermediate_size", config.IntermediateSize, 1 << 20),
            ("moe_intermediate_size", config.MoeIntermediateSize, 1 << 20), ("num_experts_per_tok", config.ExpertsPerToken, 4096),
            ("max_position_embeddings", config.MaxPositionEmbeddings, 1 << 26), ("vocab_size", config.VocabSize, 1 << 24),
        ];
        foreach ((string name, int value, int most) in counts)
        {
            Assert.Equal(root.GetProperty(name).GetInt32(), value);
            Assert.InRange(value, 1, most);
        }

        Assert.Equal(root.GetProperty("norm_topk_prob").GetBoolean(), config.NormTopkProb);
        Assert.InRange(config.RmsNormEps, double.Epsilon, 1);
        Assert.InRange(config.RopeTheta, 1, 1e12);
        Assert.InRange(config.ExpertsPerToken, 1, config.Experts);
        Assert.Equal((0, 0), (config.QueryHeads % config.KeyValueHeads, config.HeadDim % 2));
        Assert.All(config.MlpOnlyLayers, layer => Assert.InRange(layer, 0, config.Layers - 1));
        Assert.All(config.EosTokenIds.Append(config.BosTokenId ?? 0), id => Assert.InRange(id, 0, config.VocabSize - 1));
        Assert.Equal("qwen3_moe", root.GetProperty("model_type").GetString());
    }

    /// <summary>A <c>generation_config.json</c> keeps the rules exactly when this gives its values.</summary>
    public static GenerationConfig? Generation(byte[] json)
    {
        try
        {
            JsonElement root = Root(json);
            return root.ValueKind != JsonValueKind.Object ? null : new GenerationConfig
            {
                DoSample = Value(root, "do_sample") is { } sample && sample.GetBoolean(),
                Temperature = Number(root, "temperature", 1, v => v is >= 0 and <= 100),
                TopK = Value(root, "top_k") is { } topK ? Id(topK) : 50,
                TopP = Number(root, "top_p", 1, v => v is > 0 and <= 1),
                MinP = Number(root, "min_p", 0, v => v is >= 0 and <= 1),
                RepetitionPenalty = Number(root, "repetition_penalty", 1, v => v is > 0 and <= 100),
                EosTokenIds = Value(root, "eos_token_id") is not { } ids ? [] : ids.ValueKind == JsonValueKind.Array ? [.. ids.EnumerateArray().Select(Id)] : [Id(ids)],
            };
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or FormatException or DecoderFallbackException)
        {
            return null;
        }
    }

    /// <summary>The values as one text, to compare by.</summary>
    public static string Text(GenerationConfig? config) => config is null ? "refused" : JsonSerializer.Serialize(config);

    private static JsonElement Root(byte[] json)
    {
        _ = new UTF8Encoding(false, throwOnInvalidBytes: true).GetString(json);
        using var document = JsonDocument.Parse(json, new JsonDocumentOptions { MaxDepth = 32 });
        RequireUnique(document.RootElement);
        return document.RootElement.Clone();
    }

    private static void RequireUnique(JsonElement value)
    {
        if (value.ValueKind == JsonValueKind.Object)
        {
            var names = new HashSet<string>();
            foreach (JsonProperty member in value.EnumerateObject())
            {
                if (!names.Add(member.Name))
                    throw new FormatException($"'{member.Name}' stands twice");
                RequireUnique(member.Value);
            }
        }

        if (value.ValueKind == JsonValueKind.Array)
        {
            foreach (JsonElement item in value.EnumerateArray())
                RequireUnique(item);
        }
    }

    private static JsonElement? Value(JsonElement root, string name) => root.TryGetProperty(name, out JsonElement value) && value.ValueKind != JsonValueKind.Null ? value : null;

    private static int Id(JsonElement value) => value.GetInt32() is >= 0 and int id ? id : throw new FormatException("negative");

    private static double Number(JsonElement root, string name, double fallback, Func<double, bool> isInRange) =>
        Value(root, name) is not { } value ? fallback : isInRange(value.GetDouble()) ? value.GetDouble() : throw new FormatException(name);
}
