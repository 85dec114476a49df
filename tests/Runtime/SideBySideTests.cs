using GpuKit.Ilgpu.Tests.Ops;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Runtime;

/// <summary>Streams and threads that use one device at once.</summary>
public sealed class SideBySideTests
{
    private const int Streams = 4;

    public static TheoryData<TestDevice> Devices => ModelDevices.All;

    [Theory]
    [MemberData(nameof(Devices))]
    public void FourStreamsOfMixedOperatorsEqualTheSerialResult(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        SmallCase[] cases = [.. OperatorCases.Of(device)];
        using var all = new Disposables();
        CaseTensors[][] tensors = [.. Enumerable.Range(0, Streams).Select(_ => cases.Select(_ => all.Add(new CaseTensors(device))).ToArray())];
        Action<GpuStream>[][] launches = [.. tensors.Select(own => own.Select((t, i) => cases[i].Prepare(t)).ToArray())];
        int[][] orders = [.. Enumerable.Range(0, Streams).Select(s => Order(cases.Length, device.IsCuda ? 1000 : 25, s))];

        void Run(int stream, GpuStream on) => Array.ForEach(orders[stream], i => launches[stream][i](on));
        for (int s = 0; s < Streams; s++)
            Run(s, device.DefaultStream);
        byte[][][][] expected = [.. tensors.Select(own => own.Select(t => t.Results(device.DefaultStream)).ToArray())];
        foreach (CaseTensors t in tensors.SelectMany(own => own))
            t.Reset(device.DefaultStream);
        GpuStream[] streams = [.. tensors.Select(_ => all.Add(device.CreateStream()))];
        Parallel.For(0, Streams, new ParallelOptions { MaxDegreeOfParallelism = Streams }, s => Run(s, streams[s]));

        for (int s = 0; s < Streams; s++)
            for (int i = 0; i < cases.Length; i++)
                Assert.True(RepeatabilityTests.AreEqual(expected[s][i], tensors[s][i].Results(streams[s])), $"{cases[i].Name} on stream {s} differs beside other streams.");
    }

    [Fact]
    public async Task ADeviceIsWaitedForWhileGraphsAreRecorded()
    {
        const int Graphs = 300;
        GpuDevice device = TestDevices.Get(TestDevice.Cuda);
        using DeviceBuffer<int> counter = device.Upload<int>([0]);
        using GpuStream stream = device.CreateStream();
        DeviceCounter.Advance(stream, counter, 1);
        using var stop = new CancellationTokenSource();
        Task waiting = Task.Run(
            () =>
            {
                while (!stop.IsCancellationRequested)
                    device.Synchronize();
            },
            CancellationToken.None);
        try
        {
            for (int i = 0; i < Graphs; i++)
            {
                using GpuGraph graph = GpuGraph.Capture(stream, () => DeviceCounter.Advance(stream, counter, 1));
                graph.Replay(stream);
            }
            Assert.Equal(Graphs + 1, counter.ToArray(stream)[0]);
        }
        finally
        {
            await stop.CancelAsync();
            await waiting;
        }
    }

    [Fact]
    public void WaitingForTheDeviceInARecordingIsRefusedAndTheStreamStaysUsable()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cuda);
        using DeviceBuffer<int> counter = device.Upload<int>([0]);
        using GpuStream stream = device.CreateStream();
        Assert.Throws<InvalidOperationException>(() => GpuGraph.Capture(stream, device.Synchronize));
        DeviceCounter.Advance(stream, counter, 1);
        device.Synchronize();
        Assert.Equal(1, counter.ToArray(stream)[0]);
    }

    private static int[] Order(int cases, int count, int seed)
    {
        var random = new Random(seed);
        return [.. Enumerable.Range(0, count).Select(_ => random.Next(cases))];
    }

    private sealed class Disposables : IDisposable
    {
        private readonly List<IDisposable> owned = [];

        public T Add<T>(T resource)
            where T : IDisposable
        {
            owned.Add(resource);
            return resource;
        }

        public void Dispose() => owned.ForEach(resource => resource.Dispose());
    }
}
