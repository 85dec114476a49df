using System.Text.Json;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Streams the <c>model</c> of a <c>tokenizer.json</c>: vocabulary and merges, which make up nearly all of its megabytes. The
/// caps are twice the largest byte-level vocabulary in use and bound what a hostile file makes us allocate.
/// </summary>
internal sealed class TokenizerModelReader
{
    private const int MaxEntries = 300_000;
    private const int MaxId = 1 << 20;
    private const int MaxTokenBytes = 1_024;
    private const int MaxAllBytes = 8_000_000;

    private readonly TokenizerParts parts = new("model.");
    private int vocabularyBytes;
    private int mergeBytes;

    public Dictionary<string, int> Vocabulary { get; } = new(StringComparer.Ordinal);

    public List<string> Merges { get; } = [];

    public void Read(ref Utf8JsonReader reader, ReadOnlySpan<byte> json)
    {
        if (Vocabulary.Count > 0 || !reader.Read() || reader.TokenType != JsonTokenType.StartObject)
        {
            throw Wrong("'model' stands twice or is not an object");
        }

        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            if (reader.ValueTextEquals("vocab"u8))
            {
                ReadVocabulary(ref reader);
            }
            else if (reader.ValueTextEquals("merges"u8))
            {
                ReadMerges(ref reader);
            }
            else
            {
                parts.Read(ref reader, json);
            }
        }
    }

    /// <summary>The checks that need all of the model: its options, every byte has a token, merges stay in the vocabulary.</summary>
    public void Check()
    {
        Require("type", "BPE", v => IsText(v, "BPE"), required: true);
        Require("dropout", "null", v => v.ValueKind == JsonValueKind.Number && v.GetDouble() == 0);
        Require("continuing_subword_prefix", "null or empty", v => IsText(v, ""));
        Require("end_of_word_suffix", "null or empty", v => IsText(v, ""));
        Require("byte_fallback", "false", v => v.ValueKind == JsonValueKind.False);
        Require("ignore_merges", "false", v => v.ValueKind == JsonValueKind.False);

        var seen = new HashSet<int>(Vocabulary.Count);
        foreach ((string token, int id) in Vocabulary)
        {
            if (!seen.Add(id))
            {
                throw Wrong($"'model.vocab' gives the id {id} to '{Excerpt.Of(token)}' and to another token");
            }
        }

        for (int b = 0; b < 256; b++)
        {
            string token = ByteLevelAlphabet.CharOf((byte)b).ToString();
            if (!Vocabulary.ContainsKey(token))
            {
                throw Wrong($"'model.vocab' lacks '{token}', the token of the byte 0x{b:X2}; a byte-level vocabulary has all 256");
            }
        }

        CheckMerges();
    }

    private void CheckMerges()
    {
        Dictionary<string, int>.AlternateLookup<ReadOnlySpan<char>> tokens = Vocabulary.GetAlternateLookup<ReadOnlySpan<char>>();
        Span<char> joined = stackalloc char[2 * MaxTokenBytes];
        foreach (string merge in Merges)
        {
            int space = merge.IndexOf(' ');
            ReadOnlySpan<char> left = merge.AsSpan(0, Math.Max(space, 0));
            ReadOnlySpan<char> right = merge.AsSpan(space + 1);
            left.CopyTo(joined);
            right.CopyTo(joined[left.Length..]);
            if (!tokens.ContainsKey(left) || !tokens.ContainsKey(right) || !tokens.ContainsKey(joined[..(left.Length + right.Length)]))
            {
                throw Wrong($"'model.merges' has '{Excerpt.Of(merge)}'; two tokens of the vocabulary that join to a third are needed");
            }
        }
    }

    private void ReadVocabulary(ref Utf8JsonReader reader)
    {
        if (Vocabulary.Count > 0 || !reader.Read() || reader.TokenType != JsonTokenType.StartObject)
        {
            throw Wrong("'model.vocab' stands twice or is not an object");
        }

        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            Count(ref reader, Vocabulary.Count, ref vocabularyBytes, "model.vocab");
            string token = reader.GetString()!;
            if (!reader.Read() || reader.TokenType != JsonTokenType.Number || !reader.TryGetInt32(out int id) || id is < 0 or >= MaxId)
            {
                throw Wrong($"'model.vocab' gives '{Excerpt.Of(token)}' the id {Excerpt.Of(reader.ValueSpan)}; a whole number from 0 to {MaxId - 1} is needed");
            }

            if (!Vocabulary.TryAdd(token, id))
            {
                throw Wrong($"'model.vocab' has '{Excerpt.Of(token)}' twice");
            }
        }
    }

    // Written as "left right" or, in newer files, as ["left", "right"].
    private void ReadMerges(ref Utf8JsonReader reader)
    {
        if (Merges.Count > 0 || !reader.Read() || reader.TokenType != JsonTokenType.StartArray)
        {
            throw Wrong("'model.merges' stands twice or is not a list");
        }

        Span<char> pair = stackalloc char[(2 * MaxTokenBytes) + 1];
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            bool isPair = reader.TokenType == JsonTokenType.StartArray;
            int length = CopyToken(ref reader, pair, isPair);
            if (isPair)
            {
                pair[length++] = ' ';
                length += CopyToken(ref reader, pair[length..], next: true);
                if (!reader.Read() || reader.TokenType != JsonTokenType.EndArray)
                {
                    throw Wrong($"'model.merges' has an entry of more than two parts after '{Excerpt.Of(pair[..length].ToString())}'");
                }
            }

            Merges.Add(pair[..length].ToString());
        }
    }

    private int CopyToken(ref Utf8JsonReader reader, scoped Span<char> to, bool next)
    {
        if ((next && !reader.Read()) || reader.TokenType != JsonTokenType.String)
        {
            throw Wrong($"'model.merges' has {Excerpt.Of(reader.ValueSpan)} for a token");
        }

        Count(ref reader, Merges.Count, ref mergeBytes, "model.merges");
        return reader.CopyString(to);
    }

    private static void Count(ref Utf8JsonReader reader, int count, ref int bytes, string where)
    {
        bytes += reader.ValueSpan.Length;
        if (reader.ValueSpan.Length > MaxTokenBytes || bytes > MaxAllBytes || count == MaxEntries)
        {
            throw Wrong($"'{where}' has more than {MaxEntries} entries, {MaxAllBytes} bytes, or {MaxTokenBytes} bytes in one entry");
        }
    }

    private void Require(string name, string supported, Func<JsonElement, bool> accepts, bool required = false)
    {
        bool good = parts.TryGet(name, out JsonElement value) ? accepts(value) : !required;
        if (!good)
        {
            throw parts.Unsupported(name, $"{supported} is");
        }
    }

    private static bool IsText(JsonElement value, string text) => value.ValueKind == JsonValueKind.String && value.ValueEquals(text);

    private static ModelFileException Wrong(string problem) => new(TokenizerFile.FileName, problem);
}
