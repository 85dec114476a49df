using System.Text.Json.Nodes;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Models.Qwen3;

/// <summary>Text from prompts: how it is drawn and where it ends.</summary>
[Collection(ModelDevices.Collection)]
public sealed class GenerationTests(ModelDevices devices) : IDisposable
{
    private const string Psalm = "The LORD is my shepherd; I shall not want.";

    private readonly List<TextGenerator> generators = [];

    public static TheoryData<TestDevice> Devices => ModelDevices.All;

    public void Dispose() => generators.ForEach(g => g.Dispose());

    [Theory]
    [MemberData(nameof(Devices))]
    public async Task A_verse_is_recited_and_ends_at_the_stop_token(TestDevice device)
    {
        (TextGenerator generator, int[] prompt) = Start(device, 64);
        Assert.Equal(Psalm, await Text(generator, prompt));
        GenerationStatistics statistics = generator.LastStatistics!;
        Assert.Equal((prompt.Length, 0, FinishReason.Stop), (statistics.PromptTokens, statistics.CachedTokens, statistics.Finish));
        Assert.True(statistics.PrefillTime > TimeSpan.Zero && statistics.DecodeTime > TimeSpan.Zero);
        int answer = statistics.GeneratedTokens;
        Assert.Equal(Psalm, await Text(generator, prompt));
        Assert.Equal((prompt.Length - 1, answer), (generator.LastStatistics!.CachedTokens, generator.LastStatistics.GeneratedTokens));
        generator.Clear();
        Assert.Equal(Psalm, await Text(generator, prompt));
        Assert.Equal(0, generator.LastStatistics!.CachedTokens);
    }

