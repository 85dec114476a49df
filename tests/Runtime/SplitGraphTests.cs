using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Runtime;

/// <summary>Graphs whose launches add parts of sums through scratch memory. The CPU device has no graphs.</summary>
public sealed class SplitGraphTests
{
    private const int Repeats = 200;

    // Its ledger counts nothing of other tests.
    private static readonly Lazy<GpuDevice> Own = new(() => TestDevices.Open(TestDevice.Cuda));

    // The kernel of every card, and Hopper's from 33 rows.
    [Theory]
    [InlineData(32)]
    [InlineData(64)]
    public void AReplayRunsBesideTheStreamItWasRecordedFrom(int rows)
    {
        GpuDevice device = Open();
        using SplitProduct recorded = new(device, rows, 1), direct = new(device, rows, 2);
        using GpuStream stream = device.CreateStream(), other = device.CreateStream();
        using GpuGraph graph = GpuGraph.Capture(stream, () => recorded.Launch(stream));
        Assert.Equal(LaunchScratchTests.Bytes(device), device.Ledger.ScratchBytes);
        for (int i = 0; i < Repeats; i++)
        {
            graph.Replay(other);
            direct.Launch(stream);
            graph.Replay(other);
            direct.Launch(stream);
            Assert.Equal(recorded.Expected, recorded.Result(other));
            Assert.Equal(direct.Expected, direct.Result(stream));
        }
        Assert.Equal(2 * LaunchScratchTests.Bytes(device), device.Ledger.ScratchBytes);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void StreamsThatJoinARecordingHaveTheirOwn(bool overlap)
    {
        GpuDevice device = Open();
        using SplitProduct before = new(device, 32, 4), first = new(device, 32, 1), second = new(device, 32, 2), after = new(device, 32, 5), direct = new(device, 32, 3);
        using GpuStream stream = device.CreateStream(), joined = device.CreateStream();
        using GpuEvent fork = device.CreateEvent(), join = device.CreateEvent();
        direct.Launch(joined);
        direct.Result(joined);
        // One launch, then two beside each other, then one again.
        using GpuGraph graph = GpuGraph.Capture(stream, () =>
        {
            before.Launch(stream);
            fork.Record(stream);
            joined.WaitFor(fork);
            first.Launch(stream);
            second.Launch(joined);
            join.Record(joined);
            stream.WaitFor(join);
            after.Launch(stream);
        }, overlap);
        Assert.Equal(3 * LaunchScratchTests.Bytes(device), device.Ledger.ScratchBytes);
        for (int i = 0; i < Repeats; i++)
        {
            graph.Replay(stream);
            direct.Launch(joined);
            Assert.Equal((first.Expected, second.Expected), (first.Result(stream), second.Result(stream)), ByValue);
            Assert.Equal((before.Expected, after.Expected), (before.Result(stream), after.Result(stream)), ByValue);
            Assert.Equal(direct.Expected, direct.Result(joined));
        }
    }

    [Fact]
    public void ARecordingWithinARecordingHasItsOwn()
    {
        GpuDevice device = Open();
        using SplitProduct outer = new(device, 32, 1), inner = new(device, 32, 2), last = new(device, 32, 3);
        using GpuStream stream = device.CreateStream(), other = device.CreateStream();
        GpuGraph? within = null;
        using GpuGraph graph = GpuGraph.Capture(stream, () =>
        {
            outer.Launch(stream);
            within = GpuGraph.Capture(other, () => inner.Launch(other));
            last.Launch(stream);
        });
        using GpuGraph held = within!;
        Assert.Equal(2 * LaunchScratchTests.Bytes(device), device.Ledger.ScratchBytes);
        for (int i = 0; i < Repeats; i++)
        {
            graph.Replay(stream);
            held.Replay(other);
            Assert.Equal((outer.Expected, last.Expected), (outer.Result(stream), last.Result(stream)), ByValue);
            Assert.Equal(inner.Expected, inner.Result(other));
        }
    }

    [Fact]
    public void AStreamThatIsNotRecordedMayBeginWhileItsThreadRecords()
    {
        GpuDevice device = Open();
        using SplitProduct recorded = new(device, 32, 1), direct = new(device, 32, 2);
        using GpuStream stream = device.CreateStream(), other = device.CreateStream();
        using GpuGraph graph = GpuGraph.Capture(stream, () =>
        {
            recorded.Launch(stream);
            direct.Launch(other);
        });
        Assert.Equal(1, graph.Nodes);
        Assert.Equal(direct.Expected, direct.Result(other));
        graph.Replay(stream);
        Assert.Equal(recorded.Expected, recorded.Result(stream));
    }

    [Fact]
    public void AGraphMayBeDisposedWhileItsThreadRecords()
    {
        GpuDevice device = Open();
        using var product = new SplitProduct(device, 32);
        using GpuStream stream = device.CreateStream(), other = device.CreateStream();
        GpuGraph old = GpuGraph.Capture(other, () => product.Launch(other));
        old.Replay(other);
        using GpuGraph graph = GpuGraph.Capture(stream, () =>
        {
            old.Dispose();
            product.Launch(stream);
        });
        Assert.Equal(LaunchScratchTests.Bytes(device), device.Ledger.ScratchBytes);
        Assert.Equal(product.Expected, product.Result(other));
        graph.Replay(stream);
        Assert.Equal(product.Expected, product.Result(stream));
    }

    [Fact]
    public void WithoutMemoryARecordingIsRefusedAndTheStreamStaysUsable()
    {
        GpuDevice device = Open();
        using var product = new SplitProduct(device, 32);
        using GpuStream stream = device.CreateStream();
        for (int allocations = 0; allocations < 2; allocations++)
        {
            GpuException refused = GuardingAllocator.Of(device).Refusing(allocations, () => GpuGraph.Capture(stream, () => product.Launch(stream)));
            Assert.Equal((GpuFault.OutOfMemory, 0), (refused.Fault, device.Ledger.ScratchBytes));
        }
        using (GpuGraph graph = GpuGraph.Capture(stream, () => product.Launch(stream)))
        {
            graph.Replay(stream);
            Assert.Equal(product.Expected, product.Result(stream));
        }
        Assert.Equal(0, device.Ledger.ScratchBytes);
        product.Launch(stream);
        Assert.Equal(product.Expected, product.Result(stream));
    }

    [Fact]
    public void WithoutMemoryForAJoinedStreamBothStayUsable()
    {
        GpuDevice device = Open();
        using SplitProduct first = new(device, 32, 1), second = new(device, 32, 2);
        using GpuStream stream = device.CreateStream(), joined = device.CreateStream();
        using GpuEvent fork = device.CreateEvent();
        // Two allocations for the first stream, one of two for the other.
        GpuException refused = GuardingAllocator.Of(device).Refusing(3, () => GpuGraph.Capture(stream, () =>
        {
            first.Launch(stream);
            fork.Record(stream);
            joined.WaitFor(fork);
            second.Launch(joined);
        }));
        Assert.Equal((GpuFault.OutOfMemory, 0), (refused.Fault, device.Ledger.ScratchBytes));
        first.Launch(stream);
        second.Launch(joined);
        Assert.Equal((first.Expected, second.Expected), (first.Result(stream), second.Result(joined)), ByValue);
    }

    [Fact]
    public void ThreadsRecordAndReplayAtOnce()
    {
        const int Threads = 4;
        GpuDevice device = Open();
        SplitProduct[] products = [.. Enumerable.Range(0, Threads).Select(i => new SplitProduct(device, 32, i))];
        var failures = new System.Collections.Concurrent.ConcurrentQueue<Exception>();
        Thread[] threads = [.. products.Select(product => new Thread(() =>
        {
            try
            {
                using GpuStream stream = device.CreateStream();
                for (int i = 0; i < 10; i++)
                {
                    using GpuGraph graph = GpuGraph.Capture(stream, () => product.Launch(stream));
                    graph.Replay(stream);
                    Assert.Equal(product.Expected, product.Result(stream));
                    product.Launch(stream);
                    Assert.Equal(product.Expected, product.Result(stream));
                }
            }
            catch (Exception e)
            {
                failures.Enqueue(e);
            }
        }))];
        Array.ForEach(threads, thread => thread.Start());
        Array.ForEach(threads, thread => thread.Join());
        Array.ForEach(products, product => product.Dispose());
        Assert.Empty(failures);
        Assert.Equal(0, device.Ledger.ScratchBytes);
    }

    [Fact]
    public void AGraphIsReplayedOnTwoStreamsInTurnWithoutWaiting()
    {
        GpuDevice device = Open();
        using var product = new SplitProduct(device, 32);
        using GpuStream stream = device.CreateStream(), other = device.CreateStream();
        GpuGraph graph = GpuGraph.Capture(stream, () => product.Launch(stream));
        for (int i = 0; i < Repeats; i++)
        {
            graph.Replay(stream);
            graph.Replay(other);
        }
        // Waits for both: the memory of their sums is returned.
        graph.Dispose();
        Assert.Equal(product.Expected, product.Result(other));
        Assert.Equal(0, device.Ledger.ScratchBytes);
    }

    [Fact]
    public void ARecordingThatWasGivenUpSaysSo()
    {
        GpuDevice device = Open();
        using var product = new SplitProduct(device, 32);
        using GpuStream stream = device.CreateStream();
        GpuException refused = Assert.Throws<GpuException>(() => GpuGraph.Capture(stream, () =>
        {
            product.Launch(stream);
            try
            {
                stream.Synchronize();
            }
            catch (GpuException)
            {
                // What nobody should do: go on after a call that cannot be recorded.
            }
            product.Launch(stream);
        }));
        Assert.Equal(GpuFault.Driver, refused.Fault);
        Assert.Contains("given up", refused.Message, StringComparison.Ordinal);
        product.Launch(stream);
        Assert.Equal(product.Expected, product.Result(stream));
    }

    [Fact]
    public void AGraphWithoutSplitProductsHoldsNone()
    {
        GpuDevice device = Open();
        using DeviceBuffer<int> counter = device.Upload<int>([0]);
        using GpuStream stream = device.CreateStream();
        DeviceCounter.Advance(stream, counter, 1);
        using GpuGraph graph = GpuGraph.Capture(stream, () => DeviceCounter.Advance(stream, counter, 1));
        graph.Replay(stream);
        Assert.Equal((2, 0), (counter.ToArray(stream)[0], device.Ledger.ScratchBytes));
    }

    private static GpuDevice Open()
    {
        _ = TestDevices.Get(TestDevice.Cuda);
        return Own.Value;
    }

    private static bool ByValue((float[], float[]) a, (float[], float[]) b) => a.Item1.AsSpan().SequenceEqual(b.Item1) && a.Item2.AsSpan().SequenceEqual(b.Item2);
}
