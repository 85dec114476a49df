using System.Text.Json;

namespace GpuKit.Ilgpu.Models;

/// <summary>What normaliser, pre-tokeniser, post-processor and decoder of a <c>tokenizer.json</c> ask for.</summary>
internal readonly struct TokenizerRules(TokenizerParts parts)
{
    private const string Split = "Split";
    private const string ByteLevel = "ByteLevel";

    public bool NormalizesToNfc()
    {
        if (parts.Section("normalizer") is not { } normalizer)
        {
            return false;
        }

        return normalizer.Text("type") == "NFC" ? true : throw parts.Unsupported("normalizer", "NFC or none is");
    }

    /// <summary>The pre-tokeniser must be a known split followed by the byte-level spelling.</summary>
    public int DigitsPerPiece()
    {
        const string needed = "a Sequence of Split (a known pattern, isolated) and ByteLevel (no prefix space, no regex) is";
        if (parts.Section("pre_tokenizer") is not { } sequence || sequence.Text("type") != "Sequence"
            || !sequence.TryGet("pretokenizers", out JsonElement list) || list.ValueKind != JsonValueKind.Array || list.GetArrayLength() != 2
            || list[0].ValueKind != JsonValueKind.Object || list[1].ValueKind != JsonValueKind.Object)
        {
            throw parts.Unsupported("pre_tokenizer", needed);
        }

        var split = new JsonFields(TokenizerFile.FileName, "pre_tokenizer.pretokenizers[0].", list[0]);
        var bytes = new JsonFields(TokenizerFile.FileName, "pre_tokenizer.pretokenizers[1].", list[1]);
        if (split.Text("type") != Split || split.Text("behavior") != "Isolated" || split.Flag("invert", false)
            || bytes.Text("type") != ByteLevel || bytes.Flag("add_prefix_space", true) || bytes.Flag("use_regex", true))
        {
            throw parts.Unsupported("pre_tokenizer", needed);
        }

        string pattern = split.Section("pattern")?.Text("Regex") ?? throw parts.Unsupported("pre_tokenizer", needed);
        return SplitPattern.DigitsPerPiece(pattern)
            ?? throw split.Unsupported("pattern.Regex", pattern, "the split patterns of Qwen2/Qwen3 and of cl100k/Llama 3 are (a file's own expression is never executed)");
    }

    /// <summary>A byte-level post-processor only trims offsets; any other one adds tokens.</summary>
    public void CheckPostProcessor()
    {
        if (parts.Section("post_processor") is { } post && post.Text("type") != ByteLevel)
        {
            throw parts.Unsupported("post_processor", "ByteLevel or none is");
        }
    }

    public void CheckDecoder()
    {
        if (parts.Section("decoder")?.Text("type") != ByteLevel)
        {
            throw parts.Unsupported("decoder", "ByteLevel is");
        }
    }
}