    [Fact]
    public void A_prompt_that_cannot_fit_is_refused_by_its_length()
    {
        (TextGenerator generator, _) = Start(TestDevice.Cpu, 16);
        generator.RequireRoom("In the beginning");
        // Tokenising it would be refused otherwise: it has no place to split.
        string message = Assert.Throws<ArgumentException>(() => generator.RequireRoom(new string('x', 3_000_000))).Message;
        Assert.Contains("3000000 characters", message, StringComparison.Ordinal);
        Assert.Contains("the context holds 16", message, StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public async Task A_seed_repeats_and_another_does_not(TestDevice device)
    {
        (TextGenerator generator, int[] prompt) = Start(device, 64, "next");
        GenerationOptions Seeded(ulong seed) => new() { MaxTokens = 16, Sampling = new SamplingOptions { Temperature = 1, Seed = seed } };
        string first = await Text(generator, prompt, Seeded(1));
        Assert.Equal(first, await Text(generator, prompt, Seeded(1)));
        Assert.NotEqual(first, await Text(generator, prompt, Seeded(2)));
        Assert.Equal(first, await Text(generator, prompt, Seeded(1)));
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public async Task Every_limit_on_the_draw_takes_effect(TestDevice device)
    {
        (TextGenerator generator, int[] prompt) = Start(device, 64);
        async Task<string> Draw(SamplingOptions sampling) => await Text(generator, prompt, new GenerationOptions { MaxTokens = 12, Sampling = sampling });
        string greedy = await Draw(SamplingOptions.Greedy);
        var hot = new SamplingOptions { Temperature = 5, Seed = 3 };
        Assert.NotEqual(greedy, await Draw(hot));
        Assert.Equal(greedy, await Draw(hot with { TopK = 1 }));
        Assert.Equal(greedy, await Draw(hot with { TopP = 1e-6f }));
        Assert.Equal(greedy, await Draw(hot with { MinP = 1 }));
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void A_repetition_penalty_keeps_tokens_from_coming_twice(TestDevice device)
    {
        LanguageModel model = devices.Tiny(device);
        using var session = new Qwen3Session(model.Network, 64);
        int[] prompt = Prompt(model, "Psalm 23:1");
        int[] drawn = ModelRun.Continue(session, prompt, 30, new SamplingOptions { RepetitionPenalty = 1e6f });
        Assert.Equal(30, drawn.Distinct().Count());
        Assert.Empty(drawn.Intersect(prompt));
        int[] unpenalised = ModelRun.Continue(session, prompt, 30);
        Assert.NotEqual(drawn, unpenalised);
        Assert.NotEmpty(unpenalised.Intersect(prompt));
    }

    [Fact]
    public async Task Generation_ends_at_the_most_tokens_or_when_the_context_is_full()
    {
        (TextGenerator generator, int[] prompt) = Start(TestDevice.Cpu, 64);
        string five = await Text(generator, prompt, new GenerationOptions { MaxTokens = 5 });
        Assert.StartsWith(five, Psalm, StringComparison.Ordinal);
        Assert.Equal((5, FinishReason.MaxTokens), (generator.LastStatistics!.GeneratedTokens, generator.LastStatistics.Finish));
        (TextGenerator narrow, _) = Start(TestDevice.Cpu, prompt.Length + 3);
        Assert.StartsWith(await Text(narrow, prompt), Psalm, StringComparison.Ordinal);
        Assert.Equal((4, FinishReason.ContextFull), (narrow.LastStatistics!.GeneratedTokens, narrow.LastStatistics.Finish));
        (TextGenerator full, _) = Start(TestDevice.Cpu, prompt.Length);
        await Text(full, prompt);
        Assert.Equal((1, FinishReason.ContextFull), (full.LastStatistics!.GeneratedTokens, full.LastStatistics.Finish));
    }

    [Theory]
    [InlineData("shepherd; I", "The LORD is my ")]
    [InlineData(" my shep", "The LORD is")]
    [InlineData("T", "")]
    [InlineData("want.", "The LORD is my shepherd; I shall not ")]
    [InlineData("not to be", Psalm)]
    public async Task A_stop_text_ends_the_text_before_it(string stop, string expected)
    {
        (TextGenerator generator, int[] prompt) = Start(TestDevice.Cpu, 64);
        Assert.Equal(expected, await Text(generator, prompt, new GenerationOptions { StopTexts = ["never there", stop] }));
        Assert.Equal(expected == Psalm ? FinishReason.Stop : FinishReason.StopText, generator.LastStatistics!.Finish);
    }

    [Fact]
    public async Task Mistakes_are_refused_and_the_next_generation_works()
    {
        (TextGenerator generator, int[] prompt) = Start(TestDevice.Cpu, 40);
        string message = (await Assert.ThrowsAsync<ArgumentException>(() => Text(generator, new int[41]))).Message;
        Assert.Contains("41", message, StringComparison.Ordinal);
        Assert.Contains("40", message, StringComparison.Ordinal);
        await Assert.ThrowsAsync<ArgumentException>(() => Text(generator, []));
        await Assert.ThrowsAsync<ArgumentException>(() => Text(generator, [5, 2048]));
        await Assert.ThrowsAsync<ArgumentException>(() => Text(generator, [-7]));
        await Assert.ThrowsAsync<ArgumentOutOfRangeException>(() => Text(generator, prompt, new GenerationOptions { MaxTokens = 0 }));
        await Assert.ThrowsAsync<ArgumentOutOfRangeException>(() => Text(generator, prompt, new GenerationOptions { Sampling = new SamplingOptions { Temperature = -1 } }));
        await using IAsyncEnumerator<string> running = generator.GenerateAsync(prompt, null, CancellationToken.None).GetAsyncEnumerator(CancellationToken.None);
        Assert.True(await running.MoveNextAsync());
        await Assert.ThrowsAsync<InvalidOperationException>(() => Text(generator, prompt));
        await running.DisposeAsync();
        Assert.Equal(Psalm, await Text(generator, prompt));
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public async Task Cancelling_returns_all_memory_and_the_next_generation_works(TestDevice device)
    {
        (TextGenerator generator, int[] prompt) = Start(device, 64);
        await Text(generator, prompt, new GenerationOptions { MaxTokens = 3 });
        AllocationLedger ledger = devices.Open(device).Ledger;
        var before = (ledger.LiveBytes, ledger.LiveBuffers);
        foreach (int pieces in (int[])[0, 1, 2, 5, 9])
        {
            using var stop = new CancellationTokenSource();
            if (pieces == 0)
                await stop.CancelAsync();
            int seen = 0;
            await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
            {
                await foreach (string _ in generator.GenerateAsync(prompt, null, stop.Token))
                    if (++seen == pieces)
                        await stop.CancelAsync();
            });
            Assert.Equal(pieces, seen);
            Assert.Equal(before, (ledger.LiveBytes, ledger.LiveBuffers));
            Assert.Null(generator.LastStatistics);
        }
        Assert.Equal(Psalm, await Text(generator, prompt));
        Assert.Equal(before, (ledger.LiveBytes, ledger.LiveBuffers));
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public async Task Cancelling_after_any_of_64_tokens_stops_at_once_and_keeps_nothing(TestDevice device)
    {
        const int Most = 64;
        using TemporaryFolder folder = ModelThatDoesNotStop();
        using LanguageModel model = LanguageModel.Load(devices.Open(device), folder.Path, null, CancellationToken.None);
        int[] prompt = Prompt(model, "Psalm 23:1");
        // No token twice: a text without end, nearly every token of which is a piece.
        var options = new GenerationOptions { MaxTokens = 2 * Most, Sampling = new SamplingOptions { RepetitionPenalty = 1e6f } };
        AllocationLedger ledger = devices.Open(device).Ledger;
        var without = (ledger.LiveBytes, ledger.LiveBuffers);
        using (var generator = new TextGenerator(model, prompt.Length + (2 * Most)))
        {
            var before = (ledger.LiveBytes, ledger.LiveBuffers);
            // The prompt is kept by the first answer, and only its last token runs again before the others, as a product of one row: the last bits of its
            // state are others, and among unlikely tokens they may decide. So what the others are compared with is a second answer.
            Assert.True(await generator.GenerateAsync(prompt, options, CancellationToken.None).CountAsync(CancellationToken.None) > Most);
            List<string> whole = await generator.GenerateAsync(prompt, options, CancellationToken.None).ToListAsync(CancellationToken.None);
            Assert.True(whole.Count > Most, $"Only {whole.Count} pieces of text.");
            for (int pieces = 1; pieces <= Most; pieces += device == TestDevice.Cuda ? 1 : 9)
            {
                using var stop = new CancellationTokenSource();
                var seen = new List<string>();
                await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
                {
                    await foreach (string text in generator.GenerateAsync(prompt, options, stop.Token))
                    {
                        seen.Add(text);
                        if (seen.Count == pieces)
                            await stop.CancelAsync();
                    }
                });
                Assert.Equal(whole[..pieces], seen);
                Assert.Equal(before, (ledger.LiveBytes, ledger.LiveBuffers));
            }
        }
        Assert.Equal(without, (ledger.LiveBytes, ledger.LiveBuffers));
    }

    // The repository's model with another token, which it never says, as its end.
    private static TemporaryFolder ModelThatDoesNotStop()
    {
        var folder = new TemporaryFolder();
        foreach (string file in Directory.EnumerateFiles(RepositoryFolder.TinyModel))
            File.Copy(file, folder.File(Path.GetFileName(file)));
        foreach (string name in (string[])["config.json", "generation_config.json"])
        {
            JsonNode json = JsonNode.Parse(File.ReadAllText(folder.File(name)))!;
            json["eos_token_id"] = 2046;
            folder.Write(name, json.ToJsonString());
        }
        return folder;
    }

    private (TextGenerator Generator, int[] Prompt) Start(TestDevice device, int context, string question = "Psalm 23:1")
    {
        LanguageModel model = devices.Tiny(device);
        var generator = new TextGenerator(model, context);
        generators.Add(generator);
        return (generator, Prompt(model, question));
    }

    private static int[] Prompt(LanguageModel model, string question) =>
        [.. model.Chat.EncodeChat(model.Tokenizer, [new ChatMessage(ChatRole.User, question)])];

    private static async Task<string> Text(TextGenerator generator, int[] prompt, GenerationOptions? options = null) =>
        string.Concat(await generator.GenerateAsync(prompt, options, CancellationToken.None).ToListAsync(CancellationToken.None));
}
