namespace GpuKit.Ilgpu.Models;

/// <summary>Everything of a model folder that generating text needs: network, tokenizer, chat template and defaults.</summary>
public sealed class LanguageModel : IDisposable
{
    // A long default context would cost gigabytes of KV cache that a short chat never uses.
    private const int MostDefaultContext = 8192;

    private readonly Lazy<ChatTemplate> chat;

    private LanguageModel(Qwen3Moe network, Tokenizer tokenizer, GenerationConfig defaults, Func<ChatTemplate> chat)
    {
        Network = network;
        Tokenizer = tokenizer;
        Defaults = defaults;
        StopTokenIds = defaults.StopTokenIds(network.Config).ToHashSet();
        this.chat = new Lazy<ChatTemplate>(chat);
    }

    /// <summary>The network.</summary>
    public Qwen3Moe Network { get; }

    /// <summary>The tokenizer.</summary>
    public Tokenizer Tokenizer { get; }

    /// <summary>How the makers of the checkpoint sample it.</summary>
    public GenerationConfig Defaults { get; }

    /// <summary>The chat template, read at first use: raw prompts need none.</summary>
    /// <exception cref="ModelFileException">The folder has no template of a known family.</exception>
    public ChatTemplate Chat => chat.Value;

    /// <summary>Tokens that end a generation.</summary>
    public IReadOnlySet<int> StopTokenIds { get; }

    /// <summary>The context that a generator takes when none is asked for: the model's, but at most 8,192 tokens.</summary>
    public int DefaultContextLength => Math.Min(Network.Config.MaxPositionEmbeddings, MostDefaultContext);

    /// <summary>Loads a Hugging Face folder. Small files are read first, so a broken one fails before gigabytes are moved.</summary>
    /// <param name="device">Device to hold the weights.</param>
    /// <param name="folder">Folder with config, tokenizer and safetensors.</param>
    /// <param name="options">Conversion and progress.</param>
    /// <param name="cancellation">Stops loading; nothing stays allocated.</param>
    /// <exception cref="ModelFileException">A file is missing, malformed or not supported.</exception>
    /// <exception cref="GpuException">Device memory is exhausted.</exception>
    /// <exception cref="OperationCanceledException">Loading was cancelled.</exception>
    public static LanguageModel Load(GpuDevice device, string folder, LoadOptions? options = null, CancellationToken cancellation = default)
    {
        Tokenizer tokenizer = Tokenizer.Load(folder);
        GenerationConfig defaults = GenerationConfig.Load(folder);
        int rows = Qwen3MoeConfig.Load(folder).VocabSize;
        if (tokenizer.VocabularySize > rows)
            throw new ModelFileException("tokenizer.json", $"has ids up to {tokenizer.VocabularySize - 1}; config.json's vocab_size is {rows}");
        return new LanguageModel(Qwen3Moe.Load(device, folder, options, cancellation), tokenizer, defaults, () => ChatTemplate.Load(folder));
    }

    /// <summary>The sampling that <c>generation_config.json</c> asks for.</summary>
    /// <param name="seed">Seed of the random numbers.</param>
    public SamplingOptions DefaultSampling(ulong seed = 0) => new()
    {
        Temperature = Defaults.DoSample ? (float)Defaults.Temperature : 0,
        TopK = Defaults.TopK,
        TopP = (float)Defaults.TopP,
        MinP = (float)Defaults.MinP,
        RepetitionPenalty = (float)Defaults.RepetitionPenalty,
        Seed = seed,
    };

    /// <summary>Returns the weights' memory. Generators must be disposed first.</summary>
    public void Dispose() => Network.Dispose();
}
