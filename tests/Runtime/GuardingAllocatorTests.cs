using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;
using ILGPU.Runtime;
using Xunit.Sdk;

namespace GpuKit.Ilgpu.Tests.Runtime;

/// <summary>The memory that all tests use finds what it is there to find.</summary>
public sealed class GuardingAllocatorTests
{
    internal struct Args
    {
        public ArrayView<float> Source;
        public ArrayView<float> Target;
        public int From;
        public int To;
    }

    internal static void Copy(Args a) => a.Target[a.To] = a.Source[a.From];

    // Elements of a guard band.
    private const int Margin = 1024;

    private static readonly KernelDefinition<Args> CopyKernel = new(Copy, new KernelTraits(32));

    [Theory]
    [CombinatorialDevices(5, "byte 20 of a DeviceBuffer<Single> of 5 elements (20 bytes) is 0x00")]
    [CombinatorialDevices(-1, "byte -4 of a DeviceBuffer<Single> of 5 elements (20 bytes) is 0x00")]
    [CombinatorialDevices(1023, "byte 4092 of")]
    public void AnElementWrittenOutsideIsFound(TestDevice which, int element, string says)
    {
        GpuDevice device = TestDevices.Get(which);
        using DeviceBuffer<float> source = device.Upload<float>([0]);
        DeviceBuffer<float> target = device.Upload<float>([1, 2, 3, 4, 5]);
        Run(device, source, target, 0, element);
        Assert.Contains(says, Assert.Throws<XunitException>(target.Dispose).Message, StringComparison.Ordinal);
    }

    [Theory]
    [CombinatorialDevices(3)]
    [CombinatorialDevices(1000)]
    [CombinatorialDevices(-1)]
    [CombinatorialDevices(-1024)]
    public void AnElementReadOutsideIsNotANumber(TestDevice which, int element)
    {
        GpuDevice device = TestDevices.Get(which);
        using DeviceBuffer<float> source = device.Upload<float>([1, 2, 3]), target = device.Upload<float>([0]);
        Run(device, source, target, element, 0);
        Assert.Equal([float.NaN], target.ToArray(device.DefaultStream));
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void UnwrittenMemoryIsNotANumberInAnyFormat(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        using DeviceBuffer<float> floats = device.Allocate<float>(9);
        using DeviceBuffer<BFloat16> halves = device.Allocate<BFloat16>(9);
        using DeviceBuffer<byte> codes = device.Allocate<byte>(9);
        Assert.All(floats.ToArray(device.DefaultStream), v => Assert.True(float.IsNaN(v)));
        Assert.All(halves.ToArray(device.DefaultStream), v => Assert.True(float.IsNaN((float)v)));
        Assert.All(codes.ToArray(device.DefaultStream), v => Assert.Equal(0xFF, v));
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void BuffersAreAsAlignedAsWithoutBands(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        using DeviceBuffer<Triple> odd = device.Allocate<Triple>(7);
        using DeviceBuffer<byte> bytes = device.Allocate<byte>(7);
        // A card's blocks start on 256 bytes, the CPU's on 16.
        int alignment = device.IsCuda ? 256 : 16;
        Assert.Equal((0, 0), (Shape.Address(odd.View) % alignment, Shape.Address(bytes.View) % alignment));
        odd.CopyFrom(device.DefaultStream, [new Triple(1, 2, 3)], 6);
        Assert.Equal(new Triple(1, 2, 3), odd.ToArray(device.DefaultStream)[6]);
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void ABufferThatATestKeepsIsFound(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        string own = TestContext.Current.Test!.UniqueID;
        DeviceBuffer<int> kept = device.Allocate<int>(3), shared = GuardingAllocator.Shared(() => device.Allocate<int>(4));
        Assert.Contains("DeviceBuffer<Int32> of 3 elements", Assert.Throws<XunitException>(() => AllMemoryReturned.Check(test => test == own)).Message, StringComparison.Ordinal);
        kept.Dispose();
        AllMemoryReturned.Check(test => test == own);
        shared.Dispose();
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void ANumberWrittenOutsideAStreamsScratchMemoryIsFoundWhileItIsHeld(TestDevice which)
    {
        _ = TestDevices.Get(which);
        // Not one of those that are looked at after every test: this one fails.
        using GpuDevice device = GuardingAllocator.Guard(GpuDevice.Open(which == TestDevice.Cuda ? DeviceKind.Cuda : DeviceKind.Cpu));
        using DeviceBuffer<float> source = device.Upload<float>([0]);
        GpuStream stream = device.CreateStream();
        DeviceBuffer<uint> own = stream.Scratch.Partials;
        Assert.Empty(GuardingAllocator.Of(device).DamagedScratch(device));
        device.Launch(CopyKernel, device.DefaultStream, (1, 1, 1), 1, 0, new Args { Source = source.View, Target = Around(own.View), From = 0, To = (int)(Margin + own.Length) });
        device.DefaultStream.Synchronize();
        string says = $"byte {own.Bytes} of a DeviceBuffer<UInt32>";
        Assert.Contains(says, Assert.Single(GuardingAllocator.Of(device).DamagedScratch(device)), StringComparison.Ordinal);
        Assert.Contains(says, Assert.Throws<XunitException>(stream.Dispose).Message, StringComparison.Ordinal);
    }

    private static void Run(GpuDevice device, DeviceBuffer<float> source, DeviceBuffer<float> target, int from, int to)
    {
        device.Launch(CopyKernel, device.DefaultStream, (1, 1, 1), 1, 0, new Args { Source = Around(source.View), Target = Around(target.View), From = Margin + from, To = Margin + to });
        device.DefaultStream.Synchronize();
    }

    // More than the buffer: a card checks no view, and a wrong index ends up here.
    private static ArrayView<float> Around(IContiguousArrayView view) =>
        new(view.Buffer, (view.IndexInBytes / sizeof(float)) - Margin, view.Length + (2 * Margin));

    internal readonly record struct Triple(float A, float B, float C);
}
