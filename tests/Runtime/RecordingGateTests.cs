using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu.Tests.Runtime;

/// <summary>Nobody records while someone waits for the device, and the other way round.</summary>
public sealed class RecordingGateTests
{
    [Fact]
    public void RecordingsAndWaitsExcludeEachOtherAndRecordingsDoNot()
    {
        var gate = new RecordingGate();
        int recording = 0, waiting = 0, mistakes = 0, mostRecording = 0;
        Parallel.For(0, 8, new ParallelOptions { MaxDegreeOfParallelism = 8 }, worker =>
        {
            for (int i = 0; i < 500; i++)
            {
                if (worker < 3)
                {
                    gate.Wait(() =>
                    {
                        Interlocked.Increment(ref waiting);
                        if (Volatile.Read(ref recording) > 0)
                            Interlocked.Increment(ref mistakes);
                        Interlocked.Decrement(ref waiting);
                    });
                    continue;
                }
                gate.BeginRecording();
                int now = Interlocked.Increment(ref recording);
                InterlockedMax(ref mostRecording, now);
                if (Volatile.Read(ref waiting) > 0)
                    Interlocked.Increment(ref mistakes);
                Thread.Yield();
                Interlocked.Decrement(ref recording);
                gate.EndRecording();
            }
        });
        Assert.Equal(0, mistakes);
        Assert.InRange(mostRecording, 1, 5);
    }

    [Fact]
    public void AThreadThatRecordsCannotWaitAndMayRecordAgain()
    {
        var gate = new RecordingGate();
        gate.BeginRecording();
        gate.BeginRecording();
        Assert.Throws<InvalidOperationException>(() => gate.Wait(() => { }));
        gate.EndRecording();
        Assert.Throws<InvalidOperationException>(() => gate.Wait(() => { }));
        gate.EndRecording();
        bool waited = false;
        gate.Wait(() => waited = true);
        Assert.True(waited);
    }

    [Fact]
    public async Task WhoeverPollsTheDeviceDoesNotKeepARecordingFromBeginning()
    {
        var gate = new RecordingGate();
        using var stop = new CancellationTokenSource();
        Task[] polling = [.. Enumerable.Range(0, 3).Select(_ => Task.Run(
            () =>
            {
                while (!stop.IsCancellationRequested)
                    gate.Wait(static () => Thread.SpinWait(100));
            },
            CancellationToken.None))];
        for (int i = 0; i < 200; i++)
        {
            gate.BeginRecording();
            gate.EndRecording();
        }
        await stop.CancelAsync();
        await Task.WhenAll(polling);
    }

    private static void InterlockedMax(ref int target, int value)
    {
        for (int seen = Volatile.Read(ref target); value > seen; seen = Volatile.Read(ref target))
            Interlocked.CompareExchange(ref target, value, seen);
    }
}
