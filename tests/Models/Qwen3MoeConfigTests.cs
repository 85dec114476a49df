using System.Text;
using System.Text.Json.Nodes;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Models;

/// <summary>config.json: what is read, and that every wrong field is refused by its name.</summary>
public sealed class Qwen3MoeConfigTests
{
    private static readonly string[] Counts =
    [
        "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size",
        "moe_intermediate_size", "num_experts", "num_experts_per_tok", "max_position_embeddings", "vocab_size",
    ];

    private static readonly string[] WrongCounts =
        ["0", "-1", "-2147483648", "1e99", "2147483647", "2147483648", "99999999999999999999", "1.5", "\"4\"", "true", "[4]", "{}"];

    // They change nothing that this library does.
    private static readonly string[] Ignored =
    [
        "architectures", "attention_dropout", "pad_token_id", "initializer_range", "output_router_logits", "router_aux_loss_coef", "sliding_window", "use_cache", "transformers_version",
    ];

    // Of the usual wrong values those that are right for a field; none for a field that is not here.
    private static readonly Dictionary<string, string[]> LegalValues = new()
    {
        ["attention_bias"] = ["missing"],
        ["bos_token_id"] = ["missing", "0"],
        ["decoder_sparse_step"] = ["missing"],
        ["dtype"] = ["missing", "\"x\""],
        ["eos_token_id"] = ["missing", "0", "[]"],
        ["hidden_act"] = ["missing"],
        ["mlp_only_layers"] = ["missing", "[]"],
        ["norm_topk_prob"] = ["true"],
        ["num_local_experts"] = ["missing"],
        ["partial_rotary_factor"] = ["missing"],
        ["quantization_config"] = ["missing"],
        ["rope_parameters"] = ["missing", "{}"],
        ["rope_scaling"] = ["missing", "{}"],
        ["tie_word_embeddings"] = ["missing", "true"],
        ["torch_dtype"] = ["missing", "\"x\""],
        ["use_sliding_window"] = ["missing"],
    };

    /// <summary>Field, JSON text it is set to (null removes it).</summary>
    public static TheoryData<string, string?> WrongFields
    {
        get
        {
            var data = new TheoryData<string, string?>();
            foreach (string count in Counts)
            {
                data.Add(count, null);
                foreach (string value in WrongCounts)
                {
                    data.Add(count, value);
                }
            }

            string[] required = ["model_type", "norm_topk_prob", "rms_norm_eps", "rope_theta"];
            data.AddRange(required.Select(f => new TheoryDataRow<string, string?>(f, null)).ToArray());
            Add(data, "decoder_sparse_step", "0", "-1", "1e9", "5000", "\"1\"");
            Add(data, "rms_norm_eps", "0", "-1e-6", "2", "1e999", "\"1e-6\"", "true");
            Add(data, "rope_theta", "0", "-1", "0.5", "1e13", "1e999", "\"1e6\"", "[]");
            Add(data, "norm_topk_prob", "1", "\"true\"", "[]");
            Add(data, "tie_word_embeddings", "0", "\"false\"");
            Add(data, "mlp_only_layers", "1", "[4]", "[-1]", "[\"0\"]", "[0.5]", "{}");
            Add(data, "eos_token_id", "-1", "2048", "[2048]", "[1,-1]", "\"2047\"", "{}", "1.5");
            Add(data, "bos_token_id", "-1", "2048", "[1]", "\"1\"");
            Add(data, "model_type", "\"qwen2_moe\"", "\"llama\"", "1");
            Add(data, "hidden_act", "\"gelu\"", "1");
            Add(data, "attention_bias", "true", "1");
            Add(data, "use_sliding_window", "true");
            Add(data, "rope_scaling", "{\"rope_type\":\"yarn\",\"factor\":4.0}", "{\"type\":\"linear\",\"factor\":2.0}", "{\"type\":\"default\",\"factor\":2.0}", "\"yarn\"", "[]");
            Add(data, "rope_parameters", "{\"rope_type\":\"llama3\",\"rope_theta\":1e6}", "{\"rope_type\":\"default\",\"rope_theta\":-1}", "{\"rope_theta\":1e6,\"partial_rotary_factor\":0.5}");
            Add(data, "partial_rotary_factor", "0.5");
            Add(data, "torch_dtype", "16");
            Add(data, "quantization_config", "\"fp8\"", "[]", "{}");
            Add(data, "head_dim", "63");
            Add(data, "num_attention_heads", "7");
            Add(data, "num_experts_per_tok", "17");
            return data;
        }
    }

