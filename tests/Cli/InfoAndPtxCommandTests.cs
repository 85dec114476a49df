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
    public async Task Ptx_writes_the_kernels_of_an_architecture()
    {
        // All of them take a minute and more; PtxGateTests compiles them.
        const string Part = "attention";
        using var folder = new TemporaryFolder();
        GpukitProcess.Result result = await GpukitProcess.RunAsync("ptx", "--arch", "sm_90a", "--kernel", Part, "--out", folder.File("texts"), "--json");
        using JsonDocument json = JsonDocument.Parse(result.AssertOk());
        string[] names = [.. KernelCatalog.For(PtxTarget.Parse("sm_90a")).Select(k => k.Name).Where(n => n.Contains(Part, StringComparison.OrdinalIgnoreCase))];
        Assert.True(names.Length >= 5, $"{names.Length} kernels");
        Assert.Equal(names.Length, json.RootElement.GetProperty("count").GetInt32());
        Assert.Equal(names.Order(StringComparer.Ordinal), json.RootElement.GetProperty("kernels").EnumerateArray().Select(k => k.GetProperty("name").GetString()!).Order(StringComparer.Ordinal));
        Assert.Equal(
            json.RootElement.GetProperty("kernels").EnumerateArray().Select(k => k.GetProperty("file").GetString()!).Order(StringComparer.Ordinal),
            Directory.GetFiles(folder.File("texts")).Select(f => Path.GetFileName(f)).Order(StringComparer.Ordinal));
        Assert.All(Directory.GetFiles(folder.File("texts")), f => Assert.Contains(".target sm_90a", File.ReadAllText(f), StringComparison.Ordinal));
    }

    [Fact]
    public async Task Kernels_that_do_not_exist_are_refused_by_name()
    {
        using var folder = new TemporaryFolder();
        (await GpukitProcess.RunAsync("ptx", "--arch", "sm_90a", "--kernel", "NoSuchKernel", "--out", folder.File("texts"))).AssertFailed(2, "NoSuchKernel");
        Assert.False(Directory.Exists(folder.File("texts")));
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
