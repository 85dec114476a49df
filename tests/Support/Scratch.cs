using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu.Tests.Support;

/// <summary>What launches exchange numbers through, between two of them.</summary>
internal static class Scratch
{
    /// <summary>Numbers of earlier launches are none that a sum could be right with: a block that reads before another has written is found out.</summary>
    public static void Spoil(GpuStream stream) => stream.Scratch.Partials.Fill(stream, 0x7F);

    /// <summary>Counters are zero for the next launch.</summary>
    public static void AssertZeroCounters(GpuStream stream) => Assert.All(stream.Scratch.Counters.ToArray(stream), count => Assert.Equal(0, count));
}
