using System.Text;
using System.Text.Json;

namespace GpuKit.Ilgpu.Models;

/// <summary>Asks a model the questions of a JSON file <c>[{"prompt": …, "answer": …}, …]</c>, greedily, and counts exact answers.</summary>
public static class VerseEvaluator
{
    private const int MaxFileBytes = 64_000_000;

    private static readonly JsonDocumentOptions Strict = new() { AllowDuplicateProperties = false, MaxDepth = 8 };

    /// <summary>Asks the questions, each as a conversation of its own.</summary>
    /// <param name="model">The model.</param>
    /// <param name="file">The questions.</param>
    /// <param name="options">How many, how long, progress.</param>
    /// <param name="cancellation">Stops within one token.</param>
    /// <exception cref="ModelFileException">The file is missing or malformed, or the model has no known chat template.</exception>
    /// <exception cref="ArgumentException">A question does not fit the context, or an option is out of range.</exception>
    /// <exception cref="GpuException">Device memory is exhausted.</exception>
    /// <exception cref="OperationCanceledException">The evaluation was cancelled.</exception>
    public static async Task<VerseReport> EvaluateAsync(LanguageModel model, string file, VerseOptions? options = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        options ??= new VerseOptions();
        if (options.Take is { } take)
            ArgumentOutOfRangeException.ThrowIfLessThan(take, 1, nameof(options.Take));
        List<(string Prompt, string Answer)> questions = Read(file);
        int count = Math.Min(questions.Count, options.Take ?? questions.Count);
        var generation = new GenerationOptions { MaxTokens = options.MaxTokens };
        using var generator = new TextGenerator(model, kvCache: options.KvCache);
        var results = new List<VerseResult>();
        foreach ((string prompt, string answer) in questions.Take(count))
        {
            IReadOnlyList<int> ids = model.Chat.EncodeChat(model.Tokenizer, [new ChatMessage(ChatRole.User, prompt)]);
            var text = new StringBuilder();
            await foreach (string piece in generator.GenerateAsync(ids, generation, cancellation).ConfigureAwait(false))
                text.Append(piece);
            results.Add(new VerseResult(prompt, answer, text.ToString()));
            options.Progress?.Report(new EvaluationProgress(results.Count, count, prompt));
        }
        return new VerseReport(results);
    }

    private static List<(string Prompt, string Answer)> Read(string path)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(path);
        string name = Path.GetFileName(path);
        using MappedFile file = MappedFile.Open(path, name);
        if (file.Length > MaxFileBytes)
            throw new ModelFileException(name, $"has {file.Length} bytes; such a file has at most {MaxFileBytes}");
        try
        {
            JsonElement root = JsonElement.Parse(file.Span(0, (int)file.Length), Strict);
            if (root.ValueKind != JsonValueKind.Array || root.GetArrayLength() == 0)
                throw new ModelFileException(name, "must be a list of at least one {\"prompt\": …, \"answer\": …}");
            return [.. root.EnumerateArray().Select((e, i) => (Text(name, i, e, "prompt"), Text(name, i, e, "answer")))];
        }
        catch (Exception e) when (ModelJson.IsMalformed(e))
        {
            throw ModelJson.Malformed(name, e);
        }
    }

    private static string Text(string file, int index, JsonElement element, string field) =>
        element.ValueKind == JsonValueKind.Object && element.TryGetProperty(field, out JsonElement value) && value.ValueKind == JsonValueKind.String
            ? value.GetString()!
            : throw new ModelFileException(file, $"entry {index} needs a text '{field}'");
}
