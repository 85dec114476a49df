using System.Diagnostics;
using System.Globalization;
using System.Text;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Models;

/// <summary>JSON files of the largest size that is read, filled with what costs most: refused within 2 s and 64 MB.</summary>
[Collection(nameof(Alone))]
public sealed class HostileFilesTests
{
    private const int ConfigBytes = 1_990_000;
    private const int IndexBytes = 15_990_000;
    private const int TokenizerBytes = 60_000_000;

    /// <summary>What the text starts with, the item that fills it ({0} is its number), what closes it.</summary>
    public static TheoryData<string, string, string> Floods => new()
    {
        { "{", "\"{0}\":0,", "\"\":0}" },
        { "{\"mlp_only_layers\":[", "0,", "0]}" },
        { "{\"eos_token_id\":[", "{0},", "0]}" },
        { "{\"rope_scaling\":{", "\"{0}\":{{}},", "\"\":0}}" },
        { "{\"quantization_config\":{\"modules_to_not_convert\":[", "\"{0}\",", "\"\"]}}" },
        { "{\"model_type\":\"", "qwen3", "\"}" },
        { "{\"model_type\":\"", "\\u0041", "\"}" },
        { "{\"vocab_size\":", "99999999", "}" },
        { "", "[", "" },
        { "{", "", "" },
        { "", " ", "{}" },
    };

    public static TheoryData<string, string> IndexFloods => new()
    {
        { "{\"weight_map\":{", "\"{0}\":\"a.safetensors\"," },
        { "{\"weight_map\":{", "\"{0}\":\"{0}.safetensors\"," },
        { "{\"weight_map\":{", "\"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn{0}\":\"a.safetensors\"," },
        { "{\"metadata\":{", "\"{0}\":[[]]," },
        { "{", "\"{0}\":0," },
        { "{\"weight_map\":{\"", "nnnnnnnn" },
    };

    public static TheoryData<string, string> TokenizerFloods => new()
    {
        { "{\"model\":{\"vocab\":{", "\"{0}\":{0}," },
        { "{\"model\":{\"merges\":[", "[\"a\",\"{0}\"]," },
        { "{\"added_tokens\":[", "{{\"id\":{0}}}," },
        { "{\"x\":[", "[]," },
        { "{", "\"{0}\":[" + Zeros + "0]," },
        { "{\"model\":{", "\"{0}\":[" + Zeros + "0]," },
        { "{", "\"{0}\":0," },
        { "{\"model\":{\"vocab\":{\"", "nnnnnnnn" },
        { "{\"model\":{\"vocab\":{\"a\":", "1111" },
        { "", "[" },
    };

    // Nearly as long as a part may be.
    private static readonly string Zeros = string.Concat(Enumerable.Repeat("0,", 490_000));

    [Theory]
    [MemberData(nameof(Floods))]
    public void A_flooded_configuration_is_refused_soon_and_without_much_memory(string start, string item, string end)
    {
        byte[] json = Encoding.UTF8.GetBytes(Filled(start, item, ConfigBytes) + end);
        HostileInput.IsRefusedCheaply(() => Qwen3MoeConfig.Parse(json));
    }

    [Theory]
    [MemberData(nameof(IndexFloods))]
    public void A_flooded_index_is_refused_soon_and_without_much_memory(string start, string item)
    {
        using var folder = new TemporaryFolder();
        folder.Write("model.safetensors.index.json", Filled(start, item, IndexBytes));
        HostileInput.IsRefusedCheaply(() => Checkpoint.Open(folder.Path));
    }

    [Theory]
    [MemberData(nameof(TokenizerFloods))]
    public void A_flooded_tokenizer_is_refused_soon_and_without_much_memory(string start, string item)
    {
        using var folder = new TemporaryFolder();
        folder.Write("tokenizer.json", Filled(start, item, TokenizerBytes));
        HostileInput.IsRefusedCheaply(() => Tokenizer.Load(folder.Path));
    }

    [Fact]
    public void Tens_of_thousands_of_added_tokens_are_refused_soon_and_without_much_memory()
    {
        using var folder = new TemporaryFolder();
        folder.Write("tokenizer.json", File.ReadAllBytes(Path.Combine(RepositoryFolder.TinyModel, "tokenizer.json")));
        string tokens = string.Concat(Enumerable.Range(3_000, 60_000).Select(i => string.Create(CultureInfo.InvariantCulture, $"\"{i}\":{{\"content\":\"{i}\"}},")));
        folder.Write("tokenizer_config.json", $"{{\"added_tokens_decoder\":{{{tokens}\"x\":0}}}}");
        HostileInput.IsRefusedCheaply(() => Tokenizer.Load(folder.Path));
    }

    [Fact]
    public void Tens_of_thousands_of_added_tokens_that_begin_alike_cost_little_time()
    {
        using var folder = new TemporaryFolder();
        folder.Write("tokenizer.json", File.ReadAllBytes(Path.Combine(RepositoryFolder.TinyModel, "tokenizer.json")));
        string tokens = string.Join(',', Enumerable.Range(3_000, 45_000).Select(i => string.Create(CultureInfo.InvariantCulture, $"\"{i}\":{{\"content\":\"aaaa{i}\"}}")));
        folder.Write("tokenizer_config.json", $"{{\"added_tokens_decoder\":{{{tokens}}}}}");
        var time = Stopwatch.StartNew();
        var tokenizer = Tokenizer.Load(folder.Path);
        string text = string.Concat(Enumerable.Repeat("aaaa3 aaaa12345 ", 500));
        Assert.Equal(text, tokenizer.Decode(tokenizer.EncodePlain(text)));
        Assert.InRange(time.Elapsed, TimeSpan.Zero, TimeSpan.FromSeconds(5));
    }

    [Fact]
    public void A_file_beyond_its_limit_is_refused_by_its_length_alone()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "the file is sparse, which NTFS does only when asked");
        using var folder = new TemporaryFolder();
        foreach ((string name, Action read) in new (string, Action)[]
        {
            ("config.json", () => Qwen3MoeConfig.Load(folder.Path)),
            ("generation_config.json", () => GenerationConfig.Load(folder.Path)),
            ("tokenizer.json", () => Tokenizer.Load(folder.Path)),
            ("tokenizer_config.json", () => ChatTemplate.Load(folder.Path)),
            ("chat_template.jinja", () => ChatTemplate.Load(folder.Path)),
            ("model.safetensors.index.json", () => Checkpoint.Open(folder.Path).Dispose()),
        })
        {
            using (FileStream file = File.Create(folder.File(name)))
                file.SetLength(1L << 40);
            var refused = Assert.Throws<ModelFileException>(read);
            Assert.Equal(name, refused.FileName);
            Assert.Contains("has 1099511627776 bytes; such a file has at most", refused.Message, StringComparison.Ordinal);
        }
    }

    private static string Filled(string start, string item, int length)
    {
        var text = new StringBuilder(start, length + item.Length);
        for (int i = 0; text.Length + item.Length < length && item.Length > 0; i++)
            text.AppendFormat(CultureInfo.InvariantCulture, item, i);
        return text.ToString();
    }
}
