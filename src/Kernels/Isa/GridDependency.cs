using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>
/// How a launch overlaps the end of the one before it, where the graph allows it (programmatic dependent launch, sm_90 and
/// newer). Older cards and the CPU run launches one after the other: nothing to do there.
/// </summary>
internal static class GridDependency
{
    /// <summary>
    /// Waits until the launches before this one have ended and what they wrote can be seen. Nothing that one of them may
    /// have written is read before it, but what is certainly older than the launch before and words that say themselves whether they are there (docs/decisions/0008), and nothing is written; afterwards such data is read with plain loads, since it was not
    /// read-only for the whole life of the kernel.
    /// </summary>
    [IntrinsicImplementation, Ptx("griddepcontrol.wait;", MinArch = 90, OmittedElsewhere = true)]
    public static void Wait()
    {
    }

    /// <summary>Lets the launch after this one start once every block has called this or ended.</summary>
    [IntrinsicImplementation, Ptx("griddepcontrol.launch_dependents;", MinArch = 90, OmittedElsewhere = true)]
    public static void Release()
    {
    }
}
