using System.Runtime.InteropServices;
using ILGPU.Runtime.Cuda;

namespace GpuKit.Ilgpu.Runtime.Driver;

/// <summary>Attributes of a loaded function (CUfunction_attribute).</summary>
internal enum FunctionAttribute
{
    MaxThreadsPerBlock = 0,
    StaticSharedBytes = 1,
    LocalBytes = 3,
    Registers = 4,
    MaxDynamicSharedBytes = 8,
    PreferredSharedPercent = 9,
}

/// <summary>How one node of a graph waits for another (CUgraphEdgeData): the default value waits for its end.</summary>
[StructLayout(LayoutKind.Sequential, Size = 8)]
internal struct GraphEdge
{
    /// <summary>1: when every block of the earlier kernel has released its dependents.</summary>
    public byte FromPort;

    public byte ToPort;

    /// <summary>1: the later kernel waits by itself (programmatic dependent launch).</summary>
    public byte Type;
}

/// <summary>A kernel node (CUDA_KERNEL_NODE_PARAMS_v2).</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KernelNode
{
    public nint Function;
    public uint GridX, GridY, GridZ, BlockX, BlockY, BlockZ, SharedBytes;
    public nint Parameters, Extra, Kernel, Context;
}

/// <summary>Driver entry points that ILGPU does not bind. Handles are ILGPU's own (stream, function and context pointers).</summary>
internal static unsafe partial class CudaDriver
{
    /// <summary>Capture sees only calls of the capturing thread, so that other threads may allocate meanwhile.</summary>
    public const int CaptureModeThreadLocal = 1;

    /// <summary>A thread that captures may allocate and wait.</summary>
    public const int CaptureModeRelaxed = 2;

    /// <summary>CU_STREAM_CAPTURE_STATUS_NONE.</summary>
    public const int NotCapturing = 0;

    /// <summary>CU_STREAM_CAPTURE_STATUS_INVALIDATED: a call that cannot be recorded has ended the capture.</summary>
    public const int CaptureInvalidated = 2;

    /// <summary>CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN.</summary>
    public const int MaxSharedPerBlockOptIn = 97;

    /// <summary>CU_MEMHOSTALLOC_PORTABLE: pinned for every context.</summary>
    public const uint HostAllocPortable = 1;

    /// <summary>CU_EVENT_DEFAULT: with timing.</summary>
    public const uint EventDefault = 0;

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuDeviceGetAttribute(out int value, int attribute, int device);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuDriverGetVersion(out int version);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuMemGetInfo_v2(out nuint free, out nuint total);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuFuncSetAttribute(nint function, FunctionAttribute attribute, int value);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuFuncGetAttribute(out int value, FunctionAttribute attribute, nint function);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuMemcpyHtoDAsync_v2(nint device, void* host, nuint bytes, nint stream);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuMemcpyDtoHAsync_v2(void* host, nint device, nuint bytes, nint stream);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuMemcpyDtoDAsync_v2(nint target, nint source, nuint bytes, nint stream);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuMemsetD8Async(nint device, byte value, nuint bytes, nint stream);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuMemHostAlloc(out nint host, nuint bytes, uint flags);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuMemFreeHost(nint host);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuEventCreate(out nint handle, uint flags);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuEventRecord(nint handle, nint stream);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuEventSynchronize(nint handle);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuEventElapsedTime(out float milliseconds, nint start, nint end);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuEventDestroy_v2(nint handle);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuStreamWaitEvent(nint stream, nint handle, uint flags);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuStreamSynchronize(nint stream);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuStreamBeginCapture_v2(nint stream, int mode);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuStreamEndCapture(nint stream, out nint graph);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuStreamGetCaptureInfo_v2(nint stream, out int status, out ulong id, nint graph, nint dependencies, nint count);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuThreadExchangeStreamCaptureMode(ref int mode);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuGraphInstantiateWithFlags(out nint executable, nint graph, ulong flags);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuGraphLaunch(nint executable, nint stream);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuGraphDestroy(nint graph);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuGraphExecDestroy(nint executable);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuGraphGetNodes(nint graph, nint nodes, ref nuint count);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuGraphGetEdges_v2(nint graph, nint* from, nint* to, GraphEdge* edges, ref nuint count);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuGraphRemoveDependencies_v2(nint graph, nint* from, nint* to, GraphEdge* edges, nuint count);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuGraphAddDependencies_v2(nint graph, nint* from, nint* to, GraphEdge* edges, nuint count);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuGraphNodeGetType(nint node, out int type);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuGraphKernelNodeGetParams_v2(nint node, out KernelNode parameters);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuModuleLoadDataEx(out nint module, byte* image, uint options, int* keys, void** values);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuModuleUnload(nint module);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuTensorMapEncodeTiled(void* map, int type, uint rank, nint address, ulong* sizes, ulong* strides, uint* tile, uint* steps, int interleave, int swizzle, int promotion, int fill);

    [LibraryImport(DriverLibrary.Name)]
    public static partial CudaError cuLaunchKernel(nint function, uint gridX, uint gridY, uint gridZ, uint blockX, uint blockY, uint blockZ, uint sharedBytes, nint stream, void** parameters, void** extra);
}