    public static TheoryData<string, string?> WrongQuantization
    {
        get
        {
            var data = new TheoryData<string, string?> { { "quant_method", null }, { "weight_block_size", null } };
            Add(data, "quant_method", "\"gptq\"", "\"awq\"", "1");
            Add(data, "fmt", "\"e5m2\"", "1");
            Add(data, "activation_scheme", "\"static\"", "true");
            Add(data, "weight_block_size", "128", "[128]", "[128,128,128]", "[0,128]", "[128,-128]", "[96,128]", "[8,128]", "[8192,128]", "[128,\"128\"]", "null");
            Add(data, "modules_to_not_convert", "\"lm_head\"", "[1]");
            return data;
        }
    }

    [Theory]
    [MemberData(nameof(WrongFields))]
    public void A_wrong_field_is_refused_by_name(string field, string? value) =>
        RefusedNaming(field, Changed(config => Set(config, field, value)));

    [Theory]
    [MemberData(nameof(WrongQuantization))]
    public void A_wrong_quantization_is_refused_by_name(string field, string? value) =>
        RefusedNaming("quantization_config." + field, Changed(config => Set(config["quantization_config"]!.AsObject(), field, value)));

    [Theory]
    [InlineData("format", "{\"quant_method\":\"gpukit\"}")]
    [InlineData("format", "{\"quant_method\":\"gpukit\",\"format\":\"int3\"}")]
    [InlineData("group_size", "{\"quant_method\":\"gpukit\",\"format\":\"nvfp4\",\"group_size\":32}")]
    [InlineData("group_size", "{\"quant_method\":\"gpukit\",\"format\":\"nvfp4\"}")]
    [InlineData("group_size", "{\"quant_method\":\"gpukit\",\"format\":\"int4\"}")]
    [InlineData("group_size", "{\"quant_method\":\"gpukit\",\"format\":\"int4\",\"group_size\":16}")]
    [InlineData("group_size", "{\"quant_method\":\"gpukit\",\"format\":\"int4\",\"group_size\":96}")]
    [InlineData("zero_point", "{\"quant_method\":\"gpukit\",\"format\":\"int4\",\"group_size\":128,\"zero_point\":1}")]
    [InlineData("weight_block_size", "{\"quant_method\":\"gpukit\",\"format\":\"fp8-two-term\"}")]
    [InlineData("weight_block_size", "{\"quant_method\":\"gpukit\",\"format\":\"fp8-two-term\",\"weight_block_size\":[128,96]}")]
    public void A_wrong_four_bit_quantization_is_refused_by_name(string field, string section) =>
        RefusedNaming("quantization_config." + field, Changed(config => Set(config, "quantization_config", section)));

    [Fact]
    public void Every_field_of_the_file_is_checked_or_known_to_be_ignored()
    {
        string[] wrong = ["missing", "-1", "0", "1e300", "\"x\"", "true", "[]", "{}"];
        string[] names = [.. Original().Select(f => f.Key), "rope_parameters", "dtype", "partial_rotary_factor", "num_local_experts"];
        foreach (string field in names.Except(Ignored))
        {
            string[] legal = LegalValues.GetValueOrDefault(field, []);
            foreach (string value in wrong)
            {
                Func<Qwen3MoeConfig> read = Changed(config => Set(config, field, value == "missing" ? null : value));
                if (legal.Contains(value))
                    read();
                else
                    RefusedNaming($"'{(value == "{}" && field == "quantization_config" ? "quantization_config.quant_method" : field)}'", read);
            }
        }
    }

    [Fact]
    public void Every_format_reads_its_own_section()
    {
        foreach (CheckpointFormat format in CheckpointFormat.All.Where(f => f.Format != WeightFormat.Bf16))
        {
            WeightQuantization written = format.Quantization(["lm_head", "other"])!;
            WeightQuantization read = Changed(config => Set(config, "quantization_config", written.ToJson().ToJsonString()))().Quantization!;
            Assert.Equal((format.Format, format.Block), (read.Format, read.Block));
            Assert.Equal(written.ModulesToNotConvert, read.ModulesToNotConvert);
        }
    }

