using System.Diagnostics;
using GpuKit.Ilgpu.Models;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Support;

/// <summary>The promise about hostile files: refused with the one typed exception, within 2 s and 64 MB of managed memory.</summary>
public static class HostileInput
{
    private const long MostBytes = 64_000_000;
    private const int Attempts = 3;
    private static readonly TimeSpan MostTime = TimeSpan.FromSeconds(2);

    /// <summary>Asserts it. The time is the best of three: other tests share the machine, the work does not depend on them.</summary>
    public static void IsRefusedCheaply(Action read)
    {
        TimeSpan best = TimeSpan.MaxValue;
        for (int i = 0; i < Attempts && best > MostTime; i++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            var time = Stopwatch.StartNew();
            Assert.Throws<ModelFileException>(read);
            TimeSpan taken = time.Elapsed;
            long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
            Assert.True(allocated < MostBytes, $"allocated {allocated} bytes");
            best = taken < best ? taken : best;
        }
        Assert.True(best <= MostTime, $"took {best}");
    }
}
