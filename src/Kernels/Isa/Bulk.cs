using System.Runtime.CompilerServices;
using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>Copies of neighbouring bytes from global to shared memory by the copy engine (sm_90): one thread asks for all of them, a barrier learns when they have landed.</summary>
internal static unsafe class Bulk
{
    private const int Arch = 90;

    /// <summary>
    /// Copies <paramref name="bytes"/> bytes, a multiple of 16 like both addresses, and reports them to the barrier. The source is read once (weights): it is the first to
    /// leave L2.
    /// </summary>
    [IntrinsicImplementation, Ptx("{ .reg .b64 global, policy; cvta.to.global.u64 global, %1; createpolicy.fractional.L2::evict_first.b64 policy, 1.0; cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [global], %2, [%3], policy; }", MinArch = Arch)]
    public static void Load(uint shared, long global, int bytes, uint barrier)
    {
        byte* to = SharedWindow.Pointer(shared);
        Mem.CheckAligned(to, 16, "cp.async.bulk (shared)");
        Mem.CheckAligned((void*)global, 16, "cp.async.bulk (global)");
        if ((bytes & 15) != 0)
            throw new InvalidOperationException($"cp.async.bulk: {bytes} bytes are not whole 16-byte words.");
        Unsafe.CopyBlock(to, (void*)global, (uint)bytes);
        Mbarrier.Complete(barrier, bytes);
    }
}