    [Theory]
    [InlineData("")]
    [InlineData("[]")]
    [InlineData("null")]
    [InlineData("{")]
    [InlineData("{\"model_type\":\"qwen3_moe\",\"model_type\":\"qwen3_moe\"}")]
    [InlineData("{\"model_type\":\"\\ud800\"}")]
    [InlineData("{\"\\ud800\":1}")]
    [InlineData("{\"rms_norm_eps\":NaN}")]
    [InlineData("\uFEFF{}")]
    public void Malformed_JSON_is_refused(string json)
    {
        var refused = Assert.Throws<ModelFileException>(() => Qwen3MoeConfig.Parse(Encoding.UTF8.GetBytes(json)));
        Assert.StartsWith("config.json: ", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_file_that_is_missing_or_too_large_is_refused()
    {
        using var folder = new TemporaryFolder();
        RefusedNaming("not found", () => Qwen3MoeConfig.Load(folder.Path));
        folder.Write("config.json", new byte[3_000_000]);
        RefusedNaming("3000000", () => Qwen3MoeConfig.Load(folder.Path));
    }

    [Fact]
    public void The_tiny_config_is_read()
    {
        var config = Qwen3MoeConfig.Load(RepositoryFolder.TinyModel);
        Assert.Equal(
            (256, 4, 8, 2, 64, 512, 128, 16, 4),
            (config.HiddenSize, config.Layers, config.QueryHeads, config.KeyValueHeads, config.HeadDim, config.IntermediateSize, config.MoeIntermediateSize, config.Experts, config.ExpertsPerToken));
        Assert.Equal((true, 1e-6, 1e6, 2048, 2048), (config.NormTopkProb, config.RmsNormEps, config.RopeTheta, config.MaxPositionEmbeddings, config.VocabSize));
        Assert.Equal([2047, 2045], config.EosTokenIds);
        Assert.Equal(2045, config.BosTokenId);
        Assert.Equal("bfloat16", config.PublishedType);
        Fp8Quantization fp8 = Assert.IsType<Fp8Quantization>(config.Quantization);
        Assert.Equal((128, 128, 13), (fp8.BlockN, fp8.BlockK, fp8.ModulesToNotConvert.Count));
        Assert.False(config.TieWordEmbeddings);
    }

    [Fact]
    public void Newer_spellings_mean_the_same()
    {
        var config = Changed(c =>
        {
            Set(c, "rope_theta", null);
            Set(c, "rope_scaling", null);
            Set(c, "rope_parameters", "{\"rope_theta\":5000000,\"rope_type\":\"default\"}");
            Set(c, "torch_dtype", null);
            Set(c, "dtype", "\"float16\"");
            Set(c, "eos_token_id", "7");
            Set(c, "quantization_config", null);
            Set(c, "bos_token_id", "null");
        })();
        Assert.Equal((5e6, "float16", null, null), (config.RopeTheta, config.PublishedType, config.Quantization, config.BosTokenId));
        Assert.Equal([7], config.EosTokenIds);
        Assert.Equal(1e6, Changed(c => Set(c, "rope_scaling", "{\"type\":\"default\"}"))().RopeTheta);
    }

    [Fact]
    public void Sparse_layers_are_those_of_Hugging_Face()
    {
        var config = Changed(c =>
        {
            Set(c, "decoder_sparse_step", "2");
            Set(c, "mlp_only_layers", "[3]");
        })();
        Assert.Equal([false, true, false, false], Enumerable.Range(0, 4).Select(config.IsSparse));
    }

    private static void Add(TheoryData<string, string?> data, string field, params string[] values)
    {
        foreach (string value in values)
        {
            data.Add(field, value);
        }
    }

    private static void Set(JsonObject config, string field, string? value)
    {
        config.Remove(field);
        if (value is not null)
        {
            config[field] = JsonNode.Parse(value);
        }
    }

    private static JsonObject Original() => JsonNode.Parse(File.ReadAllBytes(Path.Combine(RepositoryFolder.TinyModel, "config.json")))!.AsObject();

    private static Func<Qwen3MoeConfig> Changed(Action<JsonObject> change)
    {
        JsonObject config = Original();
        change(config);
        return () => Qwen3MoeConfig.Parse(Encoding.UTF8.GetBytes(config.ToJsonString()));
    }

    private static void RefusedNaming(string what, Func<Qwen3MoeConfig> read)
    {
        var refused = Assert.Throws<ModelFileException>(read);
        Assert.StartsWith("config.json: ", refused.Message, StringComparison.Ordinal);
        Assert.Contains(what, refused.Message, StringComparison.Ordinal);
    }
}
