namespace GpuKit.Ilgpu.Models;

/// <summary>
/// <c>generation_config.json</c>: how the makers of the checkpoint want it sampled. A folder without the file, and a file
/// without a field, mean what they mean to Hugging Face (greedy, temperature 1, top-k 50).
/// </summary>
public sealed record GenerationConfig
{
    private const string FileName = "generation_config.json";

    /// <summary>Whether tokens are drawn at random; false means that the most likely one is taken.</summary>
    public bool DoSample { get; init; }

    /// <summary>What logits are divided by, from 0 (greedy) to 100.</summary>
    public double Temperature { get; init; } = 1;

    /// <summary>How many of the most likely tokens are kept; 0 keeps all.</summary>
    public int TopK { get; init; } = 50;

    /// <summary>The probability mass that is kept, above 0 and at most 1 (all).</summary>
    public double TopP { get; init; } = 1;

    /// <summary>The share of the most likely token's probability below which tokens are dropped, from 0 (none) to 1.</summary>
    public double MinP { get; init; }

    /// <summary>What the logits of tokens already in the text are divided (positive) or multiplied (negative) by; 1 is off.</summary>
    public double RepetitionPenalty { get; init; } = 1;

    /// <summary>Ids that end a generation.</summary>
    public IReadOnlyList<int> EosTokenIds { get; init; } = [];

    /// <summary>Reads <c>generation_config.json</c> of a folder, or the defaults when there is none.</summary>
    /// <param name="folder">A Hugging Face model folder.</param>
    /// <exception cref="ModelFileException">The file is malformed or a field is out of range; the field is named.</exception>
    public static GenerationConfig Load(string folder)
    {
        var files = ModelFolder.Open(folder);
        return files.Has(FileName) ? ModelJson.Read(files, FileName, Read) : new GenerationConfig();
    }

    /// <summary>Reads the text of a <c>generation_config.json</c>.</summary>
    /// <param name="json">UTF-8 JSON.</param>
    /// <param name="fileName">The name that errors start with.</param>
    /// <exception cref="ModelFileException">The text is malformed or a field is out of range; the field is named.</exception>
    public static GenerationConfig Parse(ReadOnlySpan<byte> json, string fileName = FileName) =>
        ModelJson.Read(json, fileName, Read);

    /// <summary>The ids that end a generation: those of <c>config.json</c> and those given here, each once.</summary>
    /// <param name="config">The model's configuration.</param>
    public IReadOnlyList<int> StopTokenIds(Qwen3MoeConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        return [.. config.EosTokenIds.Union(EosTokenIds)];
    }

    private static GenerationConfig Read(JsonFields fields)
    {
        var standard = new GenerationConfig();
        return new GenerationConfig
        {
            DoSample = fields.Flag("do_sample", standard.DoSample),
            Temperature = fields.Number("temperature", 0, 100, standard.Temperature),
            TopK = fields.Int("top_k", 0, int.MaxValue, standard.TopK),
            TopP = fields.Number("top_p", 0, 1, standard.TopP, aboveMin: true),
            MinP = fields.Number("min_p", 0, 1, standard.MinP),
            RepetitionPenalty = fields.Number("repetition_penalty", 0, 100, standard.RepetitionPenalty, aboveMin: true),
            EosTokenIds = fields.Ints("eos_token_id", 0, int.MaxValue, acceptOne: true),
        };
    }
}
