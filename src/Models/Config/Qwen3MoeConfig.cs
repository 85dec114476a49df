namespace GpuKit.Ilgpu.Models;

/// <summary>
/// <c>config.json</c> of a Qwen3-MoE model, checked: every extent is positive and within sane limits, and what this library
/// does not do (other rotary scalings, biases, sliding windows, activations, quantisations) is refused by name.
/// </summary>
public sealed record Qwen3MoeConfig
{
    internal const string FileName = "config.json";

    /// <summary>Width of the residual stream.</summary>
    public required int HiddenSize { get; init; }

    /// <summary>Number of layers.</summary>
    public required int Layers { get; init; }

    /// <summary>Query heads of a layer, a multiple of <see cref="KeyValueHeads"/>.</summary>
    public required int QueryHeads { get; init; }

    /// <summary>Key and value heads of a layer.</summary>
    public required int KeyValueHeads { get; init; }

    /// <summary>Width of a head, even (rotary works on pairs).</summary>
    public required int HeadDim { get; init; }

    /// <summary>Inner width of the MLP of a dense layer.</summary>
    public required int IntermediateSize { get; init; }

    /// <summary>Inner width of one expert.</summary>
    public required int MoeIntermediateSize { get; init; }

    /// <summary>Experts of a sparse layer.</summary>
    public required int Experts { get; init; }

    /// <summary>Experts that a token is sent to, at most <see cref="Experts"/>.</summary>
    public required int ExpertsPerToken { get; init; }

    /// <summary>Whether the chosen experts' weights are divided by their sum.</summary>
    public required bool NormTopkProb { get; init; }

    /// <summary>What every RMSNorm adds to the mean square.</summary>
    public required double RmsNormEps { get; init; }

    /// <summary>Base of the rotary frequencies.</summary>
    public required double RopeTheta { get; init; }

    /// <summary>The longest context, in tokens, that the model was made for.</summary>
    public required int MaxPositionEmbeddings { get; init; }

    /// <summary>Rows of the embedding and of the output head; may exceed the tokenizer's vocabulary.</summary>
    public required int VocabSize { get; init; }

    /// <summary>Whether the output head is the embedding, so that <c>lm_head.weight</c> is absent.</summary>
    public bool TieWordEmbeddings { get; init; }

    /// <summary>Every how many layers one is sparse; 1 means all.</summary>
    public int DecoderSparseStep { get; init; } = 1;

    /// <summary>Layers that are dense whatever <see cref="DecoderSparseStep"/> says.</summary>
    public IReadOnlyList<int> MlpOnlyLayers { get; init; } = [];

    /// <summary>Ids that end a generation; see also <see cref="GenerationConfig.StopTokenIds"/>.</summary>
    public IReadOnlyList<int> EosTokenIds { get; init; } = [];

    /// <summary>The id that starts a text, if the model has one.</summary>
    public int? BosTokenId { get; init; }

    /// <summary>The element type the model was published in, as the file spells it (<c>bfloat16</c>); the tensors decide.</summary>
    public string? PublishedType { get; init; }

    /// <summary>How the linear layers are quantised; null when they are not.</summary>
    public WeightQuantization? Quantization { get; init; }

    /// <summary>Whether a layer has experts (else it has a plain gated MLP of <see cref="IntermediateSize"/>).</summary>
    /// <param name="layer">The layer, from 0.</param>
    public bool IsSparse(int layer) =>
        !MlpOnlyLayers.Contains(layer) && Experts > 0 && (layer + 1) % DecoderSparseStep == 0;

    /// <summary>Reads <c>config.json</c> of a folder.</summary>
    /// <param name="folder">A Hugging Face model folder.</param>
    /// <exception cref="ModelFileException">The file is missing, malformed, or a field is out of range or not supported; the field is named.</exception>
    public static Qwen3MoeConfig Load(string folder) =>
        ModelJson.Read(ModelFolder.Open(folder), FileName, Qwen3MoeConfigReader.Read);

    /// <summary>Reads the text of a <c>config.json</c>.</summary>
    /// <param name="json">UTF-8 JSON.</param>
    /// <param name="fileName">The name that errors start with.</param>
    /// <exception cref="ModelFileException">The text is malformed, or a field is out of range or not supported; the field is named.</exception>
    public static Qwen3MoeConfig Parse(ReadOnlySpan<byte> json, string fileName = FileName) =>
        ModelJson.Read(json, fileName, Qwen3MoeConfigReader.Read);
}
