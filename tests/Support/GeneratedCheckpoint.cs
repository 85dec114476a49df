using System.Runtime.InteropServices;
using System.Text.Json;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Oracle;

namespace GpuKit.Ilgpu.Tests.Support;

/// <summary>A network's shape and how its checkpoint is stored.</summary>
public sealed record CheckpointShape : Qwen3Shape
{
    /// <summary>Rows and columns of a scale block, or null for a BF16 checkpoint.</summary>
    public (int Rows, int Columns)? Block { get; init; } = (128, 128);

    public bool Bf16Scales { get; init; }

    public int Shards { get; init; } = 1;

    /// <summary>Whether <c>config.json</c> spells its keys as newer files do.</summary>
    public bool NewKeys { get; init; }

    public int MaxPositions { get; init; } = 1024;

    public int Seed { get; init; } = 1;
}

/// <summary>A tensor as it lies in a file.</summary>
public sealed record StoredTensor(TensorType Type, long[] Shape, byte[] Bytes);

/// <summary>A small random checkpoint in a temporary folder, and the numbers that its tensors stand for.</summary>
internal sealed class GeneratedCheckpoint : IDisposable
{
    private readonly TemporaryFolder folder = new();
    private readonly CheckpointShape shape;
    private readonly SortedDictionary<string, StoredTensor> tensors = new(StringComparer.Ordinal);
    private readonly Dictionary<string, double[]> weights = new(StringComparer.Ordinal);
    private int seed;

    /// <summary>Writes a checkpoint; <paramref name="change"/> may damage its tensors, <paramref name="changeConfig"/> its fields first.</summary>
    public GeneratedCheckpoint(CheckpointShape shape, Action<IDictionary<string, StoredTensor>>? change = null, Action<IDictionary<string, object?>>? changeConfig = null)
    {
        this.shape = shape;
        seed = shape.Seed * 1000;
        AddTensors();
        change?.Invoke(tensors);
        Dictionary<string, object?> fields = Config();
        changeConfig?.Invoke(fields);
        folder.Write("config.json", JsonSerializer.SerializeToUtf8Bytes(fields));
        WriteTensors();
    }

    public string Folder => folder.Path;

    /// <summary>The values of every weight, dequantised in double precision.</summary>
    public IReadOnlyDictionary<string, double[]> Weights => weights;

    /// <summary>Bytes of all tensors.</summary>
    public long Bytes => tensors.Values.Sum(t => (long)t.Bytes.Length);

    /// <summary>Bytes of BF16 scales; on a device they are float32.</summary>
    public long Bf16ScaleBytes => tensors.Where(t => t.Key.EndsWith("_scale_inv", StringComparison.Ordinal) && t.Value.Type == TensorType.BF16).Sum(t => (long)t.Value.Bytes.Length);

    public Qwen3Moe Load(GpuDevice device, LoadOptions? options = null) => Qwen3Moe.Load(device, Folder, options);

    public void Dispose() => folder.Dispose();

    private void AddTensors()
    {
        AddBf16("model.embed_tokens.weight", shape.Vocabulary, shape.Hidden, 1);
        for (int layer = 0; layer < shape.Layers; layer++)
        {
            string name = $"model.layers.{layer}.", attention = name + "self_attn.";
            int queries = shape.QueryHeads * shape.HeadDim, keys = shape.KeyValueHeads * shape.HeadDim;
            AddGain(name + "input_layernorm.weight", shape.Hidden);
            AddGain(name + "post_attention_layernorm.weight", shape.Hidden);
            AddGain(attention + "q_norm.weight", shape.HeadDim);
            AddGain(attention + "k_norm.weight", shape.HeadDim);
            AddLinear(attention + "q_proj.weight", queries, shape.Hidden);
            AddLinear(attention + "k_proj.weight", keys, shape.Hidden);
            AddLinear(attention + "v_proj.weight", keys, shape.Hidden);
            AddLinear(attention + "o_proj.weight", shape.Hidden, queries);
            if (shape.DenseLayers.Contains(layer) || (layer + 1) % shape.SparseStep != 0)
            {
                AddMlp(name + "mlp.", shape.DenseWidth);
                continue;
            }
            AddBf16(name + "mlp.gate.weight", shape.Experts, shape.Hidden, 1.5 / Math.Sqrt(shape.Hidden));
            for (int e = 0; e < shape.Experts; e++)
                AddMlp($"{name}mlp.experts.{e}.", shape.ExpertWidth);
        }
        AddGain("model.norm.weight", shape.Hidden);
        if (!shape.TiedHead)
            AddBf16("lm_head.weight", shape.Vocabulary, shape.Hidden, 1 / Math.Sqrt(shape.Hidden));
    }

    private void AddMlp(string name, int width)
    {
        AddLinear(name + "gate_proj.weight", width, shape.Hidden);
        AddLinear(name + "up_proj.weight", width, shape.Hidden);
        AddLinear(name + "down_proj.weight", shape.Hidden, width);
    }

