using System.Runtime.CompilerServices;
using ILGPU;
using ILGPU.Runtime;
using ILGPU.Runtime.CPU;

// ILGPU's launchers live in a dynamic assembly of this name: test kernels can stay internal.
[assembly: InternalsVisibleTo("ILGPURuntime")]

namespace GpuKit.Ilgpu.Tests.Support;

/// <summary>A CPU accelerator with a chosen warp size, for kernels from words to words.</summary>
public sealed class CpuWarp : IDisposable
{
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(60);

    private readonly Context context;
    private readonly CPUAccelerator accelerator;
    private readonly int warpSize;

    /// <summary>One warp of 32 lanes; as a class fixture.</summary>
    public CpuWarp()
        : this(32)
    {
    }

    internal CpuWarp(int warpSize, int warps = 1, int multiprocessors = 1)
    {
        context = Context.Create(builder => builder.CPU(new CPUDevice(warpSize, warps, multiprocessors)));
        accelerator = context.CreateCPUAccelerator(0, CPUAcceleratorMode.Parallel);
        this.warpSize = warpSize;
    }

    /// <summary>Runs the kernel over <paramref name="groups"/> groups and returns its output, zero where not written.</summary>
    internal uint[] Launch(
        Action<ArrayView<uint>, ArrayView<uint>> kernel, uint[] input, int outputs, int groups = 1, int warps = 1)
    {
        using MemoryBuffer1D<uint, Stride1D.Dense> source = accelerator.Allocate1D(input);
        using MemoryBuffer1D<uint, Stride1D.Dense> result = accelerator.Allocate1D<uint>(outputs);
        result.MemSetToZero();
        var launch = accelerator.LoadStreamKernel(kernel);
        var config = new KernelConfig(groups, warps * warpSize);

        // A collective that not all lanes reach never ends: a time limit turns that into a failed test.
        Task run = Task.Run(() => launch(config, source.View.BaseView, result.View.BaseView));
        if (!run.Wait(Limit))
            Environment.FailFast($"{kernel.Method.Name} did not end: a collective that some lanes do not reach?");
        return result.GetAsArray1D();
    }

    public void Dispose()
    {
        accelerator.Dispose();
        context.Dispose();
    }
}
