using ILGPU.Runtime.Cuda;

namespace GpuKit.Ilgpu.Runtime.Driver;

/// <summary>While it lives, the calling thread may allocate, free and wait although it records a graph. Streams that are recorded must not be touched meanwhile.</summary>
internal readonly ref struct RelaxedCapture
{
    private readonly int outer;
    private readonly bool entered;

    private RelaxedCapture(int outer)
    {
        this.outer = outer;
        entered = true;
    }

    /// <summary>Relaxes the thread's mode; nothing on the CPU device.</summary>
    public static RelaxedCapture Enter(GpuDevice device)
    {
        int mode = CudaDriver.CaptureModeRelaxed;
        return device.IsCuda && CudaDriver.cuThreadExchangeStreamCaptureMode(ref mode) == CudaError.CUDA_SUCCESS ? new RelaxedCapture(mode) : default;
    }

    public void Dispose()
    {
        int mode = outer;
        if (entered)
            _ = CudaDriver.cuThreadExchangeStreamCaptureMode(ref mode);
    }
}
