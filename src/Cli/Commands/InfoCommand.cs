using System.CommandLine;
using System.Globalization;
using Spectre.Console;

namespace GpuKit.Ilgpu.Cli.Commands;

/// <summary><c>gpukit info</c>: devices, limits, driver, and what <c>--device auto</c> takes.</summary>
internal static class InfoCommand
{
    /// <summary>One device. Limits are null when it cannot be opened.</summary>
    private sealed record DeviceResult(string Kind, int Ordinal, string Name)
    {
        public string? ComputeCapability { get; init; }
        public string? PtxTarget { get; init; }
        public long MemoryBytes { get; init; }
        public int Multiprocessors { get; init; }
        public int? WarpSize { get; init; }
        public int? MaxThreadsPerBlock { get; init; }
        public int? MaxSharedBytesPerBlock { get; init; }
        public long? L2Bytes { get; init; }

        /// <summary>Why it cannot be used, or null.</summary>
        public string? Problem { get; init; }
    }

    private sealed record InfoResult(string? CudaDriver, string? CudaUnavailable, string AutoTakes, string AutoReason, IReadOnlyList<DeviceResult> Devices);

    public static Command Create()
    {
        Option<bool> json = JsonOutput.CreateOption();
        var command = new Command("info", "Lists the devices, their limits and the driver, and says what is used.") { json };
        command.SetAction(parse => Run(parse.GetValue(json)));
        return command;
    }

    private static int Run(bool json)
    {
        string? unavailable = DeviceCatalog.CudaUnavailable(), notTheCard = DeviceCatalog.AutoTakesCpu();
        List<DeviceResult> devices = [.. DeviceCatalog.CudaDevices.Select(Describe)];
        using (GpuDevice cpu = GpuDevice.Open(DeviceKind.Cpu))
            devices.Add(Describe("cpu", cpu));
        var result = new InfoResult(
            DeviceCatalog.DriverVersion?.ToString(), unavailable, notTheCard is null ? "cuda 0" : "cpu", notTheCard ?? "there is a card", devices);
        if (json)
            JsonOutput.WriteLine(result);
        else
            WriteTables(result);
        return ExitCodes.Ok;
    }

    private static DeviceResult Describe(CudaDeviceInfo card)
    {
        try
        {
            using GpuDevice device = GpuDevice.Open(DeviceKind.Cuda, card.Ordinal);
            return Describe("cuda", device);
        }
        catch (GpuException e)
        {
            return new DeviceResult("cuda", card.Ordinal, card.Name)
            {
                ComputeCapability = card.ComputeCapability.ToString(),
                MemoryBytes = card.MemoryBytes,
                Multiprocessors = card.MultiprocessorCount,
                Problem = e.Message,
            };
        }
    }

    private static DeviceResult Describe(string kind, GpuDevice device) => new(kind, device.Ordinal, device.Name)
    {
        ComputeCapability = device.ComputeCapability?.ToString(),
        PtxTarget = device.Target?.ToString(),
        MemoryBytes = device.MemoryBytes,
        Multiprocessors = device.MultiprocessorCount,
        WarpSize = device.WarpSize,
        MaxThreadsPerBlock = device.MaxThreadsPerBlock,
        MaxSharedBytesPerBlock = device.MaxSharedBytesPerBlock,
        L2Bytes = device.L2Bytes,
    };

    private static void WriteTables(InfoResult info)
    {
        var table = new Table { Border = TableBorder.Simple };
        table.AddColumns("device", "name", "capability", "PTX target", "memory", "SMs", "warp", "threads/block", "shared/block", "L2");
        foreach (DeviceResult d in info.Devices)
        {
            table.AddRow([.. ((string?[])[
                d.Kind == "cpu" ? "cpu" : $"cuda {d.Ordinal}", d.Problem is null ? d.Name : $"{d.Name}: {d.Problem}", d.ComputeCapability, d.PtxTarget,
                Size(d.MemoryBytes), d.Multiprocessors.ToString(CultureInfo.InvariantCulture), Number(d.WarpSize), Number(d.MaxThreadsPerBlock),
                Size(d.MaxSharedBytesPerBlock), Size(d.L2Bytes)]).Select(cell => new Text(cell ?? "–"))]);
        }
        IAnsiConsole console = ResultTable.Console();
        console.Write(table);
        Console.Out.WriteLine($"driver: {(info.CudaDriver is null ? "none" : "CUDA " + info.CudaDriver)}");
        Console.Out.WriteLine($"auto:   {info.AutoTakes}, since {info.AutoReason}");
    }

    private static string? Number(int? value) => value?.ToString(CultureInfo.InvariantCulture);

    private static string? Size(long? bytes) => bytes switch
    {
        null or 0 => null,
        >= 1L << 30 => string.Create(CultureInfo.InvariantCulture, $"{bytes / (double)(1L << 30):F1} GiB"),
        >= 1L << 20 => string.Create(CultureInfo.InvariantCulture, $"{bytes / (double)(1L << 20):F1} MiB"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1024.0:F1} KiB"),
    };
}
