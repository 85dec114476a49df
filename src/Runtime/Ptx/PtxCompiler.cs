using System.Collections.Immutable;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using GpuKit.Ilgpu.Runtime.Driver;
using ILGPU;
using ILGPU.Algorithms;
using ILGPU.Backends;
using ILGPU.Backends.EntryPoints;
using ILGPU.Backends.PTX;
using ILGPU.IR.Transformations;
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
        // The context of a CPU device is not optimised: its steps do not lower structures.
        if (context.Properties.OptimizationLevel >= OptimizationLevel.O1)
            EmptyDeadBranches(context);
        return context;
    }

    private static void EmptyDeadBranches(Context context)
    {
        ref Transformer transformer = ref ContextTransformer(context);
        ImmutableArray<Transformation> steps = transformer.Transformations;
        int lowering = steps.IndexOf(steps.Single(step => step is LowerStructures));
        transformer = Transformer.Create(transformer.Configuration, steps.InsertRange(lowering, new DeadBranches(), new DeadCodeElimination()));
    }

    // ILGPU lets nobody choose the steps; what its property returns is read when a kernel is compiled.
    [UnsafeAccessor(UnsafeAccessorKind.Field, Name = "<ContextTransformer>k__BackingField")]
    private static extern ref Transformer ContextTransformer(Context context);

    /// <summary>The text of a kernel for an architecture; needs no GPU.</summary>
    /// <exception cref="PtxInstructionNotSupportedException">The architecture lacks an instruction.</exception>
    public static string Compile(KernelDefinition definition, PtxTarget target)
    {
        // A context of its own: one failed compilation leaves ILGPU's caches inconsistent.
        using Context context = CreateContext(static _ => { });
        return Compile(context, definition, target);
    }

    /// <summary>
    /// The texts of several kernels, each for all of the architectures that it runs on, and each as it is when nothing has been compiled before it: what a device loads of those that are <see cref="KernelTraits.CompiledAlone"/>, and of
    /// the first one after it has been waited for. The first architecture of a kernel pays for reading and optimising its IL, the others cost a tenth of that.
    /// </summary>
    public static IEnumerable<(KernelDefinition Kernel, PtxTarget Target, string Text)> CompileAll(
        IEnumerable<KernelDefinition> definitions, IReadOnlyCollection<PtxTarget> targets) => Compile(definitions, targets, neighbours: 1);

    /// <summary>
    /// The same in half of the time: kernels share what is optimised of methods that several of one family call, and their instructions may be in another order. After a few kernels
    /// the context is emptied: it would hold gigabytes of intermediate code for hundreds of them.
    /// </summary>
    public static IEnumerable<(KernelDefinition Kernel, PtxTarget Target, string Text)> CompileTogether(
        IEnumerable<KernelDefinition> definitions, IReadOnlyCollection<PtxTarget> targets) => Compile(definitions, targets, neighbours: 8);

    private static IEnumerable<(KernelDefinition Kernel, PtxTarget Target, string Text)> Compile(
        IEnumerable<KernelDefinition> definitions, IReadOnlyCollection<PtxTarget> targets, int neighbours)
    {
        Context context = CreateContext(static _ => { });
        int kept = 0;
        try
        {
            foreach (KernelDefinition definition in definitions)
            {
                foreach (PtxTarget target in targets.Where(definition.Traits.RunsOn))
                {
                    string text;
                    try
                    {
                        text = Compile(context, definition, target);
                    }
                    catch (GpuException e) when (e.Fault == GpuFault.Compilation)
                    {
                        // As in CompileAlone.
                        context.Dispose();
                        context = CreateContext(static _ => { });
                        text = Compile(context, definition, target);
                    }
                    yield return (definition, target, text);
                }
                if (++kept % neighbours == 0)
                    context.ClearCache(ClearCacheMode.Everything);
            }
        }
        finally
        {
            context.Dispose();
        }
    }

    /// <summary>
    /// A kernel in a context of its own. ILGPU may take one composed type for another that it has seen in the same context before, depending on the order of the kernels, and
    /// then calls the second kernel's code invalid; a context that has seen nothing compiles it.
    /// </summary>
    public static PTXCompiledKernel CompileAlone(KernelDefinition definition, PtxTarget target)
    {
        using Context context = CreateContext(static _ => { });
        using var backend = new PTXBackend(context, new CudaCapabilityContext(target.Architecture), target.Architecture, target.Version, null);
        var compiled = (PTXCompiledKernel)Compile(backend, definition);
        // A kernel refers to its context.
        context.ClearCache(ClearCacheMode.Everything);
        return compiled;
    }

    private static string Compile(Context context, KernelDefinition definition, PtxTarget target)
    {
        using var backend = new PTXBackend(context, new CudaCapabilityContext(target.Architecture), target.Architecture, target.Version, null);
        var compiled = (PTXCompiledKernel)Compile(backend, definition);
        return PtxText.Prepare(compiled.PTXAssembly, target, definition.Traits.ClusterBlocks);
    }

    /// <summary>Compiles for a backend, unwrapping ILGPU's compiler exceptions to what they are about.</summary>
    public static CompiledKernel Compile(Backend backend, KernelDefinition definition)
    {
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
