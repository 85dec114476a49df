using GpuKit.Ilgpu.Tests.Support;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Runtime;

public sealed class DeviceTests
{
    [Fact]
    public void AutoTakesTheCardWhenThereIsOneAndSaysSo()
    {
        using GpuDevice device = GpuDevice.Open();
        Assert.Equal(DeviceCatalog.AutoTakesCpu() is null, device.IsCuda);
        Assert.Contains(device.IsCuda ? "CUDA" : "CPU", device.Choice, StringComparison.Ordinal);
        Assert.Equal(device.IsCuda, device.ComputeCapability is not null);
    }

    [Fact]
    public void TheCpuDeviceForUseHasTwoLanesAndTheOneForCheckingThirtyTwo()
    {
        using GpuDevice use = GpuDevice.Open(DeviceKind.Cpu), check = GpuDevice.OpenCpuForChecking(2);
        Assert.Equal((2, 2, 0), (use.WarpSize, use.MaxThreadsPerBlock, use.Ordinal));
        Assert.Equal((32, 64), (check.WarpSize, check.MaxThreadsPerBlock));
        Assert.Throws<ArgumentOutOfRangeException>(() => GpuDevice.OpenCpuForChecking(0));
    }

    [Fact]
    public void AMissingCardIsAFaultThatSaysWhy()
    {
        int ordinal = DeviceCatalog.CudaDevices.Count;
        var e = Assert.Throws<GpuException>(() => GpuDevice.Open(DeviceKind.Cuda, ordinal));
        Assert.Equal(GpuFault.NoDevice, e.Fault);
        Assert.Throws<ArgumentOutOfRangeException>(() => GpuDevice.Open(DeviceKind.Cuda, -1));
    }

    [Fact]
    public void AClosedDeviceRefusesWorkAndClosesOnce()
    {
        GpuDevice device = GpuDevice.Open(DeviceKind.Cpu);
        DeviceBuffer<int> buffer = device.Allocate<int>(4);
        device.Dispose();
        device.Dispose();
        Assert.Throws<ObjectDisposedException>(() => device.Allocate<int>(1));
        Assert.Throws<ObjectDisposedException>(device.CreateStream);
        buffer.Dispose();
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void BuffersCopyWhatTheyAreGivenAndNoMore(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        using DeviceBuffer<int> buffer = device.Upload<int>([1, 2, 3, 4, 5]);
        GpuStream stream = device.DefaultStream;
        buffer.CopyFrom(stream, [20, 30], 1);
        Assert.Equal([1, 20, 30, 4, 5], buffer.ToArray(stream));
        var part = new int[2];
        buffer.CopyTo(stream, part, 3);
        Assert.Equal([4, 5], part);
        Assert.Throws<ArgumentException>(() => buffer.CopyFrom(stream, [1, 2], 4));
        Assert.Throws<ArgumentException>(() => buffer.CopyTo(stream, new int[6]));
        Assert.Throws<ArgumentException>(() => buffer.CopyTo(stream, new int[1], -1));
        buffer.Fill(stream, 0xFF);
        Assert.Equal(new[] { -1, -1, -1, -1, -1 }, buffer.ToArray(stream));
        using DeviceBuffer<int> empty = device.Allocate<int>(0);
        Assert.Empty(empty.ToArray(stream));
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void PinnedMemoryCopiesBothWays(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        using GpuStream stream = device.CreateStream();
        using PinnedBuffer<float> host = device.AllocatePinned<float>(3), back = device.AllocatePinned<float>(3);
        using DeviceBuffer<float> buffer = device.Allocate<float>(3);
        new float[] { 1, 2, 3 }.CopyTo(host.Span);
        buffer.CopyFromPinned(stream, host, 3);
        buffer.CopyToPinned(stream, back);
        stream.Synchronize();
        Assert.Equal([1, 2, 3], back.Span.ToArray());
        host.Dispose();
        Assert.Throws<ObjectDisposedException>(() => host.Span.Length);
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void TheLedgerCountsEveryBuffer(TestDevice which)
    {
        using GpuDevice device = OpenAnother(which);
        AllocationLedger ledger = device.Ledger;
        DeviceBuffer<byte> first = device.Allocate<byte>(100);
        DeviceBuffer<double> second = device.Allocate<double>(16);
        Assert.Equal((2, 112 + 128), (ledger.LiveBuffers, ledger.LiveBytes));
        first.Dispose();
        first.Dispose();
        second.Dispose();
        Assert.Equal((0, 0, 240, 2), (ledger.LiveBuffers, ledger.LiveBytes, ledger.PeakBytes, ledger.TotalAllocations));
        Assert.Throws<ObjectDisposedException>(() => first.View);
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void OutOfMemoryLeavesTheDeviceUsable(TestDevice which)
    {
        using GpuDevice device = OpenAnother(which);
        long before = device.Ledger.LiveBytes;
        var e = Assert.Throws<GpuException>(() => device.Allocate<byte>(1L << 60));
        Assert.Equal(GpuFault.OutOfMemory, e.Fault);
        Assert.Contains("1,152,921,504,606,846,976", e.Message, StringComparison.Ordinal);
        Assert.Equal(before, device.Ledger.LiveBytes);
        using DeviceBuffer<int> buffer = device.Upload<int>([7]);
        Assert.Equal([7], buffer.ToArray(device.DefaultStream));
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void EventsMeasureAndOrderWork(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        using GpuStream first = device.CreateStream(), second = device.CreateStream();
        using GpuEvent start = device.CreateEvent(), end = device.CreateEvent();
        using DeviceBuffer<byte> buffer = device.Allocate<byte>(1 << 20);
        start.Record(first);
        buffer.Fill(first, 1);
        end.Record(first);
        second.WaitFor(end);
        var part = new byte[16];
        buffer.CopyTo(second, part, 1000);
        Assert.All(part, b => Assert.Equal(1, b));
        end.Synchronize();
        Assert.InRange(end.MillisecondsSince(start), 0, 10_000);
    }

    // A device of the test's own: other tests allocate on the shared ones meanwhile.
    internal static GpuDevice OpenAnother(TestDevice which)
    {
        _ = TestDevices.Get(which);
        return TestDevices.Open(which, warps: 1);
    }
}
