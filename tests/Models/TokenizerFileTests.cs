using System.Text;
using System.Text.Json.Nodes;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Models;

/// <summary>tokenizer.json: whatever would change ids and is not done is refused by name.</summary>
[Collection(nameof(Alone))]
public sealed class TokenizerFileTests
{
    private static readonly byte[] Good = File.ReadAllBytes(Path.Combine(RepositoryFolder.TinyModel, "tokenizer.json"));

    /// <summary>Path of the field, JSON text it is set to (null removes it), what the message must name.</summary>
    public static TheoryData<string, string?, string> Unsupported => new()
    {
        { "model", null, "model.type" },
        { "model", "[]", "model" },
        { "model/type", "\"Unigram\"", "Unigram" },
        { "model/type", "\"WordPiece\"", "WordPiece" },
        { "model/type", "1", "model.type" },
        { "model/dropout", "0.1", "dropout" },
        { "model/continuing_subword_prefix", "\"##\"", "continuing_subword_prefix" },
        { "model/end_of_word_suffix", "\"</w>\"", "end_of_word_suffix" },
        { "model/byte_fallback", "true", "byte_fallback" },
        { "model/ignore_merges", "true", "ignore_merges" },
        { "model/vocab", null, "model.vocab" },
        { "model/vocab", "[]", "model.vocab" },
        { "model/vocab/!", null, "0x21" },
        { "model/vocab/!", "-1", "'!'" },
        { "model/vocab/!", "1", "id 1" },
        { "model/vocab/!", "99999999", "99999999" },
        { "model/vocab/!", "\"0\"", "'!'" },
        { "model/vocab/日", "3000", "byte-level alphabet" },
        { "model/merges", "{}", "model.merges" },
        { "model/merges", "[1]", "model.merges" },
        { "model/merges", "[\"th\"]", "'th'" },
        { "model/merges", "[\"t h e\"]", "'t h e'" },
        { "model/merges", "[\"q zzz\"]", "'q zzz'" },
        { "model/merges", "[[\"t\"]]", "model.merges" },
        { "model/merges", "[[\"t\",\"h\",\"e\"]]", "model.merges" },
        { "model/merges", "[[\"t\",null]]", "model.merges" },
        { "normalizer", "{\"type\":\"NFKC\"}", "NFKC" },
        { "normalizer", "{\"type\":\"Lowercase\"}", "Lowercase" },
        { "normalizer", "[]", "normalizer" },
        { "pre_tokenizer", null, "pre_tokenizer" },
        { "pre_tokenizer", "{\"type\":\"Whitespace\"}", "Whitespace" },
        { "pre_tokenizer/pretokenizers/0/pattern/Regex", "\"(a+)+$\"", "(a+)+$" },
        { "pre_tokenizer/pretokenizers/0/pattern", "{\"String\":\" \"}", "pre_tokenizer" },
        { "pre_tokenizer/pretokenizers/0/behavior", "\"Removed\"", "pre_tokenizer" },
        { "pre_tokenizer/pretokenizers/0/invert", "true", "pre_tokenizer" },
        { "pre_tokenizer/pretokenizers/1/add_prefix_space", "true", "pre_tokenizer" },
        { "pre_tokenizer/pretokenizers/1/use_regex", "true", "pre_tokenizer" },
        { "post_processor", "{\"type\":\"TemplateProcessing\"}", "TemplateProcessing" },
        { "decoder", null, "decoder" },
        { "decoder", "{\"type\":\"WordPiece\"}", "WordPiece" },
        { "added_tokens", "{}", "added_tokens" },
        { "added_tokens/0/id", "-1", "id" },
        { "added_tokens/0/id", "5", "'&'" },
        { "added_tokens/0/id", "2046", "<|endoftext|>" },
        { "added_tokens/0/content", "\"\"", "content" },
        { "added_tokens/0/content", "\"&\"", "'&'" },
        { "added_tokens/0/lstrip", "true", "lstrip" },
        { "added_tokens/0/rstrip", "true", "rstrip" },
        { "added_tokens/0/single_word", "true", "single_word" },
        { "added_tokens/0/normalized", "true", "normalized" },
    };

    [Theory]
    [MemberData(nameof(Unsupported))]
    public void What_is_not_supported_is_refused_by_name(string path, string? value, string named)
    {
        JsonNode file = JsonNode.Parse(Good)!;
        string[] steps = path.Split('/');
        JsonNode parent = steps[..^1].Aggregate(file, (node, step) => (int.TryParse(step, out int i) && node is JsonArray ? node[i] : node[step])!);
        parent.AsObject().Remove(steps[^1]);
        if (value is not null)
        {
            parent[steps[^1]] = JsonNode.Parse(value);
        }

        Refused(Encoding.UTF8.GetBytes(file.ToJsonString()), named);
    }

    [Fact]
    public void Malformed_files_are_refused()
    {
        Refused([.. "[]"u8], "object");
        Refused([.. "{}"u8], "model.type");
        Refused(Good[..^10], "JSON");
        Refused([.. Good, (byte)'x'], "JSON");
        Refused([.. "{\"model\":{\"vocab\":{\"\\ud800\":1}}}"u8], "JSON");
        Refused([.. "{\"decoder\":{},\"decoder\":{}}"u8], "twice");
        Refused([.. "{\"decoder\":{\"type\":\"a\",\"type\":\"b\"}}"u8], "JSON");
        Refused(Encoding.ASCII.GetBytes("{\"x\":" + new string('[', 1_000)), "JSON");
        using var empty = new TemporaryFolder();
        Assert.Contains("tokenizer.json: file not found", Assert.Throws<ModelFileException>(() => Tokenizer.Load(empty.Path)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Merges_may_be_written_as_text()
    {
        JsonNode file = JsonNode.Parse(Good)!;
        file["model"]!["merges"] = new JsonArray([.. file["model"]!["merges"]!.AsArray().Select(m => JsonValue.Create($"{m![0]} {m[1]}"))]);
        using var folder = new TemporaryFolder();
        folder.Write("tokenizer.json", file.ToJsonString());
        const string text = "In the beginning God created the heaven and the earth.";
        Assert.Equal(Tokenizer.Load(RepositoryFolder.TinyModel).Encode(text), Tokenizer.Load(folder.Path).Encode(text));
    }

    [Fact]
    public void Added_tokens_of_the_configuration_count_too()
    {
        using var folder = new TemporaryFolder();
        folder.Write("tokenizer.json", Good);
        folder.Write("tokenizer_config.json", """{"added_tokens_decoder":{"2048":{"content":"<new>","special":false},"2047":{"content":"<|im_end|>","special":true}}}""");
        var tokenizer = Tokenizer.Load(folder.Path);
        Assert.Equal([2048], tokenizer.EncodePlain("<new>"));
        Assert.Equal("<new>", tokenizer.Decode([2048]));

        folder.Write("tokenizer_config.json", """{"added_tokens_decoder":{"2048":{"content":"<|im_end|>","special":true}}}""");
        Assert.StartsWith("tokenizer_config.json: ", Assert.Throws<ModelFileException>(() => Tokenizer.Load(folder.Path)).Message, StringComparison.Ordinal);
    }

    private static void Refused(byte[] file, string named)
    {
        using var folder = new TemporaryFolder();
        folder.Write("tokenizer.json", file);
        var refused = Assert.Throws<ModelFileException>(() => Tokenizer.Load(folder.Path));
        Assert.StartsWith("tokenizer.json: ", refused.Message, StringComparison.Ordinal);
        Assert.Contains(named, refused.Message, StringComparison.Ordinal);
    }
}
