using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>Order of memory accesses between blocks.</summary>
internal static class Fence
{
    /// <summary>
    /// What this thread, and by a barrier its block, wrote before is seen by whoever sees a later write of this thread; what is read afterwards is not older than what an
    /// earlier read saw. One thread of a block is enough, between two barriers. Cheaper than ILGPU's fence, which also puts the fences of all threads into one order.
    /// </summary>
    [IntrinsicImplementation, Ptx("fence.acq_rel.gpu;")]
    public static void Device() => Interlocked.MemoryBarrier();

    /// <summary>
    /// Adds one to a counter, and gives what it was. Ordered as by <see cref="Device"/> before and after it: what this thread, and by a barrier others, wrote before is seen by whoever counts later, and the other way round.
    /// </summary>
    [IntrinsicImplementation, Ptx("atom.global.acq_rel.gpu.add.s32 %d, [%g0], 1;")]
    public static int Count(ref int counter) => Interlocked.Increment(ref counter) - 1;

    /// <summary>The same, ordered before it only.</summary>
    [IntrinsicImplementation, Ptx("atom.global.release.gpu.add.s32 %d, [%g0], 1;")]
    public static int CountReleased(ref int counter) => Interlocked.Increment(ref counter) - 1;

    /// <summary>
    /// Adds one to a counter at an address of global memory, or makes it zero where it is <paramref name="last"/>, and gives what it was. Ordered as <see cref="Count"/>.
    /// </summary>
    [IntrinsicImplementation, Ptx("{ .reg .b64 global; cvta.to.global.u64 global, %0; atom.global.acq_rel.gpu.inc.u32 %d, [global], %1; }")]
    public static unsafe uint CountAround(long address, uint last)
    {
        ref uint counter = ref *(uint*)address;
        uint seen;
        do
            seen = Volatile.Read(ref counter);
        while (Interlocked.CompareExchange(ref counter, seen >= last ? 0 : seen + 1, seen) != seen);
        return seen;
    }
}
