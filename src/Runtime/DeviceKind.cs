namespace GpuKit.Ilgpu;

/// <summary>Which device to open.</summary>
public enum DeviceKind
{
    /// <summary>A CUDA card when there is one that the kernels run on, else the CPU.</summary>
    Auto,

    /// <summary>An NVIDIA card through its driver.</summary>
    Cuda,

    /// <summary>ILGPU's CPU accelerator: the same kernels, run by threads.</summary>
    Cpu,
}
