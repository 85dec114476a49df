using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.GatedActivation;

namespace GpuKit.Ilgpu;

/// <summary>The gated activation between an MLP's two multiplications (SwiGLU).</summary>
public static class GatedActivation
{
    private const int Threads = 256, WordElements = 8;

    internal static readonly KernelDefinition<Kernel.Args> SiluMultiply = new(Kernel.Run, new KernelTraits(Threads));

    /// <summary>
    /// <c>output[r, i] = silu(gateUp[r, i]) · gateUp[r, width + i]</c>, float32 inside, rounded once to BF16. Bitwise repeatable.
    /// </summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="gateUp"><c>[rows, 2·width]</c> BF16: the gate projection, then the up projection.</param>
    /// <param name="output"><c>[rows, width]</c> BF16.</param>
    /// <param name="rows">Number of rows; 0 does nothing.</param>
    /// <param name="width">Intermediate size.</param>
    /// <exception cref="ArgumentException">A view is too short or lives on another device.</exception>
    public static void Apply(GpuStream stream, ArrayView<BFloat16> gateUp, ArrayView<BFloat16> output, int rows, int width)
    {
        ArgumentNullException.ThrowIfNull(stream);
        Shape.RequireSize(rows, nameof(rows));
        Shape.RequireSize(width, nameof(width));
        Shape.Require(stream, gateUp, rows, 2L * width, nameof(gateUp));
        Shape.Require(stream, output, rows, width, nameof(output));
        long elements = (long)rows * width;
        if (elements == 0)
            return;
        bool wide = Shape.IsVectorAligned(gateUp, 2L * width) && Shape.IsVectorAligned(output, 2L * width);
        int threads = LaunchShape.WholeWarps(stream.Device, wide ? width / WordElements : width, Threads);
        var args = new Kernel.Args
        {
            GateUp = gateUp.Cast<ushort>(),
            Output = output.SubView(0, elements).Cast<ushort>(),
            Rows = rows,
            Width = width,
            WideRows = wide ? 1 : 0,
        };
        stream.Device.Launch(SiluMultiply, stream, (LaunchShape.Blocks(stream.Device, rows, 1), 1, 1), threads, 0, args);
    }
}
