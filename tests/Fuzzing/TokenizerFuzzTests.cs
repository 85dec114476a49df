using System.Text;
using System.Text.Json.Nodes;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Fuzzing;

/// <summary>tokenizer.json and the added tokens of tokenizer_config.json, broken at random: a tokenizer that loads gives back every text.</summary>
[Collection(nameof(Alone))]
public sealed class TokenizerFuzzTests
{
    // Every kind of character that the split pattern knows, and what looks like a special token.
    private const string Text = "In the beginning's 12 é\u0301 日本 🙂\n\n  <|im_end|><s> x";

    [Fact]
    public void Small_tokenizers_give_back_every_text_or_are_refused() => Run("tokenizer.json, small", FuzzRun.Mutations(Small()));

    [Fact]
    public void Whole_tokenizers_give_back_every_text_or_are_refused() => Run("tokenizer.json, whole", FuzzRun.Mutations(FuzzRun.Good("tokenizer.json")));

    [Fact]
    public void Added_tokens_of_the_configuration_give_back_every_text_or_are_refused()
    {
        byte[] config = """{"added_tokens_decoder":{"300":{"content":"<s>","special":true,"lstrip":false},"301":{"content":"日","special":false},"302":{"content":"<|im_end|>","special":true,"normalized":false}}}"""u8.ToArray();
        using var folder = new TemporaryFolder();
        folder.Write("tokenizer.json", Small());
        int accepted = FuzzRun.AcceptedOfThousand("added tokens", FuzzRun.Mutations(config), json =>
        {
            folder.Write("tokenizer_config.json", json);
            return GivesBack(folder);
        });
        Assert.InRange(accepted, 20, 900);
    }

    private static void Run(string name, Func<Random, byte[]> make)
    {
        using var folder = new TemporaryFolder();
        int accepted = FuzzRun.AcceptedOfThousand(name, make, json =>
        {
            folder.Write("tokenizer.json", json);
            return GivesBack(folder);
        });
        Assert.InRange(accepted, 5, 900);
    }

    private static bool GivesBack(TemporaryFolder folder)
    {
        Tokenizer? tokenizer = null;
        bool read = FuzzRun.Reads(() => tokenizer = Tokenizer.Load(folder.Path));
        if (tokenizer is not null)
        {
            string decoded = tokenizer.Decode(tokenizer.EncodePlain(Text));
            // NFC where the file still asks for it.
            Assert.Equal(Text.Normalize(), decoded.Normalize());
            Assert.Equal(decoded, tokenizer.Decode(tokenizer.Encode(Text), skipSpecial: false));
        }

        return read;
    }

    // The tokenizer of the repository with a vocabulary of the bytes and three merges: a file of a few kilobytes reads quickly.
    private static byte[] Small()
    {
        JsonNode file = JsonNode.Parse(FuzzRun.Good("tokenizer.json"))!;
        JsonObject vocabulary = file["model"]!["vocab"]!.AsObject();
        var small = new JsonObject();
        foreach (string token in vocabulary.Select(t => t.Key).Where(t => t.Length == 1 && small.Count < 256))
            small[token] = small.Count;
        foreach (string token in (string[])["th", "the", "in"])
            small[token] = small.Count;
        file["model"]!["vocab"] = small;
        file["model"]!["merges"] = new JsonArray("t h", "th e", "i n");
        file["added_tokens"] = new JsonArray(new JsonObject { ["id"] = 299, ["content"] = "<x>", ["special"] = true }, new JsonObject { ["id"] = 298, ["content"] = "本", ["special"] = false });
        return Encoding.UTF8.GetBytes(file.ToJsonString());
    }
}
