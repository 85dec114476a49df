using System.Diagnostics;
using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Runtime;

/// <summary>
/// A kernel that reads where nothing is: the driver gives the process's context up, so it happens in a child process.
/// </summary>
public sealed class DeviceLostTests
{
    private const string ChildVariable = "GPUKIT_TEST_LOSES_DEVICE";

    internal struct Args
    {
        public ArrayView<int> Values;
        public long Index;
    }

    // The index comes from the host, so nobody can know that it is 64 GiB outside.
    internal static void ReadOutside(Args a) => a.Values[0] = a.Values[a.Index];

    internal static void Increment(Args a) => a.Values[0] += 1;

    private static readonly KernelDefinition<Args> Faulty = new(ReadOutside, new KernelTraits(32));
    private static readonly KernelDefinition<Args> Harmless = new(Increment, new KernelTraits(32));

    [Fact]
    public async Task A_fault_marks_the_device_lost_and_names_the_last_launches()
    {
        _ = TestDevices.Get(TestDevice.Cuda);
        string own = typeof(DeviceLostTests).Assembly.Location;
        string host = Path.ChangeExtension(own, OperatingSystem.IsWindows() ? ".exe" : null);
        var start = new ProcessStartInfo(File.Exists(host) ? host : "dotnet") { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (string argument in (string[])[.. File.Exists(host) ? [] : (string[])[own], "-method", $"*{nameof(DeviceLostTests)}.{nameof(Child_loses_its_device)}", "-noColor"])
            start.ArgumentList.Add(argument);
        start.Environment[ChildVariable] = "1";
        using Process child = Process.Start(start)!;
        Task<string> output = child.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        _ = child.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        await child.WaitForExitAsync(TestContext.Current.CancellationToken);
        Assert.True(child.ExitCode == 0, await output);
    }

    [Fact]
    public void Child_loses_its_device()
    {
        if (Environment.GetEnvironmentVariable(ChildVariable) != "1")
            return;
        GpuDevice device = TestDevices.Open(TestDevice.Cuda);
        using GpuStream stream = device.CreateStream();
        using GpuEvent unused = device.CreateEvent();
        using PinnedBuffer<int> pinned = device.AllocatePinned<int>(1);
        using DeviceBuffer<int> values = device.Upload<int>([1]);
        using var sampler = new SamplerState(device, 4);
        using var matrix = new QuantizedMatrix(device, WeightFormat.Bf16, 16, 16);
        device.Launch(Harmless, stream, (1, 1, 1), 1, 0, new Args { Values = values });
        using GpuGraph graph = GpuGraph.Capture(stream, () => device.Launch(Harmless, stream, (1, 1, 1), 1, 0, new Args { Values = values }));
        // Memory of the stream, and of a graph.
        _ = stream.Scratch;
        using GpuGraph splitting = GpuGraph.Capture(stream, () => _ = stream.Scratch);
        device.Launch(Faulty, stream, (1, 1, 1), 1, 0, new Args { Values = values, Index = 1L << 34 });

        var first = Assert.Throws<GpuException>(stream.Synchronize);

        Assert.Equal(GpuFault.DeviceLost, first.Fault);
        Assert.True(device.IsLost);
        int faulty = first.Message.IndexOf("DeviceLostTests.ReadOutside grid 1×1×1, 1 threads", StringComparison.Ordinal);
        int harmless = first.Message.IndexOf("DeviceLostTests.Increment", StringComparison.Ordinal);
        Assert.True(faulty >= 0 && harmless > faulty, first.Message);
        Action[] all =
        [
            () => device.Allocate<int>(1), () => device.Upload<int>([1]), () => device.AllocatePinned<int>(1), () => device.CreateStream(), () => device.CreateEvent(),
            device.Synchronize, stream.Synchronize, () => stream.WaitFor(unused), () => unused.Record(stream), unused.Synchronize,
            () => values.ToArray(stream), () => values.CopyFrom(stream, [1]), () => values.CopyToPinned(stream, pinned), () => values.CopyFromPinned(stream, pinned, 1), () => values.Fill(stream, 0),
            () => DeviceCounter.Advance(stream, values, 1), () => device.Launch(Harmless, stream, (1, 1, 1), 1, 0, new Args { Values = values }),
            () => GpuGraph.Capture(stream, () => { }), () => graph.Replay(stream), () => splitting.Replay(stream), () => _ = stream.Scratch, () => _ = new SamplerState(device, 4),
        ];
        foreach (Action later in all)
        {
            var e = Assert.Throws<GpuException>(later);
            Assert.Equal(GpuFault.DeviceLost, e.Fault);
            // Lost once: every later fault tells of the first.
            Assert.EndsWith(first.Message, e.Message, StringComparison.Ordinal);
        }
        foreach (IDisposable held in (IDisposable[])[graph, splitting, sampler, matrix, values, pinned, unused, stream, device])
            held.Dispose();
        Assert.True(device.IsLost);
        Assert.Equal((0, 0, 0), (device.Ledger.LiveBytes, device.Ledger.LiveBuffers, device.Ledger.ScratchBytes));
    }
}