    private void AddLinear(string name, int n, int k)
    {
        if (shape.Block is not { } size)
        {
            AddBf16(name, n, k, 1 / Math.Sqrt(k));
            return;
        }
        HostMatrix matrix = Quantizer.Quantize(RandomData.Gaussian(n * k, ++seed, 1 / MathF.Sqrt(k)), n, k, WeightFormat.Fp8Block, new ScaleBlock(size.Rows, size.Columns));
        // Blocks of equal magnitude would hide a scale that is read from the wrong place.
        var random = new Random(seed);
        for (int i = 0; i < matrix.Scales.Length; i++)
            matrix.Scales[i] *= 0.5f + random.NextSingle();
        BFloat16[] rounded = Array.ConvertAll(matrix.Scales, s => (BFloat16)s);
        if (shape.Bf16Scales)
            Compare.ToFloat(rounded).CopyTo(matrix.Scales, 0);
        long[] blocks = [matrix.Block.RowBlocks(n), matrix.Block.ColumnBlocks(k)];
        tensors.Add(name, new StoredTensor(TensorType.F8E4M3, [n, k], matrix.Codes));
        tensors.Add(name + "_scale_inv", shape.Bf16Scales
            ? new StoredTensor(TensorType.BF16, blocks, BytesOf<BFloat16>(rounded))
            : new StoredTensor(TensorType.F32, blocks, BytesOf<float>(matrix.Scales)));
        weights.Add(name, MatrixOracle.Values(matrix));
    }

    private void AddGain(string name, int width) =>
        Add(name, [width], Array.ConvertAll(RandomData.Gaussian(width, ++seed, 0.2f), g => (BFloat16)(1 + g)));

    private void AddBf16(string name, int n, int k, double scale) => Add(name, [n, k], RandomData.GaussianBf16(n * k, ++seed, (float)scale));

    private void Add(string name, long[] extents, BFloat16[] values)
    {
        tensors.Add(name, new StoredTensor(TensorType.BF16, extents, BytesOf<BFloat16>(values)));
        weights.Add(name, Array.ConvertAll(values, v => (double)(float)v));
    }

    private static byte[] BytesOf<T>(ReadOnlySpan<T> values)
        where T : unmanaged => MemoryMarshal.AsBytes(values).ToArray();

    private Dictionary<string, object?> Config() => new()
    {
        ["model_type"] = "qwen3_moe",
        ["vocab_size"] = shape.Vocabulary,
        ["hidden_size"] = shape.Hidden,
        ["num_hidden_layers"] = shape.Layers,
        ["num_attention_heads"] = shape.QueryHeads,
        ["num_key_value_heads"] = shape.KeyValueHeads,
        ["head_dim"] = shape.HeadDim,
        ["intermediate_size"] = shape.DenseWidth,
        ["moe_intermediate_size"] = shape.ExpertWidth,
        ["num_experts"] = shape.Experts,
        ["num_experts_per_tok"] = shape.ExpertsPerToken,
        ["norm_topk_prob"] = shape.NormTopkProb,
        ["decoder_sparse_step"] = shape.SparseStep,
        ["mlp_only_layers"] = shape.DenseLayers,
        ["rms_norm_eps"] = shape.Epsilon,
        [shape.NewKeys ? "rope_parameters" : "rope_theta"] = shape.NewKeys ? new { rope_type = "default", rope_theta = shape.RopeTheta } : shape.RopeTheta,
        [shape.NewKeys ? "dtype" : "torch_dtype"] = "bfloat16",
        ["max_position_embeddings"] = shape.MaxPositions,
        ["tie_word_embeddings"] = shape.TiedHead,
        ["quantization_config"] = shape.Block is { } block
            ? new { quant_method = "fp8", fmt = "e4m3", activation_scheme = "dynamic", weight_block_size = new[] { block.Rows, block.Columns } }
            : null,
    };

    private void WriteTensors()
    {
        if (shape.Shards == 1)
        {
            Write("model.safetensors", tensors);
            return;
        }
        // Round robin: weights and their scales lie in different files.
        var map = tensors.Keys.Select((name, i) => (name, i)).ToDictionary(t => t.name, t => $"model-{(t.i % shape.Shards) + 1:D5}-of-{shape.Shards:D5}.safetensors");
        foreach (string file in map.Values.Distinct())
            Write(file, tensors.Where(t => map[t.Key] == file));
        folder.Write("model.safetensors.index.json", JsonSerializer.SerializeToUtf8Bytes(new { metadata = new { total_size = Bytes }, weight_map = map }));
    }

    private void Write(string file, IEnumerable<KeyValuePair<string, StoredTensor>> contents) =>
        SafetensorsWriter.Write(folder.File(file), contents.Select(t => (t.Key, t.Value.Type, t.Value.Shape, t.Value.Bytes)));
}
