using System.Runtime.CompilerServices;
using ILGPU;
using ILGPU.Runtime.CPU;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>Which warp and which launch the calling thread of ILGPU's CPU accelerator belongs to.</summary>
/// <remarks>
/// ILGPU keeps one internal context object a warp, in a thread-static field of each of its lanes. That object is the
/// warp's identity (over accelerators and multiprocessors) and its lifetime ends with the accelerator's, which the names
/// of the worker threads do not give.
/// </remarks>
internal static class CpuContext
{
    private const string WarpType = "ILGPU.Runtime.CPU.CPURuntimeWarpContext, ILGPU";
    private const string GroupType = "ILGPU.Runtime.CPU.CPURuntimeGroupContext, ILGPU";

    /// <summary>The object that the lanes of one warp, and nobody else, share.</summary>
    public static object Warp => CurrentWarp(null);

    /// <summary>Lanes that the launch gave this warp: fewer than the warp size when the group size is no multiple.</summary>
    public static int ActiveLanes(object warp) => CurrentWarpSize(warp);

    /// <summary>
    /// The running launch (a new object each time) and the thread group in it, which are the scope of shared memory.
    /// </summary>
    public static (object? Launch, Index3D Group) Block =>
        (CurrentTask(AcceleratorOf(CurrentWarp(null))), Grid.Index);

    /// <summary>The object that the threads of one multiprocessor, and nobody else, share.</summary>
    public static object Group => CurrentGroup(null);

    /// <summary>Threads that a block may have.</summary>
    public static int MostThreads => AcceleratorOf(CurrentGroup(null)).MaxNumThreadsPerGroup;

    [UnsafeAccessor(UnsafeAccessorKind.StaticMethod, Name = "get_Current")]
    [return: UnsafeAccessorType(GroupType)]
    private static extern object CurrentGroup([UnsafeAccessorType(GroupType)] object? type);

    [UnsafeAccessor(UnsafeAccessorKind.StaticMethod, Name = "get_Current")]
    [return: UnsafeAccessorType(WarpType)]
    private static extern object CurrentWarp([UnsafeAccessorType(WarpType)] object? type);

    [UnsafeAccessor(UnsafeAccessorKind.Method, Name = "get_CurrentWarpSize")]
    private static extern int CurrentWarpSize([UnsafeAccessorType(WarpType)] object warp);

    [UnsafeAccessor(UnsafeAccessorKind.Method, Name = "get_Accelerator")]
    private static extern CPUAccelerator AcceleratorOf(
        [UnsafeAccessorType("ILGPU.Runtime.CPU.CPURuntimeContext, ILGPU")] object context);

    [UnsafeAccessor(UnsafeAccessorKind.Field, Name = "currentTask")]
    private static extern ref CPUAcceleratorTask? CurrentTask(CPUAccelerator accelerator);
}
