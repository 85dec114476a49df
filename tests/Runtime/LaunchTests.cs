using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;
using ILGPU.Runtime;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Runtime;

public sealed class LaunchTests
{
    internal struct Args
    {
        public ArrayView<int> Values;
        public int Count;
    }

    // Reverses through dynamic shared memory: every element travels across the whole buffer.
    internal static void Reverse(Args a)
    {
        ArrayView<int> shared = SharedMemory.GetDynamic<byte>().Cast<int>();
        for (int i = Group.IdxX; i < a.Count; i += Group.DimX)
            shared[i] = a.Values[i];
        // All values are in shared memory before any is read back.
        Group.Barrier();
        for (int i = Group.IdxX; i < a.Count; i += Group.DimX)
            a.Values[i] = shared[a.Count - 1 - i];
    }

    internal static void Increment(Args a)
    {
        for (int i = (Grid.IdxX * Group.DimX) + Group.IdxX; i < a.Count; i += Grid.DimX * Group.DimX)
            a.Values[i] += 1;
    }

    private static readonly KernelDefinition<Args> ReverseKernel = new(Reverse, new KernelTraits(256));
    private static readonly KernelDefinition<Args> IncrementKernel = new(Increment, new KernelTraits(256));

    [Theory]
    [CombinatorialDevices(1_000)]
    [CombinatorialDevices(40_000)]
    public void DynamicSharedMemoryGoesBeyondTheDefaultLimit(TestDevice which, int count)
    {
        GpuDevice device = TestDevices.Get(which);
        if (4 * count > device.MaxSharedBytesPerBlock)
        {
            Assert.False(device.IsCuda);
            return;
        }
        using GuardedBuffer<int> buffer = GuardedBuffer<int>.Input(device, Enumerable.Range(0, count).ToArray());
        device.Launch(ReverseKernel, device.DefaultStream, (1, 1, 1), LaunchThreads(device), 4 * count, new Args { Values = buffer.View, Count = count });
        Assert.Equal(Enumerable.Range(0, count).Reverse(), buffer.ToArray());
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void SixteenThreadsThatWantAKernelCompileItOnce(TestDevice which)
    {
        using GpuDevice device = DeviceTests.OpenAnother(which);
        using DeviceBuffer<int> values = device.Upload<int>(new int[64]);
        var args = new Args { Values = values, Count = 64 };
        Parallel.For(0, 16, new ParallelOptions { MaxDegreeOfParallelism = 16 }, _ => device.Launch(IncrementKernel, device.DefaultStream, (2, 1, 1), 2, 0, args));
        Assert.Equal(1, device.Kernels.CompiledCount);
        Assert.All(values.ToArray(device.DefaultStream), v => Assert.Equal(16, v));
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void LaunchesAreLoggedNewestFirst(TestDevice which)
    {
        using GpuDevice device = DeviceTests.OpenAnother(which);
        using DeviceBuffer<int> values = device.Upload<int>([0, 0]);
        device.Launch(ReverseKernel, device.DefaultStream, (1, 1, 1), 2, 8, new Args { Values = values, Count = 2 });
        device.Launch(IncrementKernel, device.DefaultStream, (3, 1, 1), 2, 0, new Args { Values = values, Count = 2 });
        long count = device.Log.Count;
        device.Launch(IncrementKernel, device.DefaultStream, (0, 1, 1), 2, 0, new Args { Values = values, Count = 2 });
        Assert.Equal(count, device.Log.Count);
        string text = device.Log.Describe();
        Assert.Contains("LaunchTests.Increment grid 3×1×1, 2 threads", text, StringComparison.Ordinal);
    }

    [Fact]
    public void AStreamOfAnotherDeviceIsRefused()
    {
        using GpuDevice device = TestDevices.Open(TestDevice.Cpu), other = TestDevices.Open(TestDevice.Cpu);
        using DeviceBuffer<int> values = device.Upload<int>([1]);
        Assert.Throws<ArgumentException>(() => device.Launch(IncrementKernel, other.DefaultStream, (1, 1, 1), 1, 0, new Args { Values = values, Count = 1 }));
        Assert.Throws<ArgumentException>(() => values.CopyFrom(other.DefaultStream, [2]));
    }

    [Fact]
    public void GraphsReplayWhatWasRecorded()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cuda);
        using GpuStream stream = device.CreateStream();
        using DeviceBuffer<int> values = device.Upload<int>(new int[100]);
        var args = new Args { Values = values, Count = 100 };
        void Record()
        {
            for (int i = 0; i < 5; i++)
                device.Launch(IncrementKernel, stream, (1, 1, 1), 128, 0, args);
        }
        Record();
        stream.Synchronize();
        using GpuGraph graph = GpuGraph.Capture(stream, Record);
        Assert.Equal(5, graph.Nodes);
        Assert.Equal(5, values.ToArray(stream)[99]);
        for (int i = 0; i < 10; i++)
            graph.Replay(stream);
        Assert.All(values.ToArray(stream), v => Assert.Equal(55, v));
        // A failing sequence leaves the stream usable.
        Assert.Throws<InvalidOperationException>(() => GpuGraph.Capture(stream, () => throw new InvalidOperationException()));
        Record();
        Assert.Equal(60, values.ToArray(stream)[0]);
        Assert.Throws<ArgumentException>(() => GpuGraph.Capture(device.DefaultStream, Record));
    }

    [Fact]
    public void TheCpuDeviceHasNoGraphsAndSaysSo()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        using GpuStream stream = device.CreateStream();
        Assert.Equal(GpuFault.NotSupported, Assert.Throws<GpuException>(() => GpuGraph.Capture(stream, () => { })).Fault);
    }

    [Fact]
    public void ALaunchOnACardAllocatesNothing()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cuda);
        using GpuStream stream = device.CreateStream();
        using var weights = new QuantizedMatrix(device, WeightFormat.Fp8Block, 64, 128);
        using DeviceBuffer<BFloat16> x = device.Allocate<BFloat16>(128), y = device.Allocate<BFloat16>(64);
        Linear.Multiply(stream, weights, x, y, 1);
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < 1000; i++)
            Linear.Multiply(stream, weights, x, y, 1);
        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
        stream.Synchronize();
    }

    private static int LaunchThreads(GpuDevice device) => Math.Min(256, device.MaxThreadsPerBlock);
}
