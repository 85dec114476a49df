using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.DeviceCounter;

namespace GpuKit.Ilgpu;

/// <summary>A number in device memory that launches advance, such as the position of a sequence: a recorded graph reads it anew at every replay.</summary>
public static class DeviceCounter
{
    private const int AllThreads = 32;

    internal static readonly KernelDefinition<Kernel.Args> Add = new(Kernel.Run, new KernelTraits(1));
    internal static readonly KernelDefinition<Kernel.Args> AddAll = new(Kernel.RunAll, new KernelTraits(AllThreads));

    /// <summary>Adds to the number, in the stream's order.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="counter"><c>[1]</c>.</param>
    /// <param name="step">What to add.</param>
    /// <exception cref="ArgumentException">The view is empty or on another device.</exception>
    public static void Advance(GpuStream stream, ArrayView<int> counter, int step)
    {
        ArgumentNullException.ThrowIfNull(stream);
        Shape.Require(stream, counter, 1, 1, nameof(counter));
        stream.Device.Launch(Add, stream, (1, 1, 1), 1, 0, new Kernel.Args { Counter = counter, Step = step });
    }

    /// <summary>Adds to every number that is not negative, in the stream's order.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="counters">All are looked at.</param>
    /// <param name="step">What to add.</param>
    internal static void AdvanceAll(GpuStream stream, ArrayView<int> counters, int step)
    {
        ArgumentNullException.ThrowIfNull(stream);
        Shape.Require(stream, counters, 1, counters.Length, nameof(counters));
        stream.Device.Launch(AddAll, stream, (1, 1, 1), LaunchShape.Threads(stream.Device, AllThreads), 0, new Kernel.Args { Counter = counters, Step = step });
    }
}
