using System.Buffers.Binary;
using System.Globalization;
using System.Runtime.InteropServices;

namespace GpuKit.Ilgpu.Models;

/// <summary>One prompt of a reference.</summary>
/// <param name="Number">The number in its tensors' names.</param>
/// <param name="Ids">Its tokens.</param>
/// <param name="Logits">F32 [tokens, vocabulary].</param>
/// <param name="Routers">F32 [tokens, experts] by layer.</param>
/// <param name="Greedy">The continuation, or null.</param>
internal sealed record ReferencePrompt(int Number, int[] Ids, TensorInfo Logits, IReadOnlyDictionary<int, TensorInfo> Routers, int[]? Greedy)
{
    /// <summary>Positions of the KV cache that prompt and continuation take.</summary>
    public int Positions => Ids.Length + (Greedy?.Length ?? 0);
}

/// <summary>A reference file, every tensor of which is checked against a network's configuration when it is opened.</summary>
internal sealed class ReferenceFile : IDisposable
{
    private const string Layout = "promptI.input_ids, promptI.logits, promptI.routerL.logits or promptI.greedy";

    private readonly SafetensorsFile file;
    private readonly Qwen3MoeConfig config;
    private readonly string name;

    private ReferenceFile(SafetensorsFile file, Qwen3MoeConfig config)
    {
        this.file = file;
        this.config = config;
        name = Path.GetFileName(file.FilePath);
        Prompts = ReadPrompts();
    }

    /// <summary>The prompts by number; at least one.</summary>
    public IReadOnlyList<ReferencePrompt> Prompts { get; }

    public static ReferenceFile Open(string path, Qwen3MoeConfig config)
    {
        SafetensorsFile file = SafetensorsFile.Open(path);
        try
        {
            return new ReferenceFile(file, config);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>A row of a two-dimensional F32 tensor; it points into the file.</summary>
    public ReadOnlySpan<float> Row(TensorInfo tensor, int row)
    {
        int bytes = checked((int)tensor.Shape[1] * sizeof(float));
        return MemoryMarshal.Cast<byte, float>(file.Bytes(tensor, (long)row * bytes, bytes));
    }

    public void Dispose() => file.Dispose();

    private List<ReferencePrompt> ReadPrompts()
    {
        var parts = new SortedDictionary<int, Dictionary<string, TensorInfo>>();
        foreach (TensorInfo tensor in file.Tensors.Values)
        {
            (int number, string part) = Split(tensor.Name);
            if (!parts.TryGetValue(number, out Dictionary<string, TensorInfo>? own))
                parts.Add(number, own = []);
            own.Add(part, tensor);
        }
        if (parts.Count == 0)
            throw new ModelFileException(name, $"holds no tensors; a reference has {Layout}");
        return [.. parts.Select(p => ReadPrompt(p.Key, p.Value))];
    }

    private (int Number, string Part) Split(string tensor)
    {
        const string Prefix = "prompt";
        int dot = tensor.IndexOf('.', StringComparison.Ordinal);
        return dot > 0 && tensor.StartsWith(Prefix, StringComparison.Ordinal) && TryNumber(tensor[Prefix.Length..dot], out int number)
            ? (number, tensor[(dot + 1)..])
            : throw Unknown(tensor);
    }

    private ReferencePrompt ReadPrompt(int number, Dictionary<string, TensorInfo> parts)
    {
        int[]? ids = null, greedy = null;
        TensorInfo? logits = null;
        var routers = new Dictionary<int, TensorInfo>();
        foreach ((string part, TensorInfo tensor) in parts)
        {
            if (part == "input_ids")
                ids = ReadIds(tensor);
            else if (part == "greedy")
                greedy = ReadIds(tensor);
            else if (part == "logits")
                logits = tensor;
            else
                routers.Add(LayerOf(tensor, part), tensor);
        }
        if (ids is null || logits is null)
            throw new ModelFileException(name, $"lacks the tensor 'prompt{number}.{(ids is null ? "input_ids" : "logits")}'");
        var prompt = new ReferencePrompt(number, ids, logits, routers, greedy);
        if (prompt.Positions > config.MaxPositionEmbeddings)
            throw new ModelFileException(name, $"prompt{number} and its continuation have {prompt.Positions} tokens; the model has {config.MaxPositionEmbeddings} positions");
        Require(logits, ids.Length, config.VocabSize, "vocab_size");
        foreach (TensorInfo router in routers.Values)
            Require(router, ids.Length, config.Experts, "num_experts");
        return prompt;
    }

    private int LayerOf(TensorInfo tensor, string part)
    {
        const string Prefix = "router", Suffix = ".logits";
        if (!part.StartsWith(Prefix, StringComparison.Ordinal) || !part.EndsWith(Suffix, StringComparison.Ordinal)
            || part.Length <= Prefix.Length + Suffix.Length || !TryNumber(part[Prefix.Length..^Suffix.Length], out int layer))
            throw Unknown(tensor.Name);
        return layer < config.Layers && config.IsSparse(layer)
            ? layer
            : throw Wrong(tensor, $"is of layer {layer}, which has no router in this model of {config.Layers} layers");
    }

    private int[] ReadIds(TensorInfo tensor)
    {
        if (tensor.Type != TensorType.I32 || tensor.Shape.Count != 1 || tensor.Shape[0] < 1)
            throw Wrong(tensor, "must be I32 with one dimension and at least one token");
        if (tensor.Shape[0] > config.MaxPositionEmbeddings)
            throw Wrong(tensor, $"is longer than the model's {config.MaxPositionEmbeddings} positions");
        ReadOnlySpan<byte> bytes = file.Bytes(tensor);
        var ids = new int[(int)tensor.Shape[0]];
        for (int i = 0; i < ids.Length; i++)
        {
            ids[i] = BinaryPrimitives.ReadInt32LittleEndian(bytes[(i * sizeof(int))..]);
            if ((uint)ids[i] >= (uint)config.VocabSize)
                throw Wrong(tensor, $"has the id {ids[i]} at {i}; the vocabulary has {config.VocabSize}");
        }
        return ids;
    }

    private void Require(TensorInfo tensor, int tokens, int columns, string field)
    {
        if (tensor.Type != TensorType.F32 || !tensor.Shape.SequenceEqual([tokens, columns]))
            throw Wrong(tensor, $"must be F32 [{tokens}, {columns}] (tokens of the prompt, {field})");
    }

    // "01" would be a second spelling of 1.
    private static bool TryNumber(string text, out int number) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out number) && (text.Length == 1 || text[0] != '0');

    private ModelFileException Unknown(string tensor) => new(name, $"tensor '{Excerpt.Of(tensor)}' is none of {Layout}");

    private ModelFileException Wrong(TensorInfo tensor, string problem) => new(name, $"tensor {tensor} {problem}");
}
