using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using GpuKit.Ilgpu.Runtime.Driver;
using ILGPU;
using ILGPU.Algorithms;
using ILGPU.Backends;
using ILGPU.Backends.EntryPoints;
using ILGPU.Backends.PTX;
using ILGPU.Runtime;
using ILGPU.Runtime.Cuda;

namespace GpuKit.Ilgpu.Runtime.Ptx;

/// <summary>Compiles kernels to PTX, with or without a card.</summary>
internal static unsafe class PtxCompiler
{
    /// <summary>
    /// The settings every context is made with. O1, not O2: at O2 ILGPU marks divergent branches as uniform.
    /// </summary>
    public static Context CreateContext(Action<Context.Builder> devices)
    {
        _ = DriverLibrary.IsPresent;
        Context context = Context.Create(builder =>
        {
            builder.Optimize(OptimizationLevel.O1).EnableAlgorithms();
            devices(builder);
        });
        PtxIntrinsics.Register(context);
        return context;
    }

    /// <summary>The text of a kernel for an architecture; needs no GPU.</summary>
    /// <exception cref="PtxInstructionNotSupportedException">The architecture lacks an instruction.</exception>
    /// <exception cref="GpuException">ILGPU cannot compile it.</exception>
    public static string Compile(KernelDefinition definition, PtxTarget target)
    {
        using Context context = CreateContext(static _ => { });
        return Compile(context, definition, target);
    }

    /// <summary>
    /// The texts of several kernels, each for all of the architectures that it runs on, as a device loads them. The first architecture of a kernel pays for reading and optimising its IL, the others cost a tenth of that.
    /// </summary>
    /// <exception cref="PtxInstructionNotSupportedException">An architecture lacks an instruction.</exception>
    /// <exception cref="GpuException">ILGPU cannot compile one.</exception>
    public static IEnumerable<(KernelDefinition Kernel, PtxTarget Target, string Text)> CompileAll(
        IEnumerable<KernelDefinition> definitions, IReadOnlyCollection<PtxTarget> targets)
    {
        using Context context = CreateContext(static _ => { });
        foreach (KernelDefinition definition in definitions)
        {
            foreach (PtxTarget target in targets.Where(definition.Traits.RunsOn))
                yield return (definition, target, Compile(context, definition, target));
            // As KernelLoader does: a kernel's text must not depend on the others.
            context.ClearCache(ClearCacheMode.Everything);
        }
    }

    /// <summary>The text of the next kernel of a context.</summary>
    /// <param name="context">A context that has seen no other kernel since it was emptied.</param>
    /// <param name="definition">The kernel.</param>
    /// <param name="target">The architecture.</param>
    /// <param name="joinedFirst">The order of steps; null: the kernel's own.</param>
    /// <exception cref="PtxInstructionNotSupportedException">The architecture lacks an instruction; the context must be emptied.</exception>
    /// <exception cref="GpuException">ILGPU cannot compile it; likewise.</exception>
    public static string Compile(Context context, KernelDefinition definition, PtxTarget target, bool? joinedFirst = null)
    {
        using var backend = new PTXBackend(context, new CudaCapabilityContext(target.Architecture), target.Architecture, target.Version, null);
        var compiled = (PTXCompiledKernel)Compile(backend, definition, joinedFirst);
        return PtxText.Prepare(compiled.PTXAssembly, target, definition.Traits.ClusterBlocks);
    }

    /// <summary>Compiles for a backend, unwrapping ILGPU's compiler exceptions to what they are about.</summary>
    public static CompiledKernel Compile(Backend backend, KernelDefinition definition, bool? joinedFirst = null)
    {
        // The context of a CPU device is not optimised: its steps are others.
        if (backend.Context.Properties.OptimizationLevel >= OptimizationLevel.O1)
            Optimisation.Choose(backend.Context, joinedFirst ?? definition.Traits.JoinedFirst);
        try
        {
            return backend.Compile(
                EntryPointDescription.FromExplicitlyGroupedKernel(definition.Method),
                new KernelSpecialization(definition.Traits.MaxThreads, definition.Traits.BlocksPerMultiprocessor is > 0 and int blocks ? blocks : null));
        }
        catch (Exception e) when (Find<PtxInstructionNotSupportedException>(e) is { } unsupported)
        {
            throw unsupported;
        }
        catch (InternalCompilerException e)
        {
            throw new GpuException(GpuFault.Compilation, $"{definition.Name} could not be compiled: {e.InnerException?.Message ?? e.Message}", e);
        }
    }

    private static T? Find<T>(Exception? e)
        where T : Exception
    {
        for (; e is not null; e = e.InnerException)
            if (e is T found)
                return found;
        return null;
    }

    /// <summary>Puts the prepared text into a compiled kernel before it is loaded, and returns it.</summary>
    public static string ReplaceText(PTXCompiledKernel kernel, PtxTarget target, int clusterBlocks) =>
        Text(kernel) = PtxText.Prepare(kernel.PTXAssembly, target, clusterBlocks);

    // ILGPU's property has no setter; the field behind it is the only way to load other text through CudaKernel.
    [UnsafeAccessor(UnsafeAccessorKind.Field, Name = "<PTXAssembly>k__BackingField")]
    private static extern ref string Text(PTXCompiledKernel kernel);

    /// <summary>The driver compiler's message for a text that it refuses, or null.</summary>
    public static string? DriverLog(string text)
    {
        const int ErrorLogBuffer = 5, ErrorLogBufferSize = 6, Capacity = 4096;
        byte* log = (byte*)NativeMemory.AllocZeroed(Capacity);
        try
        {
            fixed (byte* image = Encoding.ASCII.GetBytes(text + '\0'))
            {
                int* keys = stackalloc int[] { ErrorLogBuffer, ErrorLogBufferSize };
                void** values = stackalloc void*[2];
                values[0] = log;
                values[1] = (void*)Capacity;
                if (CudaDriver.cuModuleLoadDataEx(out nint module, image, 2, keys, values) == CudaError.CUDA_SUCCESS)
                    _ = CudaDriver.cuModuleUnload(module);
            }
            string message = Marshal.PtrToStringAnsi((nint)log)!.Trim();
            return message.Length == 0 ? null : message;
        }
        finally
        {
            NativeMemory.Free(log);
        }
    }
}
