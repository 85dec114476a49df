namespace GpuKit.Ilgpu.Models;

/// <summary>
/// From the JSON fields to a checked <see cref="Qwen3MoeConfig"/>. The limits are far above any published model and keep what
/// a hostile file can make a loader allocate or loop over small.
/// </summary>
internal static class Qwen3MoeConfigReader
{
    private const int MaxLayers = 4_096;
    private const int MaxExperts = 4_096;
    private const int MaxHeads = 4_096;
    private const int MaxHeadDim = 4_096;
    private const int MaxWidth = 1 << 20;
    private const int MaxVocabulary = 1 << 24;
    private const int MaxPositions = 1 << 26;

    public static Qwen3MoeConfig Read(JsonFields fields)
    {
        RefuseUnsupported(fields);
        int layers = fields.Int("num_hidden_layers", 1, MaxLayers);
        int vocabulary = fields.Int("vocab_size", 1, MaxVocabulary);
        var config = new Qwen3MoeConfig
        {
            HiddenSize = fields.Int("hidden_size", 1, MaxWidth),
            Layers = layers,
            QueryHeads = fields.Int("num_attention_heads", 1, MaxHeads),
            KeyValueHeads = fields.Int("num_key_value_heads", 1, MaxHeads),
            HeadDim = fields.Int("head_dim", 2, MaxHeadDim),
            IntermediateSize = fields.Int("intermediate_size", 1, MaxWidth),
            MoeIntermediateSize = fields.Int("moe_intermediate_size", 1, MaxWidth),
            Experts = fields.Int(fields.Has("num_local_experts") ? "num_local_experts" : "num_experts", 1, MaxExperts),
            ExpertsPerToken = fields.Int("num_experts_per_tok", 1, MaxExperts),
            NormTopkProb = fields.Flag("norm_topk_prob"),
            RmsNormEps = fields.Number("rms_norm_eps", 0, 1, aboveMin: true),
            RopeTheta = ReadRopeTheta(fields),
            MaxPositionEmbeddings = fields.Int("max_position_embeddings", 1, MaxPositions),
            VocabSize = vocabulary,
            TieWordEmbeddings = fields.Flag("tie_word_embeddings", fallback: false),
            DecoderSparseStep = fields.Int("decoder_sparse_step", 1, MaxLayers, fallback: 1),
            MlpOnlyLayers = fields.Ints("mlp_only_layers", 0, layers - 1, acceptOne: false),
            EosTokenIds = fields.Ints("eos_token_id", 0, vocabulary - 1, acceptOne: true),
            BosTokenId = fields.Has("bos_token_id") ? fields.Int("bos_token_id", 0, vocabulary - 1) : null,
            PublishedType = fields.Text("dtype") ?? fields.Text("torch_dtype"),
            Quantization = fields.Section("quantization_config") is { } section ? WeightQuantization.Read(section) : null,
        };
        CheckTogether(fields, config);
        return config;
    }

    private static void RefuseUnsupported(JsonFields fields)
    {
        fields.RequireText("model_type", "qwen3_moe", required: true);
        fields.RequireText("hidden_act", "silu", required: false);
        RequireFalse(fields, "attention_bias", "projections have no bias");
        RequireFalse(fields, "use_sliding_window", "attention is over the whole context");
        if (fields.Number("partial_rotary_factor", 0, 1, fallback: 1) != 1)
        {
            throw fields.Unsupported("partial_rotary_factor", "below 1", "1 is");
        }

        RequireDefaultRope(fields, "rope_scaling");
        RequireDefaultRope(fields, "rope_parameters");
    }

    private static void RequireFalse(JsonFields fields, string name, string instead)
    {
        if (fields.Flag(name, fallback: false))
        {
            throw fields.Unsupported(name, "true", $"false is ({instead})");
        }
    }

    // Older files call the kind "type", newer ones "rope_type".
    private static void RequireDefaultRope(JsonFields fields, string name)
    {
        if (fields.Section(name) is not { } rope)
        {
            return;
        }

        foreach (string key in (string[])["rope_type", "type"])
        {
            if (rope.Text(key) is { } kind && kind != "default")
            {
                throw rope.Unsupported(key, $"\"{kind}\"", "\"default\" is");
            }
        }

        if (rope.Has("factor") && rope.Number("factor", 0, double.MaxValue) != 1)
        {
            throw rope.Unsupported("factor", rope.Element.GetProperty("factor").GetRawText(), "positions are not scaled");
        }

        if (rope.Number("partial_rotary_factor", 0, 1, fallback: 1) != 1)
        {
            throw rope.Unsupported("partial_rotary_factor", "below 1", "1 is");
        }
    }

    private static double ReadRopeTheta(JsonFields fields)
    {
        JsonFields at = fields.Section("rope_parameters") is { } rope && rope.Has("rope_theta") ? rope : fields;
        return at.Number("rope_theta", 1, 1e12);
    }

    private static void CheckTogether(JsonFields fields, Qwen3MoeConfig config)
    {
        if (config.QueryHeads % config.KeyValueHeads != 0)
        {
            throw fields.Unsupported(
                "num_attention_heads", $"{config.QueryHeads}", $"a multiple of num_key_value_heads ({config.KeyValueHeads}) is needed");
        }

        if (config.HeadDim % 2 != 0)
        {
            throw fields.Unsupported("head_dim", $"{config.HeadDim}", "an even number is needed: rotary works on pairs");
        }

        if ((long)config.QueryHeads * config.HeadDim > MaxWidth)
        {
            throw fields.Unsupported(
                "num_attention_heads", $"{config.QueryHeads} with head_dim {config.HeadDim}", $"their product is at most {MaxWidth}");
        }

        if (config.ExpertsPerToken > config.Experts)
        {
            throw fields.Unsupported("num_experts_per_tok", $"{config.ExpertsPerToken}", $"at most num_experts ({config.Experts}) is needed");
        }
    }
}
