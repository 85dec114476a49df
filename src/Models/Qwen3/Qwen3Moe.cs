namespace GpuKit.Ilgpu.Models;

/// <summary>
/// A Qwen3-MoE network on a device: every weight resident once, in the format of its checkpoint. Sequences are run by
/// <see cref="Qwen3Session"/>s, which may share a model.
/// </summary>
public sealed class Qwen3Moe : IDisposable
{
    // The limits of Attention, Router and Sampler.
    internal const int MostHeadDim = 256;
    internal const int MostExpertsPerToken = 32;
    internal const int MostVocabulary = 1 << 22;

    private readonly List<IDisposable> owned = [];
    private readonly List<Qwen3Layer> layers = [];

    private Qwen3Moe(GpuDevice device, Qwen3MoeConfig config) => (Device, Config) = (device, config);

    /// <summary>The device that holds the weights.</summary>
    public GpuDevice Device { get; }

    /// <summary>The network's shape.</summary>
    public Qwen3MoeConfig Config { get; }

    /// <summary>Bytes of weights on the device.</summary>
    public long WeightBytes { get; private set; }

    internal IReadOnlyList<Qwen3Layer> Layers => layers;

    /// <summary>[vocabulary, hidden] BF16.</summary>
    internal QuantizedMatrix Embedding { get; private set; } = null!;

    internal DeviceBuffer<BFloat16> FinalNorm { get; private set; } = null!;

    /// <summary>[vocabulary, hidden]; the embedding itself when the checkpoint ties them.</summary>
    internal QuantizedMatrix Head { get; private set; } = null!;

    /// <summary>Loads a Hugging Face folder. Nothing stays allocated when that fails or is cancelled.</summary>
    /// <param name="device">Device to hold the weights.</param>
    /// <param name="folder">Folder with <c>config.json</c> and safetensors.</param>
    /// <param name="options">Conversion and progress.</param>
    /// <param name="cancellation">Stops loading between parts of at most 64 MB.</param>
    /// <exception cref="ModelFileException">A file is missing, malformed or not supported; the message says which and why.</exception>
    /// <exception cref="GpuException">Device memory, or pinned host memory for reading, is exhausted.</exception>
    /// <exception cref="OperationCanceledException">Loading was cancelled.</exception>
    public static Qwen3Moe Load(GpuDevice device, string folder, LoadOptions? options = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(device);
        Qwen3MoeConfig config = Qwen3MoeConfig.Load(folder);
        RequireSupported(config);
        using Checkpoint checkpoint = Checkpoint.Open(folder);
        using var loader = new WeightLoader(device, checkpoint, config, options ?? new LoadOptions(), cancellation);
        return Create(device, config, loader, Path.GetFileName(checkpoint.Folder));
    }

    /// <summary>
    /// Makes a network of random weights on the device, without files: for measurements. The same configuration and seed give the
    /// same weights on every device, and those that <see cref="SyntheticCheckpoint"/> writes.
    /// </summary>
    /// <param name="device">Device to hold the weights.</param>
    /// <param name="config">Shape and weight format.</param>
    /// <param name="seed">Of the random numbers.</param>
    /// <exception cref="ModelFileException">The configuration is not supported.</exception>
    /// <exception cref="GpuException">Device memory is exhausted; nothing stays allocated.</exception>
    public static Qwen3Moe Synthesize(GpuDevice device, Qwen3MoeConfig config, ulong seed = 1)
    {
        ArgumentNullException.ThrowIfNull(device);
        ArgumentNullException.ThrowIfNull(config);
        RequireSupported(config);
        return Create(device, config, new RandomWeights(device, config, seed), "synthetic");
    }

    private static Qwen3Moe Create(GpuDevice device, Qwen3MoeConfig config, IWeightSource source, string folder)
    {
        var model = new Qwen3Moe(device, config);
        try
        {
            long before = device.Ledger.LiveBytes;
            model.LoadAll(source, folder);
            source.Complete();
            model.WeightBytes = device.Ledger.LiveBytes - before;
            return model;
        }
        catch
        {
            source.Abandon();
            model.Dispose();
            throw;
        }
    }

    // What the operators take, asked for before gigabytes are moved. config.json as such may say more.
    private static void RequireSupported(Qwen3MoeConfig config)
    {
        Require("head_dim", config.HeadDim, MostHeadDim);
        Require("num_experts_per_tok", config.ExpertsPerToken, MostExpertsPerToken);
        Require("vocab_size", config.VocabSize, MostVocabulary);
    }

    private static void Require(string field, int value, int most)
    {
        if (value > most)
            throw new ModelFileException(Qwen3MoeConfig.FileName, $"'{field}' is {value}; at most {most} is supported");
    }

    private void LoadAll(IWeightSource loader, string folder)
    {
        const string EmbeddingName = "model.embed_tokens.weight";
        Embedding = Own(loader.Matrix(EmbeddingName, Config.VocabSize, Config.HiddenSize));
        if (Embedding.Format != WeightFormat.Bf16)
            throw new ModelFileException(folder, $"'{EmbeddingName}' must be BF16");
        for (int i = 0; i < Config.Layers; i++)
            layers.Add(Own(Qwen3Layer.Load(loader, Config, i)));
        FinalNorm = Own(loader.Gain("model.norm.weight", Config.HiddenSize));
        Head = Config.TieWordEmbeddings ? Embedding : Own(loader.Matrix("lm_head.weight", Config.VocabSize, Config.HiddenSize));
    }

    /// <summary>Returns the weights' memory. Sessions of the model must be disposed first.</summary>
    public void Dispose()
    {
        owned.ForEach(o => o.Dispose());
        owned.Clear();
    }

    private T Own<T>(T resource)
        where T : IDisposable
    {
        owned.Add(resource);
        return resource;
    }
}
