using System.Runtime.CompilerServices;
using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>The copy engine without a map (sm_90 and newer): bytes that lie behind each other, past the loads of the block's threads, which return in the order of their requests.</summary>
internal static unsafe class BulkCopy
{
    /// <summary>
    /// Copies to shared memory and reports to the barrier. Places and length are multiples of 16. What the launches before have written can be seen by the copy after <see cref="GridDependency.Wait"/>.
    /// </summary>
    [IntrinsicImplementation, Ptx("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%g1], %2, [%3];", MinArch = 90)]
    public static void Load(uint shared, ref uint global, int bytes, uint barrier)
    {
        Unsafe.CopyBlock(SharedWindow.Pointer(shared), Unsafe.AsPointer(ref global), (uint)bytes);
        Mbarrier.Complete(barrier, bytes);
    }
}
