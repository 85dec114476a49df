using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.GatherRows;

namespace GpuKit.Ilgpu;

/// <summary>Copies rows into the order of their experts, for kernels that read whole tiles of neighbouring rows.</summary>
internal static class GatherRows
{
    private const int Threads = 256, WordElements = 8;

    internal static readonly KernelDefinition<Kernel.Args> Copy = new(Kernel.Run, new KernelTraits(Threads));

    /// <summary><c>output[i] = x[order[i] / rowsPerInput]</c>. A place whose row does not exist keeps its contents.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="order"><c>[m]</c> as <see cref="ExpertSort"/> writes it.</param>
    /// <param name="x"><c>[m / rowsPerInput, width]</c> BF16, 16-byte aligned; another buffer than the output.</param>
    /// <param name="output"><c>[m, width]</c> BF16, 16-byte aligned.</param>
    /// <param name="m">Places; 0 does nothing.</param>
    /// <param name="rowsPerInput">Consecutive rows that share one of x.</param>
    /// <param name="width">Elements of a row, a multiple of 8.</param>
    public static void Apply(GpuStream stream, ArrayView<int> order, ArrayView<BFloat16> x, ArrayView<BFloat16> output, int m, int rowsPerInput, int width)
    {
        Shape.Require(stream, order, 1, m, nameof(order));
        Shape.Require(stream, x, m / rowsPerInput, width, nameof(x));
        Shape.Require(stream, output, m, width, nameof(output));
        if (width % WordElements != 0)
            throw new ArgumentException($"Rows of {width} elements are no whole number of 16-byte words.", nameof(width));
        if (m == 0)
            return;
        var args = new Kernel.Args
        {
            Input = x.Cast<uint>(),
            Order = order,
            Output = output.Cast<uint>(),
            Rows = m,
            Inputs = m / rowsPerInput,
            RowsPerInput = rowsPerInput,
            Words = width / WordElements,
        };
        int threads = LaunchShape.Threads(stream.Device, Threads);
        // Of a narrow CPU block a row's threads must all exist.
        threads = Math.Max(threads / Kernel.ThreadsPerRow * Kernel.ThreadsPerRow, Kernel.ThreadsPerRow);
        stream.Device.Launch(Copy, stream, (LaunchShape.Blocks(stream.Device, m, threads / Kernel.ThreadsPerRow), 1, 1), threads, 0, args);
    }
}
