using System.Diagnostics;
using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>Time as a multiprocessor counts it, for measurements inside a kernel.</summary>
internal static class Clock
{
    /// <summary>Cycles of the multiprocessor; the emulation counts the host's ticks.</summary>
    [IntrinsicImplementation, Ptx("mov.u64 %d, %%clock64;")]
    public static long Now() => Stopwatch.GetTimestamp();
}
