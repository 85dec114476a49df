using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Runtime.Ptx;
using ILGPU;
using ILGPU.Runtime;
using ILGPU.Runtime.CPU;
using ILGPU.Runtime.Cuda;

namespace GpuKit.Ilgpu;

// Opening: which device is taken, and why.
public sealed partial class GpuDevice
{
    /// <summary>Opens a device.</summary>
    /// <param name="kind">Which kind; <see cref="DeviceKind.Auto"/> takes the card when there is one that the kernels run on, and says what it took in <see cref="Choice"/>.</param>
    /// <param name="ordinal">Which card, counted from 0. Ignored on the CPU.</param>
    /// <exception cref="GpuException">There is no such device (<see cref="GpuFault.NoDevice"/>), or it is too old (<see cref="GpuFault.NotSupported"/>).</exception>
    public static GpuDevice Open(DeviceKind kind = DeviceKind.Auto, int ordinal = 0)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(ordinal);
        return kind switch
        {
            DeviceKind.Cuda => OpenCuda(ordinal, "CUDA, as asked for"),
            DeviceKind.Cpu => OpenCpu("the CPU, as asked for"),
            DeviceKind.Auto => DeviceCatalog.AutoTakesCpu(ordinal) is { } reason
                ? OpenCpu($"the CPU, since {reason}")
                : OpenCuda(ordinal, "CUDA, since there is a card"),
            _ => throw new ArgumentOutOfRangeException(nameof(kind), kind, "Not a device kind."),
        };
    }

    /// <summary>
    /// Opens a CPU device with the 32-lane warps of a card, for checking kernels (tensor-core kernels run on it too). It
    /// emulates each lane by a thread and is orders of magnitude slower than the CPU device meant for use.
    /// </summary>
    /// <param name="warps">Warps a block, 1 to 32.</param>
    public static GpuDevice OpenCpuForChecking(int warps = 4)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(warps, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(warps, 32);
        return OpenCpu(new CPUDevice(32, warps, 1), "the CPU with 32-lane warps, for checking");
    }

    // Two lanes are the smallest warp that ILGPU emulates: collectives stay cheap and each core runs its own blocks.
    private static GpuDevice OpenCpu(string choice) =>
        OpenCpu(new CPUDevice(2, 1, Math.Clamp(Environment.ProcessorCount, 1, 64)), choice);

    private static GpuDevice OpenCpu(CPUDevice device, string choice)
    {
        _ = IlgpuMessages.Keep();
        // ILGPU runs .NET's own code of a kernel: what it makes of the kernel besides is thrown away, so none of it is optimised.
        Context context = PtxCompiler.CreateContext(builder => builder.Optimize(OptimizationLevel.O0).Inlining(InliningMode.Disabled).CPU(device));
        return new GpuDevice(context, device.CreateCPUAccelerator(context, CPUAcceleratorMode.Parallel), 0, choice);
    }

    private static GpuDevice OpenCuda(int ordinal, string choice)
    {
        if (DeviceCatalog.CudaUnavailable() is { } reason)
            throw new GpuException(GpuFault.NoDevice, $"No CUDA device: {reason}.");
        Context context = PtxCompiler.CreateContext(static builder => builder.Cuda());
        try
        {
            Context.DeviceCollection<CudaDevice> cards = context.GetCudaDevices();
            if (ordinal >= cards.Count)
                throw new GpuException(GpuFault.NoDevice, $"There is no CUDA device {ordinal}; this machine has {cards.Count} (0 to {cards.Count - 1}).");
            return new GpuDevice(context, cards[ordinal].CreateCudaAccelerator(context), ordinal, choice);
        }
        catch (CudaException e)
        {
            // Out of memory or an exclusive card, for example: the context itself takes hundreds of megabytes.
            context.Dispose();
            GpuFault fault = Status(e) == CudaError.CUDA_ERROR_OUT_OF_MEMORY ? GpuFault.OutOfMemory : GpuFault.Driver;
            throw new GpuException(fault, $"CUDA device {ordinal} could not be opened: the driver answered {e.Error}.", e);
        }
        catch
        {
            context.Dispose();
            throw;
        }
    }
}
