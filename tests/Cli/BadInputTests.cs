using System.Text.Json.Nodes;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Cli;

/// <summary>Whatever is wrong: one clear line on stderr, exit code 1 or 2, no stack trace.</summary>
public sealed class BadInputTests
{
    public static TheoryData<string[], string> WrongCommandLines => new()
    {
        { [], "command" },
        { ["sing"], "'sing'" },
        { ["generate"], "PROMPT" },
        { ["generate", "x", "--unknown"], "'--unknown'" },
        { ["generate", "--unknown", "x"], "'--unknown'" },
        { ["generate", "x", "--max-tokens", "many"], "--max-tokens" },
        { ["generate", "x", "--temperature", "-1"], "Temperature" },
        { ["generate", "x", "--device", "tpu"], "--device" },
        { ["generate", "x", "--stop", ""], "--stop" },
        { ["generate", "x", "--raw", "--system", "y"], "--raw" },
        { ["chat", "--top-p", "0"], "TopP" },
        { ["eval"], "--reference" },
        { ["eval", "--reference", "a", "--verses", "b"], "--verses" },
        { ["eval", "--reference", "a", "--take", "2"], "--take" },
        { ["eval", "--verses", "a", "--path", "batch"], "--path" },
        { ["eval", "--reference", "a", "--path", "graph"], "--path" },
        { ["generate", "a", "--kv-cache", "fp16"], "--kv-cache" },
        { ["ptx", "--arch", "sm_70", "--out", "x"], "sm_90a" },
    };

    [Theory]
    [MemberData(nameof(WrongCommandLines))]
    public async Task A_wrong_command_line_is_exit_code_2(string[] arguments, string word) =>
        (await GpukitProcess.RunAsync(arguments)).AssertFailed(2, word);

    [Fact]
    public async Task A_prompt_longer_than_the_context_is_refused() =>
        (await GpukitProcess.RunAsync("generate", "Psalm 23:1 and more", "--context", "4", "--device", "cpu")).AssertFailed(2, "the context holds 4");

    [Theory]
    [InlineData(100_000, "tokens at least; the context holds 2048")]
    [InlineData(5_000_000, "more than 4000000 characters")]
    public async Task A_prompt_far_too_long_is_refused_before_it_is_tokenised(int length, string reason) =>
        (await GpukitProcess.RunWithInputAsync(new string('x', length), null, "generate", "-", "--device", "cpu")).AssertFailed(2, reason);

    [Fact]
    public async Task A_missing_folder_is_named()
    {
        using var folder = new TemporaryFolder();
        (await GpukitProcess.RunAsync("generate", "x", "--model", folder.File("nowhere"), "--device", "cpu")).AssertFailed(1, "nowhere", "does not exist");
    }

    [Fact]
    public async Task A_missing_file_is_named() =>
        (await GpukitProcess.RunAsync("eval", "--reference", "nowhere.safetensors", "--device", "cpu")).AssertFailed(1, "nowhere.safetensors", "not found");

    [Fact]
    public async Task A_truncated_file_of_weights_is_refused()
    {
        using TemporaryFolder folder = CopyOfModel();
        using (FileStream file = File.OpenWrite(folder.File("model.safetensors")))
            file.SetLength(file.Length / 2);
        (await GpukitProcess.RunAsync("generate", "x", "--model", folder.Path, "--device", "cpu")).AssertFailed(1, "model.safetensors");
    }

    [Fact]
    public async Task A_scale_of_the_wrong_shape_is_named()
    {
        const string Scale = "model.layers.1.self_attn.q_proj.weight_scale_inv";
        using TemporaryFolder folder = CopyOfModel();
        using (SafetensorsFile file = SafetensorsFile.Open(Path.Combine(RepositoryFolder.TinyModel, "model.safetensors")))
        {
            SafetensorsWriter.Write(folder.File("model.safetensors"), [.. file.Tensors.Values.Select(t =>
            {
                long[] shape = [.. t.Shape];
                return t.Name == Scale ? (t.Name, t.Type, [shape[0] * shape[1], 1], file.Bytes(t).ToArray()) : (t.Name, t.Type, shape, file.Bytes(t).ToArray());
            })]);
        }
        (await GpukitProcess.RunAsync("generate", "x", "--model", folder.Path, "--device", "cpu")).AssertFailed(1, "model.layers.1.self_attn.q_proj.weight", "[8, 1]", "[4, 2]");
    }

    [Fact]
    public async Task An_unknown_tokenizer_pattern_is_refused()
    {
        using TemporaryFolder folder = CopyOfModel();
        JsonNode tokenizer = JsonNode.Parse(await File.ReadAllTextAsync(folder.File("tokenizer.json"), TestContext.Current.CancellationToken))!;
        tokenizer["pre_tokenizer"]!["pretokenizers"]![0]!["pattern"]!["Regex"] = "(a+)+$";
        folder.Write("tokenizer.json", tokenizer.ToJsonString());
        (await GpukitProcess.RunAsync("generate", "x", "--model", folder.Path, "--device", "cpu")).AssertFailed(1, "tokenizer.json", "pattern.Regex");
    }

    [Fact]
    public async Task Asking_for_a_card_where_there_is_none_says_so()
    {
        Assert.SkipUnless(DeviceCatalog.CudaUnavailable() is not null, "There is a CUDA device.");
        (await GpukitProcess.RunAsync("generate", "x", "--device", "cuda")).AssertFailed(1, "CUDA");
    }

    [Theory]
    [InlineData("")]
    [InlineData("--raw")]
    public async Task An_empty_prompt_is_a_usage_error(string flag) =>
        (await GpukitProcess.RunAsync(flag.Length == 0 ? ["generate", "", "--device", "cpu"] : ["generate", "", "--device", "cpu", flag])).AssertFailed(2, "prompt is empty");

    [Fact]
    public async Task Ctrl_C_ends_the_work_cleanly()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "Windows has no signals to send.");
        // Only a byte that no verse has ends this text (token 255): it rambles for two thousand tokens unless it is stopped.
        using TemporaryFolder folder = CopyOfModel();
        foreach (string name in new[] { "config.json", "generation_config.json" })
        {
            JsonNode config = JsonNode.Parse(await File.ReadAllTextAsync(folder.File(name), TestContext.Current.CancellationToken))!;
            config["eos_token_id"] = 255;
            folder.Write(name, config.ToJsonString());
        }
        GpukitProcess.Result result = await GpukitProcess.InterruptAsync(
            "generate", "x", "--model", folder.Path, "--temperature", "0", "--max-tokens", "2000", "--device", "cpu");
        Assert.Equal(1, result.ExitCode);
        result.AssertOneErrorLine("cancelled");
    }

    private static TemporaryFolder CopyOfModel()
    {
        var folder = new TemporaryFolder();
        foreach (string name in (string[])["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
            File.Copy(Path.Combine(RepositoryFolder.TinyModel, name), folder.File(name));
        return folder;
    }
}
