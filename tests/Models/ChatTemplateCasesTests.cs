using System.Text.Json;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Models;

/// <summary>Every rendering of the case file, which the reference implementation computed from the Qwen3 template.</summary>
public sealed class ChatTemplateCasesTests
{
    private static readonly string Folder = RepositoryFolder.TestData("qwen3-chat");

    private sealed record Message(string Role, string Content);

    private sealed record Case(Message[] Messages, bool AddGenerationPrompt, bool? EnableThinking, string Expected);

    [Fact]
    public void The_Qwen3_template_renders_every_case()
    {
        var template = ChatTemplate.Load(Folder);
        Assert.Equal("qwen3-hybrid", template.Family);
        foreach ((ChatMessage[] messages, ChatOptions options, string expected) in Cases())
        {
            Assert.Equal(expected, template.Render(messages, options));
        }
    }

    [Fact]
    public void Encoding_a_chat_equals_encoding_its_rendering_where_contents_are_benign()
    {
        string folder = TokenizerCasesTests.Qwen3Folder();
        var tokenizer = Tokenizer.Load(folder);
        var template = ChatTemplate.Load(folder);
        foreach ((ChatMessage[] messages, ChatOptions options, string expected) in Cases())
        {
            IReadOnlyList<int> ids = template.EncodeChat(tokenizer, messages, options);
            bool hostile = messages.Any(m => m.Content.Contains("<|", StringComparison.Ordinal));
            Assert.Equal(!hostile, ids.SequenceEqual(tokenizer.Encode(expected)));
            Assert.Equal(expected, tokenizer.Decode(ids, skipSpecial: false));

            // Each message ends once, whatever it contains.
            Assert.Equal(messages.Length, ids.Count(id => id == tokenizer.TokenId("<|im_end|>")));
        }
    }

    private static IEnumerable<(ChatMessage[] Messages, ChatOptions Options, string Expected)> Cases()
    {
        var spelling = new JsonSerializerOptions { PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower };
        Case[] cases = JsonSerializer.Deserialize<Case[]>(File.ReadAllBytes(Path.Combine(Folder, "chat_cases.json")), spelling)!;
        Assert.Equal(60, cases.Length);
        return cases.Select(c => (
            c.Messages.Select(m => new ChatMessage(m.Role, m.Content)).ToArray(),
            new ChatOptions { AddGenerationPrompt = c.AddGenerationPrompt, EnableThinking = c.EnableThinking },
            c.Expected));
    }
}
