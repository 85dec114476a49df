using GpuKit.Ilgpu.Runtime.Ptx;
using ILGPU.Backends;
using ILGPU.Backends.PTX;
using ILGPU.Runtime;
using ILGPU.Runtime.Cuda;

namespace GpuKit.Ilgpu.Runtime;

/// <summary>Compiles kernels for a device and loads them. Not safe for several threads: <see cref="KernelCache"/> lets one in at a time.</summary>
internal sealed class KernelLoader(GpuDevice device)
{
    private bool contextFailed, holdsIntermediateCode;

    /// <summary>Whether ILGPU's context holds intermediate code; any thread may ask.</summary>
    public bool HoldsIntermediateCode => Volatile.Read(ref holdsIntermediateCode);

    /// <summary>Compiles a kernel and loads it; one at a time.</summary>
    /// <exception cref="GpuException">ILGPU or the driver cannot compile it.</exception>
    public Kernel Load(KernelDefinition definition)
    {
        if (definition.Traits.CompiledAlone && holdsIntermediateCode && device.IsCuda)
            device.ClearCompilerCache();
        Volatile.Write(ref holdsIntermediateCode, true);
        Accelerator accelerator = device.Accelerator;
        device.Bind();
        CompiledKernel compiled = Compile(accelerator, definition);
        if (compiled is not PTXCompiledKernel ptx)
            return accelerator.LoadKernel(compiled);
        string text = PtxCompiler.ReplaceText(ptx, device.Target!.Value, definition.Traits.ClusterBlocks);
        try
        {
            return accelerator.LoadKernel(ptx);
        }
        catch (CudaException e)
        {
            throw new GpuException(GpuFault.Compilation, $"The driver refused {definition.Name} for {device.Target}: {PtxCompiler.DriverLog(text) ?? e.Message}", e);
        }
    }

    // A failed compilation leaves its context's caches inconsistent: from then on every kernel has a context of its own.
    private CompiledKernel Compile(Accelerator accelerator, KernelDefinition definition)
    {
        if (device.Target is not { } target)
            return PtxCompiler.Compile(accelerator.GetBackend(), definition);
        if (!contextFailed)
        {
            try
            {
                return PtxCompiler.Compile(accelerator.GetBackend(), definition);
            }
            catch (PtxInstructionNotSupportedException)
            {
                contextFailed = true;
                throw;
            }
            catch (GpuException e) when (e.Fault == GpuFault.Compilation)
            {
                contextFailed = true;
            }
        }
        return PtxCompiler.CompileAlone(definition, target);
    }

    /// <summary>Empties ILGPU's context: it keeps about ten megabytes of managed memory for each kernel compiled, of use only to later ones that share methods with it.</summary>
    public void ForgetIntermediateCode()
    {
        device.ClearCompilerCache();
        Volatile.Write(ref holdsIntermediateCode, false);
    }
}
