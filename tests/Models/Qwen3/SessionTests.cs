using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Models.Qwen3;

/// <summary>A sequence's cache: what is appended, forgotten and continued.</summary>
[Collection(ModelDevices.Collection)]
public sealed class SessionTests(ModelDevices devices)
{
    private static readonly CheckpointShape Small = new() { Layers = 1 };

    public static TheoryData<TestDevice> Devices => ModelDevices.All;

    [Theory]
    [MemberData(nameof(Devices))]
    public void A_prompt_in_pieces_is_the_prompt_in_one(TestDevice device) => OnSmallModel(device, 100, session =>
    {
        int[] ids = ModelRun.RandomIds(70, Small.Vocabulary, 7);
        float[][] whole = ModelRun.Prefill(session, ids).Logits;
        session.Truncate(0);
        float[][] pieces = [.. new[] { ids[..1], ids[1..18], ids[18..40], ids[40..] }.SelectMany(part => ModelRun.Prefill(session, part).Logits)];
        Assert.Equal(ids, session.Tokens);
        Same(device, whole, pieces);
    });

    // On a card up to 64 tokens are routed in one launch (FusedLayerTests has that on the CPU) and more in several; all choose from what the adjuster leaves. What the first layer's experts add is in the second's keys.
    [Theory]
    [MemberData(nameof(Devices))]
    public void Experts_are_chosen_from_adjusted_logits(TestDevice device) => OnModel(device, Small with { Layers = 2 }, 100, session =>
    {
        foreach (int count in (int[])[20, 70])
        {
            int[] ids = ModelRun.RandomIds(count, Small.Vocabulary, 6);
            session.Truncate(0);
            session.Prefill(ids);
            float[] plain = Next();
            session.PrefillAdjusting(ids, (_, _, _) => false);
            Assert.Equal(plain, Next());
            session.PrefillAdjusting(ids, (layer, first, logits) =>
            {
                foreach (ref float logit in logits)
                    logit = -logit;
                return true;
            });
            Assert.NotEqual(plain, Next());
        }

        float[] Next() => ModelRun.Prefill(session, [5]).Logits[0];
    });

    [Theory]
    [MemberData(nameof(Devices))]
    public void A_truncated_session_continues_as_a_fresh_one(TestDevice device) => OnSmallModel(device, 100, session =>
    {
        int[] ids = ModelRun.RandomIds(40, Small.Vocabulary, 8), other = ModelRun.RandomIds(40, Small.Vocabulary, 9);
        float[][] first = ModelRun.Prefill(session, ids[..20]).Logits, fresh = ModelRun.Prefill(session, ids[20..]).Logits;
        session.Truncate(0);
        Same(TestDevice.Cpu, first, ModelRun.Prefill(session, ids[..20]).Logits);
        ModelRun.Prefill(session, other);
        session.Truncate(20);
        Assert.Equal(ids[..20], session.Tokens);
        Same(TestDevice.Cpu, fresh, ModelRun.Prefill(session, ids[20..]).Logits);
    });

    [Theory]
    [MemberData(nameof(Devices))]
    public void Decoded_tokens_are_those_of_a_longer_prompt(TestDevice device)
    {
        using var session = new Qwen3Session(devices.Tiny(device).Network, 128);
        int[] prompt = Verse(device, "Psalm 23:1"), decoded = ModelRun.Continue(session, prompt, 12);
        Assert.Equal(prompt.Length + 11, session.Tokens.Count);
        session.Truncate(0);
        Assert.Equal(decoded, ModelRun.Prefill(session, [.. prompt, .. decoded[..^1]]).Top1[(prompt.Length - 1)..]);
        Assert.Equal(decoded[^1], session.Next());
    }

