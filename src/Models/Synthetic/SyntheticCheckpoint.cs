using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json.Nodes;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Writes a network of random weights as a Hugging Face folder, tensor by tensor: the weights that
/// <see cref="Qwen3Moe.Synthesize"/> makes of the same configuration and seed. There is no tokenizer.
/// </summary>
public static class SyntheticCheckpoint
{
    private const long ShardBytes = 5_000_000_000;

    /// <summary>Writes a folder. It appears at the end, whole; after a failure or a cancellation nothing is left of it.</summary>
    /// <param name="device">Where the numbers are made; they are the same everywhere.</param>
    /// <param name="config">A <c>config.json</c>.</param>
    /// <param name="seed">Of the random numbers.</param>
    /// <param name="folder">Folder to write, new or empty.</param>
    /// <param name="progress">Told after each tensor; may be null.</param>
    /// <param name="cancellation">Stops between tensors.</param>
    /// <exception cref="ModelFileException">The configuration is malformed or not supported.</exception>
    /// <exception cref="ArgumentException">The folder is a file or is not empty.</exception>
    /// <exception cref="IOException">The disk is full, or files cannot be written.</exception>
    /// <returns>Bytes of tensors.</returns>
    public static long Write(GpuDevice device, JsonObject config, ulong seed, string folder, IProgress<QuantizeProgress>? progress = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(device);
        ArgumentNullException.ThrowIfNull(config);
        byte[] json = Encoding.UTF8.GetBytes(config.ToJsonString(new() { WriteIndented = true }));
        Qwen3MoeConfig network = Qwen3MoeConfig.Parse(json);
        string target = OutputFolder.Check(folder, AppContext.BaseDirectory, force: false);
        var plan = new QuantizationPlan(QuantizationPlan.Split(Plan(network).OrderBy(t => t.Info.Name, StringComparer.Ordinal), ShardBytes));
        var weights = new RandomWeights(device, network, seed);
        using OutputFolder output = OutputFolder.Create(target);
        (int done, long bytes) = (0, 0);
        for (int shard = 0; shard < plan.Shards.Count; shard++)
        {
            using SafetensorsOutput file = SafetensorsOutput.Create(
                Path.Combine(output.Path, plan.FileName(shard)), plan.Shards[shard].SelectMany(t => t.Outputs), new Dictionary<string, string> { ["format"] = "pt" });
            foreach (PlannedTensor tensor in plan.Shards[shard])
            {
                cancellation.ThrowIfCancellationRequested();
                WriteTensor(file, device, weights, tensor);
                bytes += tensor.Bytes;
                progress?.Report(new QuantizeProgress(++done, plan.Tensors, bytes, plan.Bytes));
            }
            file.Complete();
        }
        if (plan.Shards.Count > 1)
            File.WriteAllBytes(Path.Combine(output.Path, ShardIndex.FileName), AccompanyingFiles.Index(plan));
        File.WriteAllBytes(Path.Combine(output.Path, Qwen3MoeConfig.FileName), json);
        output.Complete();
        return plan.Bytes;
    }

    // A planned conversion stands for a matrix, none for the gains of a norm.
    private static IEnumerable<PlannedTensor> Plan(Qwen3MoeConfig config)
    {
        CheckpointFormat plain = new("bf16", WeightFormat.Bf16, null);
        CheckpointFormat quantised = config.Quantization is { } q ? new CheckpointFormat("quantised", q.Format, q.Block) : plain;
        foreach ((string name, int n, int k, bool isKept) in LinearWeights.Of(config))
        {
            CheckpointFormat format = isKept ? plain : quantised;
            TensorDeclaration[] outputs = WeightTensors.Declare(name, format.Format, format.Block, n, k);
            yield return new PlannedTensor(new TensorInfo(name, outputs[0].Type, outputs[0].Shape, 0, outputs[0].ByteLength), outputs, (n, k, format.Format, format));
        }
        foreach ((string name, int width) in Gains(config))
        {
            var gain = new TensorDeclaration(name, TensorType.BF16, [width]);
            yield return new PlannedTensor(new TensorInfo(name, gain.Type, gain.Shape, 0, gain.ByteLength), [gain], null);
        }
    }

    private static IEnumerable<(string Name, int Width)> Gains(Qwen3MoeConfig config)
    {
        yield return ("model.norm.weight", config.HiddenSize);
        for (int layer = 0; layer < config.Layers; layer++)
        {
            string name = $"model.layers.{layer}.";
            yield return (name + "input_layernorm.weight", config.HiddenSize);
            yield return (name + "post_attention_layernorm.weight", config.HiddenSize);
            yield return (name + "self_attn.q_norm.weight", config.HeadDim);
            yield return (name + "self_attn.k_norm.weight", config.HeadDim);
        }
    }

    private static void WriteTensor(SafetensorsOutput file, GpuDevice device, RandomWeights weights, PlannedTensor tensor)
    {
        if (tensor.Convert is not { } matrix)
        {
            using DeviceBuffer<BFloat16> gain = weights.Gain(tensor.Info.Name, (int)tensor.Info.Shape[0]);
            file.Write(tensor.Info.Name, MemoryMarshal.AsBytes<BFloat16>(gain.ToArray(device.DefaultStream)));
            return;
        }
        using QuantizedMatrix made = weights.Tensor(tensor.Info.Name, matrix.N, matrix.K, matrix.To.Format == WeightFormat.Bf16);
        foreach ((TensorDeclaration output, byte[] contents) in tensor.Outputs.Zip(WeightTensors.Contents(MatrixEncoder.Download(device.DefaultStream, made))))
            file.Write(output.Name, contents);
    }
}
