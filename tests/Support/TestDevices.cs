using System.Collections.Concurrent;

namespace GpuKit.Ilgpu.Tests.Support;

/// <summary>The devices an operator test runs on.</summary>
public enum TestDevice
{
    /// <summary>The CPU device meant for use: 2-lane warps.</summary>
    Cpu,

    /// <summary>The CPU device meant for checking: 32-lane warps, four of them.</summary>
    CpuWarp32,

    /// <summary>The first card.</summary>
    Cuda,
}

/// <summary>Opens each device once for the whole run.</summary>
public static class TestDevices
{
    /// <summary>Set to 1 on a machine with a card: a missing device then fails the run instead of skipping.</summary>
    public const string RequireCudaVariable = "GPUKIT_REQUIRE_CUDA";

    /// <summary>Names of devices, with commas between them: tests that run on a device then run on these only.</summary>
    public const string DevicesVariable = "GPUKIT_TEST_DEVICES";

    private static readonly ConcurrentBag<GpuDevice> Every = [];
    private static readonly Lazy<GpuDevice> Cpu = new(() => Open(TestDevice.Cpu));
    private static readonly Lazy<GpuDevice> CpuWarp32 = new(() => Open(TestDevice.CpuWarp32));
    private static readonly Lazy<GpuDevice> Cuda = new(() => Open(TestDevice.Cuda));

    /// <summary>The devices of this run: all, or those that <see cref="DevicesVariable"/> names.</summary>
    public static IReadOnlyList<TestDevice> Chosen { get; } = Environment.GetEnvironmentVariable(DevicesVariable) is { Length: > 0 } names
        ? [.. names.Split(',').Select(Enum.Parse<TestDevice>)]
        : Enum.GetValues<TestDevice>();

    /// <summary>Theory data: all devices.</summary>
    public static TheoryData<TestDevice> All => [.. Chosen];

    /// <summary>The device; skips the test when it is not one of this run's, or when it is a card and there is none.</summary>
    public static GpuDevice Get(TestDevice device)
    {
        Assert.SkipUnless(Chosen.Contains(device), $"{device} is not among the devices that {DevicesVariable} names.");
        if (device == TestDevice.Cuda && DeviceCatalog.CudaUnavailable() is { } reason)
        {
            Assert.SkipWhen(Environment.GetEnvironmentVariable(RequireCudaVariable) != "1", "No CUDA device: " + reason);
            Assert.Fail("This run requires a CUDA device: " + reason);
        }
        return (device switch { TestDevice.Cpu => Cpu, TestDevice.CpuWarp32 => CpuWarp32, _ => Cuda }).Value;
    }

    /// <summary>Another device of the kind, whose ledger counts nothing of other tests. Its buffers are guarded, too.</summary>
    /// <param name="device">Which; a card must be there.</param>
    /// <param name="warps">Warps a block of a CPU device for checking.</param>
    public static GpuDevice Open(TestDevice device, int warps = 4)
    {
        GpuDevice open = GuardingAllocator.Guard(device switch
        {
            TestDevice.Cuda => GpuDevice.Open(DeviceKind.Cuda),
            TestDevice.Cpu => GpuDevice.Open(DeviceKind.Cpu),
            _ => GpuDevice.OpenCpuForChecking(warps),
        });
        Every.Add(open);
        return open;
    }

    /// <summary>All devices that tests have opened and not closed.</summary>
    internal static IEnumerable<GpuDevice> Opened => Every.Where(device => !device.IsClosed);
}
