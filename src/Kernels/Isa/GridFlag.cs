using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>Counters in global memory by which the blocks of a launch wait for each other. All blocks must be resident at once.</summary>
internal static class GridFlag
{
    /// <summary>Counts up: what this thread, and by a barrier its block, wrote before is seen by whoever sees the count.</summary>
    [IntrinsicImplementation, Ptx("red.release.gpu.global.add.u32 [%g0], %1;")]
    public static void Add(ref int counter, int value) => Interlocked.Add(ref counter, value);

    /// <summary>The count: what is read afterwards is not older than it.</summary>
    [IntrinsicImplementation, Ptx("ld.acquire.gpu.global.u32 %d, [%g0];")]
    public static int Read(ref int counter) => Volatile.Read(ref counter);
}
