using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// What lies in a model folder beside the weights: <c>config.json</c> with its new quantisation, the index of shards, and the
/// files of tokenizer, template and generation, which are copied.
/// </summary>
internal sealed class AccompanyingFiles
{
    // Weights of any kind are not copied: they would be those of the source. Nor is what describes how it was quantised.
    private static readonly string[] Copied = [".json", ".jinja", ".txt", ".model"];
    private static readonly string[] NotCopied = [Qwen3MoeConfig.FileName, ShardIndex.FileName, "hf_quant_config.json"];
    private static readonly JsonSerializerOptions Format = new() { WriteIndented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    private readonly byte[] config;
    private readonly List<(string Name, string Path)> files = [];

    public AccompanyingFiles(string source, Qwen3MoeConfig network, CheckpointFormat format)
    {
        var folder = ModelFolder.Open(source);
        config = NewConfig(folder, format.Quantization(LinearWeights.KeptModules(network)));
        foreach (string name in Directory.EnumerateFiles(folder.Path).Select(f => Path.GetFileName(f)).Order(StringComparer.Ordinal))
            if (IsCopied(name))
                files.Add((name, folder.PathOf(name)));
        Bytes = config.Length + files.Sum(f => new FileInfo(f.Path).Length);
    }

    public long Bytes { get; }

    /// <summary>Writes them, config.json last: without it a folder is no model.</summary>
    public void Write(string folder, QuantizationPlan plan)
    {
        foreach ((string name, string path) in files)
        {
            // Contents alone: a read-only mark of the source is none of the copy's.
            using FileStream from = File.OpenRead(path), to = File.Create(Path.Combine(folder, name));
            from.CopyTo(to);
        }
        if (plan.Shards.Count > 1)
            File.WriteAllBytes(Path.Combine(folder, ShardIndex.FileName), Index(plan));
        File.WriteAllBytes(Path.Combine(folder, Qwen3MoeConfig.FileName), config);
    }

    private static bool IsCopied(string name) =>
        (Copied.Contains(Path.GetExtension(name)) || name.StartsWith("LICENSE", StringComparison.Ordinal))
        && !NotCopied.Contains(name) && !name.EndsWith(".index.json", StringComparison.Ordinal);

    // Everything else of the file stays as it is, known to this library or not.
    private static byte[] NewConfig(ModelFolder folder, WeightQuantization? quantization) =>
        ModelJson.Read(folder, Qwen3MoeConfig.FileName, fields =>
        {
            JsonObject root = JsonObject.Create(fields.Element)!;
            root.Remove("quantization_config");
            if (quantization is not null)
                root["quantization_config"] = quantization.ToJson();
            return JsonSerializer.SerializeToUtf8Bytes(root, Format);
        });

    /// <summary>The index of shards.</summary>
    public static byte[] Index(QuantizationPlan plan)
    {
        var map = new JsonObject();
        for (int shard = 0; shard < plan.Shards.Count; shard++)
            foreach (TensorDeclaration output in plan.Shards[shard].SelectMany(t => t.Outputs))
                map[output.Name] = plan.FileName(shard);
        return JsonSerializer.SerializeToUtf8Bytes(new JsonObject { ["metadata"] = new JsonObject { ["total_size"] = plan.Bytes }, ["weight_map"] = map }, Format);
    }
}
