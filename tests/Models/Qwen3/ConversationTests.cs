using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Models.Qwen3;

/// <summary>Turns of a conversation: what they cost, keep and forget.</summary>
[Collection(ModelDevices.Collection)]
public sealed class ConversationTests(ModelDevices devices)
{
    private const string Psalm = "The LORD is my shepherd; I shall not want.";

    public static TheoryData<TestDevice> Devices => ModelDevices.All;

    [Theory]
    [MemberData(nameof(Devices))]
    public Task A_later_turn_computes_only_its_new_tokens(TestDevice device) => On(device, async (model, generator, conversation) =>
    {
        Assert.Equal(Psalm, await Ask(conversation, "Psalm 23:1"));
        GenerationStatistics first = generator.LastStatistics!;
        string second = await Ask(conversation, "next");
        GenerationStatistics next = generator.LastStatistics!;
        // All but the stop token, which was drawn and never appended.
        Assert.Equal(first.PromptTokens + first.GeneratedTokens - 1, next.CachedTokens);
        Assert.Equal(["Psalm 23:1", Psalm, "next", second], conversation.Turns.Select(t => t.Content));
        using var fresh = new TextGenerator(model, 128);
        IReadOnlyList<int> whole = model.Chat.EncodeChat(model.Tokenizer, [.. conversation.Turns.Take(3)]);
        Assert.Equal(whole.Count, next.PromptTokens);
        Assert.Equal(second, string.Concat(await fresh.GenerateAsync(whole, null, CancellationToken.None).ToListAsync(CancellationToken.None)));
    });

    [Fact]
    public Task A_system_prompt_is_sent_and_survives_clearing() => On(TestDevice.Cpu, async (model, generator, conversation) =>
    {
        conversation.System = "Recite.";
        await Ask(conversation, "Psalm 23:1", new GenerationOptions { MaxTokens = 2 });
        int expected = model.Chat.EncodeChat(model.Tokenizer, [new ChatMessage(ChatRole.System, "Recite."), new ChatMessage(ChatRole.User, "Psalm 23:1")]).Count;
        Assert.Equal(expected, generator.LastStatistics!.PromptTokens);
        conversation.Clear();
        Assert.Empty(conversation.Turns);
        await Ask(conversation, "Psalm 23:1", new GenerationOptions { MaxTokens = 2 });
        Assert.Equal(expected, generator.LastStatistics!.PromptTokens);
        conversation.Clear();
        conversation.System = null;
        Assert.Equal(Psalm, await Ask(conversation, "Psalm 23:1"));
    });

    [Fact]
    public Task Special_tokens_of_a_user_are_text() => On(TestDevice.Cpu, async (model, generator, conversation) =>
    {
        const string question = "Psalm<|im_end|> 23:1";
        await Ask(conversation, question, new GenerationOptions { MaxTokens = 1 });
        IReadOnlyList<int> ids = model.Chat.EncodeChat(model.Tokenizer, [new ChatMessage(ChatRole.User, question)]);
        Assert.Equal(ids.Count, generator.LastStatistics!.PromptTokens);
        // The turn's own start and end, and the answer's start.
        Assert.Equal(3, ids.Count(model.Tokenizer.IsSpecial));
        Assert.Contains("<|im_end|>", conversation.Turns[0].Content, StringComparison.Ordinal);
    });

    [Fact]
    public Task A_question_that_cannot_be_answered_is_not_kept() => On(TestDevice.Cpu, async (_, generator, conversation) =>
    {
        string longQuestion = string.Join(' ', Enumerable.Repeat("shepherd", 200));
        string message = (await Assert.ThrowsAsync<ArgumentException>(() => Ask(conversation, longQuestion))).Message;
        Assert.Contains($"{generator.ContextLength}", message, StringComparison.Ordinal);
        message = (await Assert.ThrowsAsync<ArgumentException>(() => Ask(conversation, new string('x', 1_000_000)))).Message;
        Assert.Contains("tokens at least; the context holds 128", message, StringComparison.Ordinal);
        await Assert.ThrowsAsync<ArgumentOutOfRangeException>(() => Ask(conversation, "next", new GenerationOptions { MaxTokens = 0 }));
        Assert.Empty(conversation.Turns);
        Assert.Equal(Psalm, await Ask(conversation, "Psalm 23:1"));
    });

    [Fact]
    public Task A_cancelled_answer_keeps_what_came() => On(TestDevice.Cpu, async (_, _, conversation) =>
    {
        using var stop = new CancellationTokenSource();
        string seen = "";
        await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
        {
            await foreach (string piece in conversation.AskAsync("Psalm 23:1", null, stop.Token))
            {
                seen += piece;
                if (seen.Length > 8)
                    await stop.CancelAsync();
            }
        });
        Assert.StartsWith(seen, Psalm, StringComparison.Ordinal);
        Assert.Equal(["Psalm 23:1", seen], conversation.Turns.Select(t => t.Content));
        Assert.NotEmpty(await Ask(conversation, "next", new GenerationOptions { MaxTokens = 4 }));
    });

    private async Task On(TestDevice device, Func<LanguageModel, TextGenerator, Conversation, Task> test)
    {
        LanguageModel model = devices.Tiny(device);
        using var generator = new TextGenerator(model, 128);
        await test(model, generator, new Conversation(model, generator));
    }

    private static async Task<string> Ask(Conversation conversation, string question, GenerationOptions? options = null) =>
        string.Concat(await conversation.AskAsync(question, options, CancellationToken.None).ToListAsync(CancellationToken.None));
}
