using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>Neighbouring blocks that run at the same time and see each other's shared memory (sm_90). The CPU device has none: each is alone.</summary>
internal static class Cluster
{
    /// <summary>Waits for all threads of the cluster; what they did before is seen.</summary>
    [IntrinsicImplementation, Ptx("barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;", MinArch = 90)]
    public static void Meet() => throw new NotSupportedException("The CPU device has no clusters.");

    /// <summary>Says that the thread has got here: nothing of what it did before is promised to be seen.</summary>
    [IntrinsicImplementation, Ptx("barrier.cluster.arrive.relaxed.aligned;", MinArch = 90)]
    public static void Begin() => throw new NotSupportedException("The CPU device has no clusters.");

    /// <summary>Says that the thread has got here: what it did before is seen by those that wait.</summary>
    [IntrinsicImplementation, Ptx("barrier.cluster.arrive.release.aligned;", MinArch = 90)]
    public static void Arrive() => throw new NotSupportedException("The CPU device has no clusters.");

    /// <summary>Waits for all threads of the cluster to have got where they say so, once for each time.</summary>
    [IntrinsicImplementation, Ptx("barrier.cluster.wait.acquire.aligned;", MinArch = 90)]
    public static void Wait() => throw new NotSupportedException("The CPU device has no clusters.");

    /// <summary>Where block <paramref name="rank"/> of the cluster has what this one has at an address of <see cref="SharedWindow"/>.</summary>
    [IntrinsicImplementation, Ptx("mapa.shared::cluster.u32 %d, %0, %1;", MinArch = 90)]
    public static uint AddressIn(uint shared, int rank) => throw new NotSupportedException("The CPU device has no clusters.");

    /// <summary>Stores a number at an address of <see cref="AddressIn"/>.</summary>
    [IntrinsicImplementation, Ptx("st.shared::cluster.f32 [%0], %1;", MinArch = 90)]
    public static void Store(uint address, float value) => throw new NotSupportedException("The CPU device has no clusters.");
}
