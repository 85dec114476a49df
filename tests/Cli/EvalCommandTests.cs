using System.Text.Json;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Cli;

/// <summary><c>gpukit eval</c> as a process.</summary>
public sealed class EvalCommandTests
{
    [Theory]
    [MemberData(nameof(GpukitProcess.Devices), MemberType = typeof(GpukitProcess))]
    public async Task The_model_passes_against_its_reference_without_a_tokenizer(string device)
    {
        GpukitProcess.RequireDevice(device);
        using var folder = new TemporaryFolder();
        foreach (string name in (string[])["config.json", "generation_config.json", "model.safetensors"])
            File.Copy(Path.Combine(RepositoryFolder.TinyModel, name), folder.File(name));
        GpukitProcess.Result result = await GpukitProcess.RunAsync(
            "eval", "--model", folder.Path, "--reference", GpukitProcess.Reference, "--json", "--device", device);
        using JsonDocument json = JsonDocument.Parse(result.AssertOk());
        Assert.True(json.RootElement.GetProperty("passed").GetBoolean());
        JsonElement[] prompts = [.. json.RootElement.GetProperty("prompts").EnumerateArray()];
        Assert.Equal([0, 1, 2, 3, 4, 6], prompts.Select(p => p.GetProperty("prompt").GetInt32()));
        Assert.Equal([1, 7, 16, 17, 60, 13], prompts.Select(p => p.GetProperty("tokens").GetInt32()));
        Assert.All(prompts, p => Assert.InRange(p.GetProperty("cosine").GetDouble(), 0.9995, 1.000001));
        Assert.All(prompts, p => Assert.InRange(p.GetProperty("router_agreement").GetDouble(), 0.95, 1));
        Assert.Equal(4, prompts.Count(p => p.GetProperty("greedy").ValueKind == JsonValueKind.Object && p.GetProperty("greedy").GetProperty("matches").GetBoolean()));
    }

    [Fact]
    public async Task A_missed_bar_is_exit_code_1_with_the_table_and_the_reasons()
    {
        GpukitProcess.Result result = await GpukitProcess.RunAsync("eval", "--dequantize", "--reference", GpukitProcess.Reference, "--min-cosine", "1.1", "--device", "cpu");
        Assert.Equal(1, result.ExitCode);
        Assert.Contains("same (26 tokens)", result.Out, StringComparison.Ordinal);
        Assert.Contains("missed: least cosine 0.999", result.Out, StringComparison.Ordinal);
        Assert.Equal(6, result.Error.Split('\n').Count(line => line.StartsWith("missed: prompt", StringComparison.Ordinal)));
    }

    [Theory]
    [InlineData("bf16")]
    [InlineData("fp8")]
    public async Task Verses_are_counted(string cache)
    {
        GpukitProcess.Result result = await GpukitProcess.RunAsync("eval", "--verses", GpukitProcess.Verses, "--take", "2", "--device", "cpu", "--kv-cache", cache);
        Assert.Equal("2 of 2 answers are exact\n", result.AssertOk());
    }

    [Fact]
    public async Task A_reference_of_another_model_is_refused()
    {
        GpukitProcess.Result result = await GpukitProcess.RunAsync(
            "eval", "--reference", Path.Combine(RepositoryFolder.TinyModel, "model.safetensors"), "--device", "cpu");
        result.AssertFailed(1, "model.safetensors", "tensor '");
    }
}
