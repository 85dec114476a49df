using System.Text.Json;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Cli;

/// <summary><c>gpukit generate</c> and <c>gpukit chat</c> as processes.</summary>
public sealed class GenerateCommandTests
{
    private const string Prompt = "Psalm 23:1";
    private const string Answer = "The LORD is my shepherd; I shall not want.";

    [Theory]
    [MemberData(nameof(GpukitProcess.Devices), MemberType = typeof(GpukitProcess))]
    public async Task The_answer_alone_goes_to_stdout(string device)
    {
        GpukitProcess.RequireDevice(device);
        GpukitProcess.Result result = await GpukitProcess.RunAsync("generate", Prompt, "--device", device);
        Assert.Equal(Answer + "\n", result.AssertOk());
        Assert.Contains("tokens/s", result.Error, StringComparison.Ordinal);
        Assert.Contains("loaded in", result.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_prompt_from_stdin_is_answered_as_JSON_from_any_folder()
    {
        using var elsewhere = new TemporaryFolder();
        GpukitProcess.Result result = await GpukitProcess.RunWithInputAsync(Prompt + "\n", elsewhere.Path, "generate", "-", "--json", "--device", "cpu");
        using JsonDocument json = JsonDocument.Parse(Assert.Single(result.AssertOk().TrimEnd('\n').Split('\n')));
        Assert.Equal(Answer, json.RootElement.GetProperty("text").GetString());
        Assert.Equal("stop", json.RootElement.GetProperty("finish_reason").GetString());
        Assert.Equal("tiny-moe-fp8", json.RootElement.GetProperty("model").GetString());
        Assert.True(json.RootElement.GetProperty("generated_tokens").GetInt32() > 1);
        Assert.True(json.RootElement.GetProperty("decode_tokens_per_second").GetDouble() > 0);
        Assert.Equal(JsonValueKind.Null, json.RootElement.GetProperty("seed").ValueKind);
    }

    [Fact]
    public async Task Options_reach_the_generation()
    {
        GpukitProcess.Result stopped = await GpukitProcess.RunAsync(
            "generate", Prompt, "--device", "cpu", "--stop", "nowhere", "--stop", " shepherd", "--temperature", "0.01", "--top-k", "20", "--seed", "7");
        Assert.Equal("The LORD is my\n", stopped.AssertOk());
        Assert.Contains("seed 7", stopped.Error, StringComparison.Ordinal);

        GpukitProcess.Result raw = await GpukitProcess.RunAsync(
            "generate", $"<|im_start|>user\n{Prompt}<|im_end|>\n<|im_start|>assistant\n", "--raw", "--max-tokens", "3", "--device", "cpu");
        Assert.StartsWith(raw.AssertOk().TrimEnd('\n'), Answer, StringComparison.Ordinal);
        Assert.Contains("--max-tokens", raw.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_chat_answers_each_line_of_a_redirected_input()
    {
        string turns = $"{Prompt}\n/clear\n{Prompt}\n/quit\nnot read\n";
        GpukitProcess.Result result = await GpukitProcess.RunWithInputAsync(turns, null, "chat", "--device", "cpu", "--temperature", "0");
        Assert.Equal($"{Answer}\n{Answer}\n", result.AssertOk());
        Assert.DoesNotContain("> ", result.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_chat_computes_only_new_tokens_and_samples_as_the_checkpoint_asks()
    {
        GpukitProcess.Result result = await GpukitProcess.RunWithInputAsync($"{Prompt}\nJohn 3:16\n", null, "chat", "--json", "--device", "cpu");
        string[] lines = result.AssertOk().TrimEnd('\n').Split('\n');
        Assert.Equal(2, lines.Length);
        using JsonDocument first = JsonDocument.Parse(lines[0]), second = JsonDocument.Parse(lines[1]);
        Assert.Equal(0, first.RootElement.GetProperty("cached_tokens").GetInt32());
        Assert.True(second.RootElement.GetProperty("cached_tokens").GetInt32() >= first.RootElement.GetProperty("prompt_tokens").GetInt32());
        Assert.Equal(JsonValueKind.Number, first.RootElement.GetProperty("seed").ValueKind);
    }

    [Fact]
    public async Task A_chat_goes_on_after_a_question_that_does_not_fit()
    {
        GpukitProcess.Result result = await GpukitProcess.RunWithInputAsync(
            $"{new string('x', 400)}\n{Prompt}\n", null, "chat", "--device", "cpu", "--temperature", "0", "--context", "64");
        Assert.Equal((1, Answer + "\n"), (result.ExitCode, result.Out));
        Assert.Contains("error: The conversation has", result.Error, StringComparison.Ordinal);
    }
}
