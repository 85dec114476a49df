using System.Text.Json;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Cli;

/// <summary><c>gpukit synth</c> as a process.</summary>
public sealed class SynthCommandTests
{
    [Fact]
    public async Task Writes_a_checkpoint_in_a_given_shape()
    {
        using var folder = new TemporaryFolder();
        string config = Path.Combine(RepositoryFolder.TinyModel, "config.json");
        string[] arguments = ["synth", "--config", config, "--layers", "1", "--seed", "3", "--device", "cpu", "--json"];
        using JsonDocument made = JsonDocument.Parse((await GpukitProcess.RunAsync(arguments)).AssertOk());
        using JsonDocument written = JsonDocument.Parse((await GpukitProcess.RunAsync([.. arguments, "--out", folder.File("out")])).AssertOk());
        Assert.InRange(written.RootElement.GetProperty("bytes").GetInt64(), 1_000_000, made.RootElement.GetProperty("bytes").GetInt64());
        Assert.True(File.Exists(Path.Combine(folder.File("out"), "model.safetensors")));
        (await GpukitProcess.RunAsync("synth", "--config", config, "--out", folder.File("out"))).AssertFailed(2, "out", "not empty");
        (await GpukitProcess.RunAsync("synth", "--config", config, "--like", "qwen3-30b-a3b")).AssertFailed(2, "--like or --config");
        (await GpukitProcess.RunAsync("synth", "--like", "nothing")).AssertFailed(2, "nothing", "qwen3-30b-a3b");
    }
}
