using System.Text.Json;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// What <c>tokenizer.json</c> says, checked: a byte-level BPE with a known split pattern. Everything in the file that would
/// change ids and that <see cref="Tokenizer"/> does not do is refused by name.
/// </summary>
internal sealed record TokenizerFile(
    Dictionary<string, int> Vocabulary,
    List<string> Merges,
    IReadOnlyList<AddedToken> Added,
    bool NormalizesToNfc,
    int DigitsPerPiece)
{
    public const string FileName = "tokenizer.json";

    private const int MaxBytes = 64_000_000;

    public static TokenizerFile Load(ModelFolder folder)
    {
        using MappedFile file = folder.Map(FileName, MaxBytes);
        ReadOnlySpan<byte> json = file.Span(0, (int)file.Length);
        ModelJson.RequireUtf8(json, FileName);
        try
        {
            return Read(json, folder);
        }
        catch (Exception e) when (ModelJson.IsMalformed(e))
        {
            throw ModelJson.Malformed(FileName, e);
        }
    }

    private static TokenizerFile Read(ReadOnlySpan<byte> json, ModelFolder folder)
    {
        var reader = new Utf8JsonReader(json, new JsonReaderOptions { MaxDepth = 32 });
        if (!reader.Read() || reader.TokenType != JsonTokenType.StartObject)
        {
            throw new ModelFileException(FileName, "holds no JSON object");
        }

        var model = new TokenizerModelReader();
        var parts = new TokenizerParts("");
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            if (reader.ValueTextEquals("model"u8))
            {
                model.Read(ref reader, json);
            }
            else
            {
                parts.Read(ref reader, json);
            }
        }

        while (reader.Read())
        {
        }

        model.Check();
        var rules = new TokenizerRules(parts);
        rules.CheckPostProcessor();
        rules.CheckDecoder();
        IReadOnlyList<AddedToken> added = new AddedTokenReader(model.Vocabulary).Read(parts, folder);
        return new TokenizerFile(model.Vocabulary, model.Merges, added, rules.NormalizesToNfc(), rules.DigitsPerPiece());
    }
}
