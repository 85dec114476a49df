using System.Globalization;
using System.Text.Json;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// The added tokens of a folder: those of <c>tokenizer.json</c>, and those that only <c>added_tokens_decoder</c> of
/// <c>tokenizer_config.json</c> lists. A token that either file calls special is special.
/// </summary>
internal sealed class AddedTokenReader(Dictionary<string, int> vocabulary)
{
    private const string ConfigFile = "tokenizer_config.json";
    private const int MaxTokens = 65_536;
    private const int MaxId = 1 << 20;
    private const int MaxChars = 1_024;

    private readonly Dictionary<string, AddedToken> tokens = new(StringComparer.Ordinal);
    private readonly Dictionary<int, string> byId = vocabulary.ToDictionary(v => v.Value, v => v.Key);

    public IReadOnlyList<AddedToken> Read(TokenizerParts parts, ModelFolder folder)
    {
        if (parts.TryGet("added_tokens", out JsonElement list))
        {
            if (list.ValueKind != JsonValueKind.Array || list.EnumerateArray().Any(t => t.ValueKind != JsonValueKind.Object))
            {
                throw parts.Unsupported("added_tokens", "a list of objects is needed");
            }

            foreach (JsonElement token in list.EnumerateArray())
            {
                var fields = new JsonFields(TokenizerFile.FileName, "added_tokens.", token);
                Add(fields, fields.Int("id", 0, MaxId - 1));
            }
        }

        if (folder.Has(ConfigFile))
        {
            ModelJson.Read(folder, ConfigFile, ReadConfig);
        }

        return [.. tokens.Values];
    }

    private bool ReadConfig(JsonFields config)
    {
        if (config.Section("added_tokens_decoder") is not { } tokens)
        {
            return false;
        }

        foreach (JsonProperty property in tokens.Element.EnumerateObject())
        {
            if (!int.TryParse(property.Name, NumberStyles.None, CultureInfo.InvariantCulture, out int id) || id >= MaxId)
            {
                throw tokens.Wrong(Excerpt.Of(property.Name), property.Value, $"an id from 0 to {MaxId - 1} as its name");
            }

            // The value at hand: a look-up by name for each of many names takes their number's square.
            Add(
                property.Value.ValueKind == JsonValueKind.Object
                    ? new JsonFields(ConfigFile, $"{tokens.Prefix}{property.Name}.", property.Value)
                    : throw tokens.Wrong(property.Name, property.Value, "an object"),
                id);
        }

        return true;
    }

    private void Add(JsonFields fields, int id)
    {
        string content = fields.Text("content") is { Length: > 0 and <= MaxChars } text
            ? text
            : throw fields.Missing("content", $"a text of 1 to {MaxChars} characters");
        foreach (string option in (string[])["single_word", "lstrip", "rstrip", "normalized"])
        {
            if (fields.Flag(option, fallback: false))
            {
                throw fields.Unsupported(option, $"true (of '{Excerpt.Of(content)}')", "false is");
            }
        }

        if (byId.TryGetValue(id, out string? owner) && owner != content)
        {
            throw fields.Unsupported("id", $"{id} (of '{Excerpt.Of(content)}')", $"'{Excerpt.Of(owner)}' has that id already");
        }

        if (tokens.TryGetValue(content, out AddedToken? known) ? known.Id != id : vocabulary.TryGetValue(content, out int other) && other != id)
        {
            throw fields.Unsupported("id", $"{id} (of '{Excerpt.Of(content)}')", $"the token has the id {known?.Id ?? vocabulary[content]} already");
        }

        if (tokens.Count == MaxTokens)
        {
            throw new ModelFileException(fields.FileName, $"has more than {MaxTokens} added tokens");
        }

        byId[id] = content;
        tokens[content] = new AddedToken(content, id, fields.Flag("special", fallback: false) || known is { Special: true });
    }
}
