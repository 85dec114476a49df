using System.Text.Json;
using GpuKit.Ilgpu.Cli.Commands;
using GpuKit.Ilgpu.Runtime.Ptx;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Cli;

/// <summary><c>gpukit info</c> and <c>gpukit ptx</c> as processes.</summary>
public sealed class InfoAndPtxCommandTests
{
    [Fact]
    public async Task Info_lists_every_device_and_what_auto_takes()
    {
        using JsonDocument json = JsonDocument.Parse((await GpukitProcess.RunAsync("info", "--json")).AssertOk());
        JsonElement[] devices = [.. json.RootElement.GetProperty("devices").EnumerateArray()];
        Assert.Equal(DeviceCatalog.CudaDevices.Count + 1, devices.Length);
        Assert.Equal("cpu", devices[^1].GetProperty("kind").GetString());
        Assert.All(devices, d => Assert.True(d.GetProperty("memory_bytes").GetInt64() > 0));
        Assert.StartsWith(DeviceCatalog.AutoTakesCpu() is null ? "cuda" : "cpu", json.RootElement.GetProperty("auto_takes").GetString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Info_says_in_words_what_auto_takes() =>
        Assert.Contains("\nauto:   ", (await GpukitProcess.RunAsync("info")).AssertOk(), StringComparison.Ordinal);

    [Fact]
    public async Task Ptx_writes_every_kernel_of_an_architecture()
    {
        using var folder = new TemporaryFolder();
        GpukitProcess.Result result = await GpukitProcess.RunAsync("ptx", "--arch", "sm_90a", "--out", folder.File("texts"), "--json");
        using JsonDocument json = JsonDocument.Parse(result.AssertOk());
        int count = KernelCatalog.For(PtxTarget.Parse("sm_90a")).Count();
        Assert.Equal(count, json.RootElement.GetProperty("count").GetInt32());
        Assert.Equal(
            json.RootElement.GetProperty("kernels").EnumerateArray().Select(k => k.GetProperty("file").GetString()!).Order(StringComparer.Ordinal),
            Directory.GetFiles(folder.File("texts")).Select(f => Path.GetFileName(f)).Order(StringComparer.Ordinal));
        Assert.All(Directory.GetFiles(folder.File("texts")), f => Assert.Contains(".target sm_90a", File.ReadAllText(f), StringComparison.Ordinal));
    }

    [Fact]
    public void File_names_are_safe_and_distinct()
    {
        var taken = new HashSet<string>(StringComparer.OrdinalIgnoreCase);
        Assert.Equal("Gemv.Run-Fp8Block-Table-Vector.ptx", PtxCommand.FileName("Gemv.Run<Fp8Block<Table>,Vector>", taken));
        Assert.Equal("Gemv.Run-Fp8Block-Table-Vector-2.ptx", PtxCommand.FileName("Gemv.Run<Fp8Block,Table,Vector>", taken));
        Assert.Equal("gemv.run-3.ptx", PtxCommand.FileName("gemv.run<3>", taken));
    }
}
