using System.Text.Json;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Cli;

/// <summary><c>gpukit quantize</c> and <c>gpukit error</c> as processes.</summary>
public sealed class QuantizeAndErrorCommandTests
{
    [Theory]
    [MemberData(nameof(GpukitProcess.Devices), MemberType = typeof(GpukitProcess))]
    public async Task What_is_quantised_generates(string device)
    {
        GpukitProcess.RequireDevice(device);
        using var folder = new TemporaryFolder();
        GpukitProcess.Result result = await GpukitProcess.RunAsync("quantize", "--format", "nvfp4", "--out", folder.File("out"), "--json", "--device", device);
        using JsonDocument json = JsonDocument.Parse(result.AssertOk());
        Assert.Equal(208, json.RootElement.GetProperty("converted").GetInt32());
        Assert.True(json.RootElement.GetProperty("second_quantization").GetBoolean());
        Assert.Contains("second quantisation", result.Error, StringComparison.Ordinal);
        Assert.Equal("The LORD is my shepherd; I shall not want.\n", (await GpukitProcess.RunAsync("generate", "Psalm 23:1", "--model", folder.File("out"), "--device", device)).AssertOk());
        (await GpukitProcess.RunAsync("quantize", "--format", "int4", "--out", folder.File("out"), "--device", device)).AssertFailed(2, "out", "not empty");
    }

    [Fact]
    public async Task Errors_are_appended_as_records()
    {
        using var folder = new TemporaryFolder();
        string[] arguments = ["error", "--formats", "fp8,int4", "--shapes", "64x32", "--out", folder.Path, "--device", "cpu"];
        using JsonDocument json = JsonDocument.Parse((await GpukitProcess.RunAsync([.. arguments, "--json"])).AssertOk());
        Assert.Equal(28, json.RootElement.GetProperty("records").GetArrayLength());
        Assert.Contains("student-t4", (await GpukitProcess.RunAsync(arguments)).AssertOk(), StringComparison.Ordinal);
        string[] lines = await File.ReadAllLinesAsync(folder.File("error-cpu.jsonl"), TestContext.Current.CancellationToken);
        Assert.Equal(56, lines.Length);
        using JsonDocument record = JsonDocument.Parse(lines[0]);
        Assert.Equal("error", record.RootElement.GetProperty("bench").GetString());
        Assert.Equal(("fp8", "bf16", "float32", "gaussian"), (Text(record, "format"), Text(record, "activation"), Text(record, "accumulator"), Text(record, "distribution")));
        Assert.InRange(record.RootElement.GetProperty("rel_error_unquantised").GetDouble(), 0.01, 0.05);
        static string? Text(JsonDocument document, string key) => document.RootElement.GetProperty(key).GetString();
    }

    [Theory]
    [InlineData("--format", "quantize", "--format", "q4_0", "--out", "x")]
    [InlineData("--out", "quantize", "--format", "fp8")]
    [InlineData("--shapes", "error", "--shapes", "64")]
    [InlineData("--formats", "error", "--formats", "fp8,int3")]
    [InlineData("--model", "error", "--take", "3")]
    public async Task A_wrong_command_line_is_exit_code_2(string word, params string[] arguments) =>
        (await GpukitProcess.RunAsync(arguments)).AssertFailed(2, word);

    [Fact]
    public async Task A_missing_model_is_exit_code_1() =>
        (await GpukitProcess.RunAsync("quantize", "--model", "nowhere", "--format", "fp8", "--out", "x", "--device", "cpu")).AssertFailed(1, "nowhere");
}
