using System.Runtime.CompilerServices;
using ILGPU;
using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>Some warps of a block that meet without the others.</summary>
internal static class SomeWarps
{
    // Meeting points of the CPU device: one set a launch, by block and number.
    private static readonly ConditionalWeakTable<object, Dictionary<(Index3D, uint), System.Threading.Barrier>> Points = [];

    /// <summary>
    /// Waits until <paramref name="threads"/> threads, whole warps, have come to meeting point <paramref name="number"/> (1 to 15): their writes to shared memory before are seen after.
    /// </summary>
    [IntrinsicImplementation, Ptx("bar.sync %0, %1;")]
    public static void Meet(uint number, int threads)
    {
        (object? launch, Index3D group) = CpuContext.Block;
        System.Threading.Barrier? point;
        lock (Points)
        {
            Dictionary<(Index3D, uint), System.Threading.Barrier> points = Points.GetOrCreateValue(launch!);
            if (!points.TryGetValue((group, number), out point))
                points.Add((group, number), point = new System.Threading.Barrier(threads));
        }
        if (point.ParticipantCount != threads)
            throw new InvalidOperationException($"bar.sync: {threads} threads come to meeting point {number}, which {point.ParticipantCount} came to before.");
        point.SignalAndWait();
    }
}
