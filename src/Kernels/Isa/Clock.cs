using System.Diagnostics;
using ILGPU;
using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>Time.</summary>
internal static class Clock
{
    /// <summary>Cycles.</summary>
    [IntrinsicImplementation, Ptx("mov.u64 %d, %%clock64;")]
    public static long Now() => Stopwatch.GetTimestamp();

    /// <summary>ns.</summary>
    [IntrinsicImplementation, Ptx("mov.u64 %d, %%globaltimer;")]
    public static long Global() => Stopwatch.GetTimestamp();

    /// <summary>SM.</summary>
    [IntrinsicImplementation, Ptx("mov.u32 %d, %%smid;")]
    public static uint Sm() => 0;

    /// <summary>Mark.</summary>
    public static void Mark(ArrayView<long> stamps, int block, int slot)
    {
        if (Group.IdxX != 0)
            return;
        stamps[(block * 8) + slot] = Now();
        if (slot == 0)
        {
            stamps[(block * 8) + 6] = (long)Sm();
            stamps[(block * 8) + 5] = Global();
        }
    }
}
