namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Writes a Qwen3-MoE checkpoint in another weight format: a complete Hugging Face folder. The linear layers of attention,
/// experts and dense MLPs are converted; embedding, head, routers and norms are BF16 in every format.
/// </summary>
/// <remarks>
/// A quantised source is dequantised to float32 first, so its loss and the new format's add up. Tensors that keep their
/// format are copied byte by byte. The same source gives the same bytes on every device. Memory is bounded by the largest tensor.
/// </remarks>
public static class CheckpointQuantizer
{
    private const int CopyBytes = 64 << 20;

    /// <summary>Writes a folder. It appears at the end, whole; after a failure or a cancellation nothing is left of it.</summary>
    /// <param name="source">Folder with <c>config.json</c> and safetensors.</param>
    /// <param name="target">Folder to write: new, or empty, or replaced with <see cref="QuantizeOptions.Force"/>.</param>
    /// <param name="format">How the linear layers are stored.</param>
    /// <param name="options">Device, progress.</param>
    /// <param name="cancellation">Stops between tensors and between parts of 64 MB of those that are copied.</param>
    /// <exception cref="ArgumentException">The target is a file, is not empty, or holds the source.</exception>
    /// <exception cref="ModelFileException">The source is malformed, not supported, or has a weight that is not finite; the tensor is named.</exception>
    /// <exception cref="IOException">The disk is too small, or files cannot be written.</exception>
    /// <exception cref="GpuException">Device memory is exhausted.</exception>
    /// <exception cref="OperationCanceledException">It was cancelled.</exception>
    public static QuantizeReport Quantize(string source, string target, CheckpointFormat format, QuantizeOptions? options = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(format);
        options ??= new QuantizeOptions();
        Qwen3MoeConfig config = Qwen3MoeConfig.Load(source);
        target = OutputFolder.Check(target, source, options.Force);
        using Checkpoint checkpoint = Checkpoint.Open(source);
        var plan = QuantizationPlan.Create(checkpoint, config, format, options.ShardBytes);
        var others = new AccompanyingFiles(source, config, format);
        RequireSpace(target, checked(plan.Bytes + others.Bytes), options);
        using OutputFolder folder = OutputFolder.Create(target);
        WriteWeights(folder.Path, new StoredWeights(checkpoint, config), checkpoint, plan, options, cancellation);
        others.Write(folder.Path, plan);
        cancellation.ThrowIfCancellationRequested();
        folder.Complete();
        return new QuantizeReport(target, plan.Tensors, plan.Converted.Count(), checkpoint.TotalBytes, plan.Bytes, plan.Shards.Count, plan.IsSecondQuantization);
    }

    private static void RequireSpace(string target, long bytes, QuantizeOptions options)
    {
        string parent = OutputFolder.ExistingParent(target);
        long free = options.FreeBytes(parent);
        if (free < bytes)
            throw new IOException($"{bytes} bytes are to be written to {target}; the disk of {parent} has {free} free.");
    }

    private static void WriteWeights(string folder, StoredWeights stored, Checkpoint checkpoint, QuantizationPlan plan, QuantizeOptions options, CancellationToken cancellation)
    {
        var encoder = new MatrixEncoder(options.Device);
        (int done, int tensors, long bytes, long total) = (0, plan.Tensors, 0, plan.Bytes);
        for (int shard = 0; shard < plan.Shards.Count; shard++)
        {
            IReadOnlyList<PlannedTensor> contents = plan.Shards[shard];
            using SafetensorsOutput file = SafetensorsOutput.Create(
                Path.Combine(folder, plan.FileName(shard)), contents.SelectMany(t => t.Outputs), new Dictionary<string, string> { ["format"] = "pt" });
            foreach (PlannedTensor tensor in contents)
            {
                cancellation.ThrowIfCancellationRequested();
                if (tensor.Convert is { } convert)
                    Convert(file, tensor, encoder.Encode(stored.Open(tensor.Info.Name, convert.N, convert.K), convert.To));
                else
                    Copy(file, checkpoint, tensor.Info, cancellation);
                bytes += tensor.Bytes;
                options.Progress?.Report(new QuantizeProgress(++done, tensors, bytes, total));
            }
            file.Complete();
        }
    }

    private static void Convert(SafetensorsOutput file, PlannedTensor tensor, HostMatrix matrix)
    {
        foreach ((TensorDeclaration output, byte[] contents) in tensor.Outputs.Zip(WeightTensors.Contents(matrix)))
            file.Write(output.Name, contents);
    }

    private static void Copy(SafetensorsOutput file, Checkpoint checkpoint, TensorInfo tensor, CancellationToken cancellation)
    {
        for (long offset = 0; offset < tensor.ByteLength; offset += CopyBytes)
        {
            cancellation.ThrowIfCancellationRequested();
            file.Write(tensor.Name, checkpoint.Bytes(tensor.Name, offset, (int)Math.Min(CopyBytes, tensor.ByteLength - offset)));
        }
    }
}
