namespace GpuKit.Ilgpu.Models;

/// <summary>What is asked of a model in each format.</summary>
public sealed record ModelFormatOptions
{
    /// <summary>A file of questions for <see cref="VerseEvaluator"/>; null asks none.</summary>
    public string? Verses { get; init; }

    /// <summary>Asks only the first so many; null asks all.</summary>
    public int? Take { get; init; }

    /// <summary>A file for <see cref="ReferenceEvaluator"/>; null compares with none.</summary>
    public string? Reference { get; init; }

    /// <summary>Told after each format; may be null.</summary>
    public IProgress<EvaluationProgress>? Progress { get; init; }
}

/// <summary>What a format does to a model.</summary>
/// <param name="Format">The format that it was quantised to.</param>
/// <param name="WeightBytes">Bytes of all tensors.</param>
/// <param name="Verses">Its answers; null when nothing was asked.</param>
/// <param name="Reference">How near it is to the reference; null when there is none.</param>
public sealed record ModelFormatResult(CheckpointFormat Format, long WeightBytes, VerseReport? Verses, ReferenceReport? Reference)
{
    /// <summary>The least cosine of a prompt's logits; null without a reference.</summary>
    public double? LeastCosine => Reference?.Prompts.Min(p => p.Cosine);

    /// <summary>The mean of the prompts' cosines; null without a reference.</summary>
    public double? MeanCosine => Reference?.Prompts.Average(p => p.Cosine);

    /// <summary>Share of positions, over all prompts, whose most likely token is the reference's; null without a reference.</summary>
    public double? TopOneAgreement => Reference?.Prompts.Sum(p => p.TopOneAgreement * p.Tokens) / Reference?.Prompts.Sum(p => p.Tokens);
}

/// <summary>Quantises a model to formats, one after the other, and evaluates each: recitation and logits.</summary>
public static class ModelFormatEvaluator
{
    /// <summary>Evaluates a model in each format. Each is written to a temporary folder, which is removed.</summary>
    /// <param name="device">Where the model runs; a card quantises, too.</param>
    /// <param name="folder">The model.</param>
    /// <param name="formats">The formats.</param>
    /// <param name="options">Questions, reference, progress.</param>
    /// <param name="cancellation">Stops between tensors and tokens.</param>
    /// <exception cref="ModelFileException">A file is missing, malformed or not supported.</exception>
    /// <exception cref="IOException">The disk of temporary files is too small.</exception>
    /// <exception cref="GpuException">Device memory is exhausted.</exception>
    /// <exception cref="OperationCanceledException">It was cancelled.</exception>
    public static async Task<IReadOnlyList<ModelFormatResult>> EvaluateAsync(
        GpuDevice device, string folder, IReadOnlyList<CheckpointFormat> formats, ModelFormatOptions? options = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(device);
        ArgumentNullException.ThrowIfNull(formats);
        options ??= new ModelFormatOptions();
        var results = new List<ModelFormatResult>();
        string temporary = Directory.CreateTempSubdirectory("gpukit-").FullName;
        try
        {
            foreach (CheckpointFormat format in formats)
            {
                string target = Path.Combine(temporary, format.Name);
                QuantizeReport written = CheckpointQuantizer.Quantize(folder, target, format, new QuantizeOptions { Device = device.IsCuda ? device : null }, cancellation);
                (VerseReport? verses, ReferenceReport? reference) = await EvaluateAsync(device, target, options, cancellation).ConfigureAwait(false);
                results.Add(new ModelFormatResult(format, written.Bytes, verses, reference));
                Directory.Delete(target, recursive: true);
                options.Progress?.Report(new EvaluationProgress(results.Count, formats.Count, format.Name));
            }
            return results;
        }
        finally
        {
            Directory.Delete(temporary, recursive: true);
        }
    }

    private static async Task<(VerseReport? Verses, ReferenceReport? Reference)> EvaluateAsync(GpuDevice device, string folder, ModelFormatOptions options, CancellationToken cancellation)
    {
        VerseReport? verses = null;
        ReferenceReport? reference = null;
        if (options.Verses is { } questions)
        {
            using LanguageModel model = LanguageModel.Load(device, folder, null, cancellation);
            verses = await VerseEvaluator.EvaluateAsync(model, questions, new VerseOptions { Take = options.Take }, cancellation).ConfigureAwait(false);
        }
        if (options.Reference is { } file)
        {
            // Logits need no tokenizer.
            using Qwen3Moe network = Qwen3Moe.Load(device, folder, null, cancellation);
            var stops = GenerationConfig.Load(folder).StopTokenIds(network.Config).ToHashSet();
            reference = ReferenceEvaluator.Evaluate(network, file, new ReferenceOptions { StopTokenIds = stops }, cancellation);
        }
        return (verses, reference);
    }
}
