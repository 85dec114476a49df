using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>Four neighbouring warps (sm_90), which multiply together, meet, and hand registers to one another.</summary>
internal static class Warpgroup
{
    /// <summary>Threads of a warpgroup.</summary>
    public const int Threads = 128;

    /// <summary>Waits for the warpgroup's threads at meeting point <paramref name="number"/> (1 to 15): writes to shared memory before are seen after.</summary>
    [IntrinsicImplementation, Ptx("bar.sync %0, 128;")]
    public static void Meet(uint number) => SomeWarps.Meet(number, Threads);

    /// <summary>Lets this warpgroup's threads have up to <paramref name="registers"/> (a constant), once others have given theirs back.</summary>
    [IntrinsicImplementation, Ptx("setmaxnreg.inc.sync.aligned.u32 %c0;", ExactArch = "90a")]
    public static void TakeRegisters(int registers)
    {
    }

    /// <summary>Gives back what this warpgroup's threads have beyond <paramref name="registers"/> (a constant).</summary>
    [IntrinsicImplementation, Ptx("setmaxnreg.dec.sync.aligned.u32 %c0;", ExactArch = "90a")]
    public static void GiveRegisters(int registers)
    {
    }
}
