using GpuKit.Ilgpu.Runtime.Driver;
using ILGPU;
using ILGPU.Runtime;
using ILGPU.Runtime.Cuda;

namespace GpuKit.Ilgpu.Runtime;

/// <summary>Resources of a loaded CUDA function, as the driver reports them.</summary>
internal readonly record struct KernelResources(int Registers, int LocalBytes, int StaticSharedBytes);

/// <summary>
/// The kernels that a device has loaded. Look-ups are one array access and allocate nothing; a kernel is compiled once,
/// whichever thread asks first. References are strong: ILGPU's own cache would let kernels be collected.
/// </summary>
internal sealed class KernelCache(GpuDevice device)
{
    private readonly Lock compilation = new();
    private object?[] launchers = new object?[64];
    private readonly List<Kernel> loaded = [];
    private readonly Dictionary<int, Kernel> byId = [];
    private readonly HashSet<nint> overlapping = [];
    private nint[] functions = new nint[64];

    // The most dynamic shared memory that each kernel may be launched with by now.
    private int[] limits = new int[64];
    private readonly KernelLoader loader = new(device);

    /// <summary>Number of kernels compiled so far.</summary>
    public int CompiledCount
    {
        get
        {
            lock (compilation)
                return loaded.Count;
        }
    }

    /// <summary>The launcher of a kernel, compiled at first use.</summary>
    public Action<AcceleratorStream, KernelConfig, TArgs> Get<TArgs>(KernelDefinition<TArgs> definition, int dynamicShared)
        where TArgs : struct
    {
        object?[] snapshot = Volatile.Read(ref launchers);
        int[] most = Volatile.Read(ref limits);
        if (definition.Id < Math.Min(snapshot.Length, most.Length) && Volatile.Read(ref snapshot[definition.Id]) is { } found && dynamicShared <= Volatile.Read(ref most[definition.Id]))
            return (Action<AcceleratorStream, KernelConfig, TArgs>)found;
        return GetSlow(definition, dynamicShared);
    }

    // With more than 48 KB, its static shared memory included, a function must be told its dynamic shared memory once before it is launched.
    private const int SharedWithoutOptIn = 48 * 1024;

    private Action<AcceleratorStream, KernelConfig, TArgs> GetSlow<TArgs>(KernelDefinition<TArgs> definition, int dynamicShared)
        where TArgs : struct
    {
        lock (compilation)
        {
            if (definition.Id >= launchers.Length)
            {
                var larger = new object?[Math.Max(definition.Id + 1, launchers.Length * 2)];
                launchers.CopyTo(larger, 0);
                Volatile.Write(ref launchers, larger);
                var more = new nint[larger.Length];
                functions.CopyTo(more, 0);
                Volatile.Write(ref functions, more);
                var higher = new int[larger.Length];
                limits.CopyTo(higher, 0);
                Volatile.Write(ref limits, higher);
            }
            if (launchers[definition.Id] is null)
            {
                Kernel kernel = loader.Load(definition);
                loaded.Add(kernel);
                byId[definition.Id] = kernel;
                int limit = int.MaxValue;
                if (kernel is CudaKernel cuda)
                {
                    limit = SharedWithoutOptIn - Attribute(cuda, FunctionAttribute.StaticSharedBytes);
                    functions[definition.Id] = cuda.FunctionPtr;
                    if (definition.Traits.Overlaps)
                        overlapping.Add(cuda.FunctionPtr);
                    if (definition.Traits.HopperSharedPercent >= 0 && device.Target?.Number == 90)
                        device.Check(CudaDriver.cuFuncSetAttribute(cuda.FunctionPtr, FunctionAttribute.PreferredSharedPercent, definition.Traits.HopperSharedPercent), "choosing how much of a multiprocessor's memory is shared");
                }
                // Before the launcher: whoever finds that takes the limit for its own.
                Volatile.Write(ref limits[definition.Id], limit);
                Volatile.Write(ref launchers[definition.Id], KernelDefinition<TArgs>.CreateLauncher(kernel));
            }
            AllowDynamicShared(definition, dynamicShared);
            return (Action<AcceleratorStream, KernelConfig, TArgs>)launchers[definition.Id]!;
        }
    }

    /// <summary>The driver's handle of a kernel that <see cref="Get"/> has loaded.</summary>
    public nint Function(KernelDefinition definition) => Volatile.Read(ref functions)[definition.Id];

    /// <summary>What the driver's compiler made of a kernel; null on the CPU device.</summary>
    public KernelResources? Resources<TArgs>(KernelDefinition<TArgs> definition)
        where TArgs : struct
    {
        _ = Get(definition, 0);
        return ResourcesOfLoaded(definition);
    }

    /// <summary>The same of a kernel that has been launched.</summary>
    public KernelResources? ResourcesOfLoaded(KernelDefinition definition)
    {
        lock (compilation)
        {
            if (byId[definition.Id] is not CudaKernel cuda)
                return null;
            device.Bind();
            return new KernelResources(Attribute(cuda, FunctionAttribute.Registers), Attribute(cuda, FunctionAttribute.LocalBytes), Attribute(cuda, FunctionAttribute.StaticSharedBytes));
        }
    }

    /// <summary>Whether a loaded function is of a kernel that may overlap its neighbours.</summary>
    public bool Overlaps(nint function)
    {
        lock (compilation)
            return overlapping.Contains(function);
    }

    private int Attribute(CudaKernel kernel, FunctionAttribute attribute)
    {
        device.Check(CudaDriver.cuFuncGetAttribute(out int value, attribute, kernel.FunctionPtr), "reading a function attribute");
        return value;
    }

    private void AllowDynamicShared(KernelDefinition definition, int bytes)
    {
        if (bytes <= limits[definition.Id] || byId[definition.Id] is not CudaKernel cuda)
            return;
        device.Bind();
        device.Check(
            CudaDriver.cuFuncSetAttribute(cuda.FunctionPtr, FunctionAttribute.MaxDynamicSharedBytes, bytes),
            $"allowing {bytes:N0} bytes of dynamic shared memory for {definition.Name} (the device has {device.MaxSharedBytesPerBlock:N0} a block)");
        Volatile.Write(ref limits[definition.Id], bytes);
    }

    /// <summary>Unloads everything. No launch may be in flight.</summary>
    public void Clear()
    {
        lock (compilation)
        {
            foreach (Kernel kernel in loaded)
                device.DisposeSilently(kernel);
            loaded.Clear();
            byId.Clear();
            overlapping.Clear();
            Array.Clear(launchers);
            Array.Clear(functions);
        }
    }
}
