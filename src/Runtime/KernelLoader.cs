using GpuKit.Ilgpu.Runtime.Ptx;
using ILGPU.Backends;
using ILGPU.Backends.PTX;
using ILGPU.Runtime;
using ILGPU.Runtime.Cuda;

namespace GpuKit.Ilgpu.Runtime;

/// <summary>Compiles kernels for a device and loads them. Not safe for several threads: <see cref="KernelCache"/> lets one in at a time.</summary>
/// <remarks>
/// ILGPU's context is emptied behind every kernel. Its intermediate code is ten to twenty megabytes of managed memory, and what kernels share would be optimised once: the next
/// kernel's text would depend on which were compiled before it (docs/decisions/0003).
/// </remarks>
internal sealed class KernelLoader(GpuDevice device)
{
    /// <summary>Compiles a kernel and loads it; one at a time.</summary>
    /// <exception cref="PtxInstructionNotSupportedException">The device lacks an instruction.</exception>
    /// <exception cref="GpuException">ILGPU or the driver cannot compile it.</exception>
    public Kernel Load(KernelDefinition definition)
    {
        device.Bind();
        try
        {
            return Load(definition, PtxCompiler.Compile(device.Accelerator.GetBackend(), definition));
        }
        finally
        {
            // Also of one that cannot be compiled: it leaves the context inconsistent.
            device.ClearCompilerCache();
        }
    }

    private Kernel Load(KernelDefinition definition, CompiledKernel compiled)
    {
        if (compiled is not PTXCompiledKernel ptx)
            return device.Accelerator.LoadKernel(compiled);
        string text = PtxCompiler.ReplaceText(ptx, device.Target!.Value, definition.Traits.ClusterBlocks);
        try
        {
            return device.Accelerator.LoadKernel(ptx);
        }
        catch (CudaException e)
        {
            throw new GpuException(GpuFault.Compilation, $"The driver refused {definition.Name} for {device.Target}: {PtxCompiler.DriverLog(text) ?? e.Message}", e);
        }
    }
}