    // On a card the decode steps are a replayed graph; a prefill of one token runs the same kernels directly.
    [Theory]
    [MemberData(nameof(Devices))]
    public void Replayed_steps_are_direct_steps(TestDevice device)
    {
        int count = device == TestDevice.Cuda ? 64 : 12;
        using var session = new Qwen3Session(devices.Tiny(device).Network, 128);
        int[] prompt = Verse(device, "John 1:1"), first = ModelRun.Continue(session, prompt, count);
        Assert.Equal(first, ModelRun.Continue(session, prompt, count));
        session.Truncate(0);
        int next = ModelRun.Prefill(session, prompt).Top1[^1];
        foreach (int id in first)
        {
            Assert.Equal(id, next);
            next = ModelRun.Prefill(session, [id]).Top1[0];
        }
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void Two_sessions_of_a_model_do_not_disturb_each_other(TestDevice device)
    {
        Qwen3Moe model = devices.Tiny(device).Network;
        using Qwen3Session one = new(model, 64), two = new(model, 48);
        int[] first = Verse(device, "Psalm 23:1"), second = Verse(device, "John 1:1");
        int[] expected = ModelRun.Continue(one, first, 8), others = ModelRun.Continue(one, second, 8);
        var drawn = (One: new List<int>(ModelRun.Continue(one, first, 1)), Two: new List<int>(ModelRun.Continue(two, second, 1)));
        for (int i = 1; i < 8; i++)
        {
            drawn.One.Add(one.Next());
            drawn.Two.Add(two.Next());
        }
        Assert.Equal(expected, drawn.One);
        Assert.Equal(others, drawn.Two);
    }

    [Fact]
    public void Mistakes_are_refused_and_change_nothing() => OnSmallModel(TestDevice.Cpu, 20, session =>
    {
        Assert.Contains("prefill", Assert.Throws<InvalidOperationException>(() => session.Next()).Message, StringComparison.Ordinal);
        int[] ids = ModelRun.RandomIds(12, Small.Vocabulary, 3);
        int expected = ModelRun.Continue(session, ids, 2)[1];
        ModelRun.Continue(session, ids, 1);
        string tooLong = Refused(session, new int[9]).Message;
        Assert.Contains("9 tokens", tooLong, StringComparison.Ordinal);
        Assert.Contains("20", tooLong, StringComparison.Ordinal);
        Assert.Contains("at least one", Refused(session, []).Message, StringComparison.Ordinal);
        Assert.Contains("96", Refused(session, [1, 96]).Message, StringComparison.Ordinal);
        Assert.Contains("-1", Refused(session, [-1]).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentOutOfRangeException>(() => session.Truncate(13));
        Assert.Throws<ArgumentOutOfRangeException>(() => session.Truncate(-1));
        Assert.Throws<ArgumentOutOfRangeException>(() => session.StartSampling(new SamplingOptions { TopP = 0 }, ids));
        Assert.Equal(ids, session.Tokens);
        Assert.Equal(expected, session.Next());
        for (int i = 1; i < 8; i++)
            session.Next();
        Assert.Equal(20, session.Tokens.Count);
        Assert.Contains("20", Assert.Throws<InvalidOperationException>(() => session.Next()).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentOutOfRangeException>(() => new Qwen3Session(session.Model, 0));
        Assert.Throws<ArgumentOutOfRangeException>(() => new Qwen3Session(session.Model, Small.MaxPositions + 1));
    });

    [Theory]
    [MemberData(nameof(Devices))]
    public void A_cancelled_prefill_keeps_the_parts_that_were_done(TestDevice device)
    {
        int part = device == TestDevice.Cuda ? 512 : 64;
        OnSmallModel(device, part + 40, session =>
        {
            int[] ids = ModelRun.RandomIds(part + 30, Small.Vocabulary, 5);
            float[][] whole = ModelRun.Prefill(session, ids).Logits;
            session.Truncate(0);
            using var stop = new CancellationTokenSource();
            Assert.Throws<OperationCanceledException>(() => session.PrefillWithLogits(ids, _ => stop.Cancel(), stop.Token));
            Assert.Equal(ids[..part], session.Tokens);
            Assert.Throws<InvalidOperationException>(() => session.Next());
            Same(TestDevice.Cpu, whole[part..], ModelRun.Prefill(session, ids[part..]).Logits);
        });
    }

    private void OnSmallModel(TestDevice device, int context, Action<Qwen3Session> test) => OnModel(device, Small, context, test);

    private void OnModel(TestDevice device, CheckpointShape shape, int context, Action<Qwen3Session> test)
    {
        GpuDevice open = devices.Open(device);
        using var checkpoint = new GeneratedCheckpoint(shape);
        using Qwen3Moe model = checkpoint.Load(open);
        using var session = new Qwen3Session(model, context);
        test(session);
    }

    private int[] Verse(TestDevice device, string name)
    {
        LanguageModel model = devices.Tiny(device);
        return [.. model.Chat.EncodeChat(model.Tokenizer, [new ChatMessage(ChatRole.User, name)])];
    }

    private static ArgumentException Refused(Qwen3Session session, int[] ids) => Assert.ThrowsAny<ArgumentException>(() => session.Prefill(ids, CancellationToken.None));

    // Few rows and many take other paths on a card, where bits may differ.
    private static void Same(TestDevice device, float[][] expected, float[][] actual)
    {
        if (device == TestDevice.Cuda)
            Compare.Close([.. actual.SelectMany(r => r)], [.. expected.SelectMany(r => r).Select(v => (double)v)], 2e-2);
        else
            Assert.Equal(expected.SelectMany(r => r), actual.SelectMany(r => r));
    }
}
