using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>Neighbouring blocks that run at the same time and see each other's shared memory (sm_90). The CPU device has none: each is alone.</summary>
internal static class Cluster
{
    /// <summary>Waits for all threads of the cluster; what they did before is seen.</summary>
    [IntrinsicImplementation, Ptx("barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;", MinArch = 90)]
    public static void Meet() => throw new NotSupportedException("The CPU device has no clusters.");
}
