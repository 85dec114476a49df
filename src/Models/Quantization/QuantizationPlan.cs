namespace GpuKit.Ilgpu.Models;

/// <summary>One tensor of the source and the tensors that it becomes.</summary>
/// <param name="Info">The tensor.</param>
/// <param name="Outputs">What is written for it.</param>
/// <param name="Convert">The matrix's shape, its format and the one it takes; null when the bytes are copied.</param>
internal sealed record PlannedTensor(TensorInfo Info, IReadOnlyList<TensorDeclaration> Outputs, (int N, int K, WeightFormat From, CheckpointFormat To)? Convert)
{
    public long Bytes { get; } = Outputs.Sum(o => o.ByteLength);
}

/// <summary>What becomes of every tensor of a checkpoint, file by file; made before anything is written.</summary>
internal sealed record QuantizationPlan(IReadOnlyList<IReadOnlyList<PlannedTensor>> Shards)
{
    private const string SingleFile = "model.safetensors";

    public int Tensors => Shards.Sum(s => s.Count);

    public long Bytes => Shards.Sum(s => s.Sum(t => t.Bytes));

    public IEnumerable<PlannedTensor> Converted => Shards.SelectMany(s => s).Where(t => t.Convert is not null);

    public string FileName(int shard) => Shards.Count == 1 ? SingleFile : $"model-{shard + 1:D5}-of-{Shards.Count:D5}.safetensors";

    /// <summary>Whether weights are quantised that were quantised before.</summary>
    public bool IsSecondQuantization => Converted.Any(t => t.Convert is { } c && c.From != WeightFormat.Bf16 && c.To.Format != WeightFormat.Bf16);

    /// <summary>Checks every matrix of the network and plans all tensors. Scales are read, weights are not.</summary>
    /// <exception cref="ModelFileException">A matrix is missing, of another shape, or stored in a way that is not supported.</exception>
    public static QuantizationPlan Create(Checkpoint checkpoint, Qwen3MoeConfig config, CheckpointFormat format, long shardBytes)
    {
        var stored = new StoredWeights(checkpoint, config);
        var planned = new SortedDictionary<string, PlannedTensor>(StringComparer.Ordinal);
        var companions = new HashSet<string>(StringComparer.Ordinal);
        CheckpointFormat plain = CheckpointFormat.All.Single(f => f.Format == WeightFormat.Bf16);
        foreach ((string name, int n, int k, bool isKept) in LinearWeights.Of(config))
        {
            StoredMatrix source = stored.Open(name, n, k);
            CheckpointFormat target = isKept ? plain : format;
            if (source.Format == target.Format && source.Block == target.Block)
            {
                planned.Add(name, Copy(source.Info));
                continue;
            }
            // What belongs to the codes is gone with them.
            companions.UnionWith(source.Companions.Select(t => t.Name));
            planned.Add(name, new PlannedTensor(source.Info, WeightTensors.Declare(name, target.Format, target.Block, n, k), (n, k, source.Format, target)));
        }
        foreach (string name in checkpoint.Names.Where(n => !planned.ContainsKey(n) && !companions.Contains(n)))
            planned.Add(name, Copy(checkpoint.Info(name)));
        return new QuantizationPlan(Split(planned.Values, shardBytes));
    }

    private static PlannedTensor Copy(TensorInfo info) => new(info, [new TensorDeclaration(info.Name, info.Type, info.Shape)], null);

    // A weight and what belongs to it stay together.
    public static List<List<PlannedTensor>> Split(IEnumerable<PlannedTensor> tensors, long shardBytes)
    {
        var shards = new List<List<PlannedTensor>>();
        long bytes = 0;
        int count = 0;
        foreach (PlannedTensor tensor in tensors)
        {
            if (shards.Count == 0 || checked(bytes + tensor.Bytes) > shardBytes || count + tensor.Outputs.Count > SafetensorsHeader.MaxTensors)
            {
                shards.Add([]);
                (bytes, count) = (0, 0);
            }
            shards[^1].Add(tensor);
            (bytes, count) = (bytes + tensor.Bytes, count + tensor.Outputs.Count);
        }
        return shards;
    }
}
