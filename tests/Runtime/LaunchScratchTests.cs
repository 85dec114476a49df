using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Runtime;

/// <summary>The memory through which blocks add parts of sums: whose it is, when it comes and goes, and what happens when there is none.</summary>
public sealed class LaunchScratchTests
{
    public static TheoryData<TestDevice> Devices => [.. TestDevices.Chosen.Where(d => d != TestDevice.Cpu)];

    [Theory]
    [MemberData(nameof(Devices))]
    public void AStreamHoldsItFromItsFirstSplitProductToItsEnd(TestDevice which)
    {
        using GpuDevice device = Open(which);
        using (var product = new SplitProduct(device))
        {
            (long, long) live = (device.Ledger.LiveBytes, device.Ledger.LiveBuffers);
            using (GpuStream first = device.CreateStream(), second = device.CreateStream())
            {
                Assert.Equal(0, device.Ledger.ScratchBytes);
                product.Launch(first);
                product.Launch(first);
                Assert.Equal(Bytes(device), device.Ledger.ScratchBytes);
                Assert.Equal(product.Expected, product.Result(first));
                Assert.All(first.Scratch.Counters.ToArray(first), count => Assert.Equal(0, count));
                product.Launch(second);
                Assert.Equal(product.Expected, product.Result(second));
                Assert.Equal(2 * Bytes(device), device.Ledger.ScratchBytes);
            }
            Assert.Equal((0, live), (device.Ledger.ScratchBytes, (device.Ledger.LiveBytes, device.Ledger.LiveBuffers)));
            product.Launch(device.DefaultStream);
            device.DefaultStream.Synchronize();
            Assert.Equal(Bytes(device), device.Ledger.ScratchBytes);
        }
        device.Dispose();
        Assert.Equal(0, device.Ledger.ScratchBytes);
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void WithoutMemoryAProductIsRefusedAndLaterIsNot(TestDevice which)
    {
        using GpuDevice device = Open(which);
        using var product = new SplitProduct(device);
        using GpuStream stream = device.CreateStream();
        // Sums and counters.
        for (int allocations = 0; allocations < 2; allocations++)
        {
            GpuException refused = GuardingAllocator.Of(device).Refusing(allocations, () => product.Launch(stream));
            Assert.Equal((GpuFault.OutOfMemory, 0), (refused.Fault, device.Ledger.ScratchBytes));
        }
        product.Launch(stream);
        Assert.Equal(product.Expected, product.Result(stream));
        stream.Dispose();
        Assert.Throws<ObjectDisposedException>(() => product.Launch(stream));
        Assert.Equal(0, device.Ledger.ScratchBytes);
    }

    [Theory]
    [MemberData(nameof(Devices))]
    public void ItGoesWithTheDeviceWhateverIsDisposedLater(TestDevice which)
    {
        GpuDevice device = Open(which);
        GpuStream stream = device.CreateStream();
        _ = stream.Scratch;
        GpuGraph? graph = device.IsCuda ? GpuGraph.Capture(stream, () => _ = stream.Scratch) : null;
        device.Dispose();
        stream.Dispose();
        graph?.Dispose();
        Assert.Equal(0, device.Ledger.ScratchBytes);
    }

    private static GpuDevice Open(TestDevice which)
    {
        _ = TestDevices.Get(which);
        // Kernels of up to 16 warps.
        return TestDevices.Open(which, warps: 16);
    }

    /// <summary>What one scratch takes: places and counters of blocks, and a line for the word of <c>ArrangeInputs</c>.</summary>
    internal static long Bytes(GpuDevice device) => (LaunchScratch.BlocksOf(device.MultiprocessorCount) * (long)(LaunchScratch.BlockBytes + sizeof(int))) + 128;
}
