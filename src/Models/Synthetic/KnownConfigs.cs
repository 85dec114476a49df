using System.Text;
using System.Text.Json.Nodes;

namespace GpuKit.Ilgpu.Models;

/// <summary>Shapes of published models, as their <c>config.json</c> says them.</summary>
public static class KnownConfigs
{
    private const string Qwen3 = """
        {
          "architectures": ["Qwen3MoeForCausalLM"],
          "model_type": "qwen3_moe",
          "attention_bias": false,
          "hidden_act": "silu",
          "hidden_size": 2048,
          "num_hidden_layers": 48,
          "num_attention_heads": 32,
          "num_key_value_heads": 4,
          "head_dim": 128,
          "intermediate_size": 6144,
          "moe_intermediate_size": 768,
          "num_experts": 128,
          "num_experts_per_tok": 8,
          "norm_topk_prob": true,
          "decoder_sparse_step": 1,
          "mlp_only_layers": [],
          "vocab_size": 151936,
          "tie_word_embeddings": false,
          "max_position_embeddings": 262144,
          "rms_norm_eps": 1e-06,
          "rope_theta": 10000000,
          "rope_scaling": null,
          "sliding_window": null,
          "use_sliding_window": false,
          "eos_token_id": [151645, 151643],
          "torch_dtype": "bfloat16",
          "quantization_config": {
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "quant_method": "fp8",
            "weight_block_size": [128, 128],
            "modules_to_not_convert": ["lm_head"]
          }
        }
        """;

    private static readonly Dictionary<string, string> ByName = new(StringComparer.Ordinal) { ["qwen3-30b-a3b"] = Qwen3 };

    /// <summary>The names that there are.</summary>
    public static IReadOnlyCollection<string> Names => ByName.Keys;

    /// <summary>A shape by its name.</summary>
    /// <exception cref="ArgumentException">There is no such name; the message lists those there are.</exception>
    public static Qwen3MoeConfig Get(string name) => Qwen3MoeConfig.Parse(Encoding.UTF8.GetBytes(Json(name).ToJsonString()));

    /// <summary>The text of its <c>config.json</c>.</summary>
    /// <exception cref="ArgumentException">There is no such name; the message lists those there are.</exception>
    public static JsonObject Json(string name) => ByName.TryGetValue(name, out string? text)
        ? JsonNode.Parse(text)!.AsObject()
        : throw new ArgumentException($"'{name}' is no shape that is known; there are {string.Join(", ", Names)}.", nameof(name));
}
