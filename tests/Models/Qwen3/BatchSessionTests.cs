using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Models.Qwen3;

/// <summary>Several sequences that draw their tokens together: as each would alone, and each on its own.</summary>
[Collection(ModelDevices.Collection)]
public sealed class BatchSessionTests(ModelDevices devices)
{
    private const int Context = 96;

    private static readonly CheckpointShape Small = new() { Layers = 2, DenseLayers = [1] };
    private static readonly string[] Verses = ["Psalm 23:1", "John 1:1", "Genesis 17:3", "Proverbs 6:15", "Psalm 122:1"];

    public static TheoryData<TestDevice> Devices => ModelDevices.All;

    public static TheoryData<TestDevice, int> Sizes => ModelDevices.With([1, 3, 5]);

    [Theory]
    [MemberData(nameof(Sizes))]
    public void A_batch_draws_what_single_sessions_draw(TestDevice device, int size)
    {
        Qwen3Moe model = devices.Tiny(device).Network;
        using var batch = new Qwen3BatchSession(model, size, Context);
        using var single = new Qwen3Session(model, Context);
        int[][] prompts = [.. Verses.Take(size).Select(v => Verse(device, v))];
        for (int s = 0; s < size; s++)
            batch.Prefill(s, prompts[s], TestContext.Current.CancellationToken);
        int[][] drawn = Draw(batch, 6);
        for (int s = 0; s < size; s++)
        {
            Assert.Equal(ModelRun.Continue(single, prompts[s], 6), drawn[s]);
            Assert.Equal([.. prompts[s], .. drawn[s][..^1]], batch.Tokens(s));
        }
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void Neighbours_do_not_change_a_bit(TestDevice device) => OnSmallModel(device, model =>
    {
        int[] ids = ModelRun.RandomIds(19, Small.Vocabulary, 1);
        using var alone = new Qwen3BatchSession(model, 1, 64);
        alone.Prefill(0, ids, TestContext.Current.CancellationToken);
        using var batch = new Qwen3BatchSession(model, 11, Context);
        batch.Prefill(9, ids, TestContext.Current.CancellationToken);
        var tokens = (Alone: new int[1], Batch: new int[11]);
        // Neighbours of all lengths come and go.
        for (int step = 0; step < 8; step++)
        {
            if (step > 0)
                batch.Prefill(step - 1, ModelRun.RandomIds(1 + (step * step), Small.Vocabulary, step), TestContext.Current.CancellationToken);
            if (step == 5)
                batch.Stop(1);
            if (step == 6)
                batch.Truncate(2, 3);
            alone.Next(tokens.Alone);
            batch.Next(tokens.Batch);
            Assert.Equal(tokens.Alone[0], tokens.Batch[9]);
            Assert.Equal(alone.LastLogits(0), batch.LastLogits(9));
            Assert.Equal(Qwen3BatchSession.NoToken, tokens.Batch[10]);
        }
    });

    [Theory]
    [MemberData(nameof(Devices))]
    public void A_sequence_starts_anew_while_the_others_go_on(TestDevice device) => OnSmallModel(device, model =>
    {
        int[][] prompts = [.. new[] { 5, 9, 30, 7 }.Select((n, i) => ModelRun.RandomIds(n, Small.Vocabulary, i))];
        using var batch = new Qwen3BatchSession(model, 3, Context);
        for (int s = 0; s < 3; s++)
            batch.Prefill(s, prompts[s], TestContext.Current.CancellationToken);
        int[][] first = Draw(batch, 3);
        batch.Truncate(1, 0);
        Assert.False(batch.IsRunning(1));
        int[][] second = Draw(batch, 2);
        Assert.All(second[1], t => Assert.Equal(Qwen3BatchSession.NoToken, t));
        Assert.Empty(batch.Tokens(1));
        batch.Prefill(1, prompts[3], TestContext.Current.CancellationToken);
        int[][] third = Draw(batch, 4);
        Assert.Equal(Alone(model, prompts[0], 9), first[0].Concat(second[0]).Concat(third[0]));
        Assert.Equal(Alone(model, prompts[1], 3), first[1]);
        Assert.Equal(Alone(model, prompts[2], 9), first[2].Concat(second[2]).Concat(third[2]));
        Assert.Equal(Alone(model, prompts[3], 4), third[1]);
        // A prompt that goes on from what the cache holds, its first part without a step.
        batch.Truncate(1, 0);
        batch.Prefill(1, prompts[3][..4], TestContext.Current.CancellationToken);
        batch.Prefill(1, prompts[3][4..], TestContext.Current.CancellationToken);
        Assert.Equal(prompts[3], batch.Tokens(1));
        Assert.Equal(third[1], Draw(batch, 4)[1]);
    });

    [Theory]
    [MemberData(nameof(Devices))]
    public void Each_sequence_is_sampled_by_its_own_options(TestDevice device) => OnSmallModel(device, model =>
    {
        int[] ids = ModelRun.RandomIds(12, Small.Vocabulary, 4);
        SamplingOptions warm = new() { Temperature = 1.5f, TopK = 20, Seed = 7 }, penalised = new() { RepetitionPenalty = 1.5f };
        SamplingOptions[] options = [SamplingOptions.Greedy, warm, warm with { Seed = 8 }, penalised];
        using var batch = new Qwen3BatchSession(model, options.Length, Context);
        for (int s = 0; s < options.Length; s++)
        {
            batch.StartSampling(s, options[s], ids);
            batch.Prefill(s, ids, TestContext.Current.CancellationToken);
        }
        int[][] drawn = Draw(batch, 3);
        // Random numbers count what the sequence draws, not the steps that others need.
        batch.Stop(1);
        _ = Draw(batch, 2);
        batch.Prefill(1, ids[..2], TestContext.Current.CancellationToken);
        drawn[1] = [.. drawn[1], .. Draw(batch, 2)[1]];
        for (int s = 0; s < options.Length; s++)
        {
            using var alone = new Qwen3BatchSession(model, 1, Context);
            alone.StartSampling(0, options[s], ids);
            alone.Prefill(0, ids, TestContext.Current.CancellationToken);
            int[] expected = Draw(alone, 3)[0];
            if (s == 1)
            {
                alone.Prefill(0, ids[..2], TestContext.Current.CancellationToken);
                expected = [.. expected, .. Draw(alone, 2)[0]];
            }
            Assert.Equal(expected, drawn[s]);
        }
        Assert.NotEqual(drawn[1][..3], drawn[2]);
        if (device == TestDevice.Cuda)
            return;
        // Where kernels are the same a single session draws the same.
        using var single = new Qwen3Session(model, Context);
        Assert.Equal(ModelRun.Continue(single, ids, 3, warm), drawn[1][..3]);
        Assert.Equal(ModelRun.Continue(single, ids, 3, penalised), drawn[3]);
    });

    [Theory]
    [MemberData(nameof(Devices))]
    public void The_end_of_one_context_stops_no_other(TestDevice device) => OnSmallModel(device, model =>
    {
        int[] full = ModelRun.RandomIds(30, Small.Vocabulary, 2), other = ModelRun.RandomIds(3, Small.Vocabulary, 3);
        using var batch = new Qwen3BatchSession(model, 2, 32);
        batch.Prefill(0, full, TestContext.Current.CancellationToken);
        batch.Prefill(1, other, TestContext.Current.CancellationToken);
        int[][] drawn = Draw(batch, 3);
        Assert.True(batch.IsFull(0));
        string message = Assert.Throws<InvalidOperationException>(() => Draw(batch, 1)).Message;
        Assert.Contains("sequence 0", message, StringComparison.Ordinal);
        Assert.Contains("32", message, StringComparison.Ordinal);
        batch.Stop(0);
        int[][] more = Draw(batch, 3);
        Assert.Equal(Alone(model, full, 3, 32), drawn[0]);
        Assert.Equal(Alone(model, other, 6), drawn[1].Concat(more[1]));
    });

    [Fact]
    public void Mistakes_are_refused_and_change_nothing() => OnSmallModel(TestDevice.Cpu, model =>
    {
        using var batch = new Qwen3BatchSession(model, 2, 20);
        int[] ids = ModelRun.RandomIds(12, Small.Vocabulary, 3);
        Assert.Contains("prefill", Assert.Throws<InvalidOperationException>(() => Draw(batch, 1)).Message, StringComparison.Ordinal);
        Assert.Contains("0 to 1", Assert.Throws<ArgumentOutOfRangeException>(() => batch.Prefill(2, ids, CancellationToken.None)).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentOutOfRangeException>(() => batch.Stop(-1));
        batch.Prefill(0, ids, TestContext.Current.CancellationToken);
        int[] first = Draw(batch, 1)[0];
        string tooLong = Assert.Throws<ArgumentException>(() => batch.Prefill(0, new int[9], CancellationToken.None)).Message;
        Assert.Contains("9 tokens", tooLong, StringComparison.Ordinal);
        Assert.Contains("12 are used", tooLong, StringComparison.Ordinal);
        Assert.Contains("at least one", Assert.Throws<ArgumentException>(() => batch.Prefill(0, [], CancellationToken.None)).Message, StringComparison.Ordinal);
        Assert.Contains("96", Assert.Throws<ArgumentException>(() => batch.Prefill(0, [1, 96], CancellationToken.None)).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentOutOfRangeException>(() => batch.Truncate(0, 13));
        Assert.Throws<ArgumentOutOfRangeException>(() => batch.StartSampling(0, new SamplingOptions { TopP = 0 }, ids));
        Assert.Contains("3 places", Assert.Throws<ArgumentException>(() => batch.Next(new int[3])).Message, StringComparison.Ordinal);
        Assert.Equal(Alone(model, ids, 3, 20), first.Concat(Draw(batch, 2)[0]));
        Assert.Throws<ArgumentOutOfRangeException>(() => new Qwen3BatchSession(model, 0, 20));
        Assert.Throws<ArgumentOutOfRangeException>(() => new Qwen3BatchSession(model, 17, 20));
        Assert.Throws<ArgumentOutOfRangeException>(() => new Qwen3BatchSession(model, 1, Small.MaxPositions + 1));
    });

    [Theory]
    [MemberData(nameof(Devices))]
    public void A_cancelled_prefill_keeps_its_parts_and_disposing_returns_all(TestDevice device) => OnSmallModel(device, model =>
    {
        AllocationLedger ledger = model.Device.Ledger;
        (long, long) before = (ledger.LiveBytes, ledger.LiveBuffers);
        using (var batch = new Qwen3BatchSession(model, 2, Context))
        {
            batch.Prefill(0, [1, 2, 3], TestContext.Current.CancellationToken);
            int[] ids = ModelRun.RandomIds(9, Small.Vocabulary, 5), first = Draw(batch, 2)[0];
            Assert.Throws<OperationCanceledException>(() => batch.Prefill(1, ids, new CancellationToken(canceled: true)));
            Assert.Empty(batch.Tokens(1));
            Assert.False(batch.IsRunning(1));
            Assert.Equal(Alone(model, [1, 2, 3], 4), first.Concat(Draw(batch, 2)[0]));
            batch.Prefill(1, ids, TestContext.Current.CancellationToken);
            Assert.Equal(Alone(model, ids, 2), Draw(batch, 2)[1]);
        }
        Assert.Equal(before, (ledger.LiveBytes, ledger.LiveBuffers));
    });

    [Fact]
    public void A_replayed_step_allocates_nothing() => OnSmallModel(TestDevice.Cuda, model =>
    {
        using var batch = new Qwen3BatchSession(model, 4, 400);
        for (int s = 0; s < 3; s++)
            batch.Prefill(s, [1, 2 + s], TestContext.Current.CancellationToken);
        var tokens = new int[4];
        batch.Next(tokens);
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < 300; i++)
            batch.Next(tokens);
        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
    });

    // In a graph launches overlap and a step is queued ahead; random weights forget nothing: one wrong bit changes the tokens that follow.
    [Theory]
    [InlineData(3)]
    [InlineData(16)]
    public void Sequences_of_a_models_width_draw_as_alone(int size)
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cuda);
        Qwen3MoeConfig config = KnownConfigs.Get("qwen3-30b-a3b") with { Layers = 4, Experts = 32, VocabSize = 4096, EosTokenIds = [] };
        using Qwen3Moe model = Qwen3Moe.Synthesize(device, config, 5);
        using var batch = new Qwen3BatchSession(model, size, 5000);
        int[][] prompts = [.. Enumerable.Range(0, size).Select(s => ModelRun.RandomIds(s == 1 ? 4300 : 1 + (37 * s), config.VocabSize, s))];
        for (int s = 0; s < size; s++)
            batch.Prefill(s, prompts[s], TestContext.Current.CancellationToken);
        int[][] drawn = Draw(batch, 40);
        foreach (int s in new[] { 0, 1, 2, size - 1 })
            Assert.Equal(Alone(model, prompts[s], 40, prompts[s].Length + 50), drawn[s]);
    }

    private void OnSmallModel(TestDevice device, Action<Qwen3Moe> test)
    {
        GpuDevice open = devices.Open(device);
        using var checkpoint = new GeneratedCheckpoint(Small);
        using Qwen3Moe model = checkpoint.Load(open);
        test(model);
    }

    private int[] Verse(TestDevice device, string name)
    {
        LanguageModel model = devices.Tiny(device);
        return [.. model.Chat.EncodeChat(model.Tokenizer, [new ChatMessage(ChatRole.User, name)])];
    }

    private static int[] Alone(Qwen3Moe model, int[] ids, int count, int context = Context)
    {
        using var alone = new Qwen3BatchSession(model, 1, context);
        alone.Prefill(0, ids);
        return Draw(alone, count)[0];
    }

    // [sequence][step]
    private static int[][] Draw(Qwen3BatchSession batch, int count)
    {
        var steps = new List<int[]>();
        for (int i = 0; i < count; i++)
        {
            steps.Add(new int[batch.Sequences]);
            batch.Next(steps[i]);
        }
        return [.. Enumerable.Range(0, batch.Sequences).Select(s => steps.Select(step => step[s]).ToArray())];
    }
}
