using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.MoeCombine;

namespace GpuKit.Ilgpu;

/// <summary>Sizes of a <see cref="MoeCombine"/>.</summary>
/// <param name="Tokens">Number of tokens; 0 does nothing.</param>
/// <param name="TopK">Experts a token; 0 does nothing.</param>
/// <param name="Width">Hidden size.</param>
public readonly record struct MoeCombineShape(int Tokens, int TopK, int Width);

/// <summary>Adds the weighted outputs of the chosen experts to the residual stream.</summary>
public static class MoeCombine
{
    private const int Threads = 256, WordElements = 4;

    internal static readonly KernelDefinition<Kernel.Args> WeightedSum = new(Kernel.Run, new KernelTraits(Threads));

    /// <summary>
    /// <c>residual[t] += Σ_j weights[t, j] · expertOutput[t·topK + j]</c> in float32, j ascending, each step one fused
    /// multiply-add: the bits are the same on every device.
    /// </summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="expertOutput"><c>[tokens·topK, width]</c> float32, in pair order.</param>
    /// <param name="weights"><c>[tokens, topK]</c> float32.</param>
    /// <param name="residual"><c>[tokens, width]</c> float32, updated in place.</param>
    /// <param name="shape">Tokens, top-k and width.</param>
    /// <exception cref="ArgumentException">A size is negative, or a view is too short or lives on another device.</exception>
    public static void Apply(GpuStream stream, ArrayView<float> expertOutput, ArrayView<float> weights, ArrayView<float> residual, MoeCombineShape shape)
    {
        ArgumentNullException.ThrowIfNull(stream);
        Shape.RequireSize(shape.Tokens, nameof(shape.Tokens));
        Shape.RequireSize(shape.TopK, nameof(shape.TopK));
        Shape.RequireSize(shape.Width, nameof(shape.Width));
        Shape.Require(stream, expertOutput, (long)shape.Tokens * shape.TopK, shape.Width, nameof(expertOutput));
        Shape.Require(stream, weights, shape.Tokens, shape.TopK, nameof(weights));
        Shape.Require(stream, residual, shape.Tokens, shape.Width, nameof(residual));
        long elements = (long)shape.Tokens * shape.Width;
        if (elements == 0 || shape.TopK == 0)
            return;
        bool wide = Shape.IsVectorAligned(expertOutput, 4L * shape.Width) && Shape.IsVectorAligned(residual, 4L * shape.Width);
        int threads = LaunchShape.WholeWarps(stream.Device, wide ? shape.Width / WordElements : shape.Width, Threads);
        var args = new Kernel.Args
        {
            ExpertOutput = expertOutput,
            Weights = weights,
            Residual = residual.SubView(0, elements),
            Tokens = shape.Tokens,
            TopK = shape.TopK,
            Width = shape.Width,
            WideRows = wide ? 1 : 0,
        };
        stream.Device.Launch(WeightedSum, stream, (LaunchShape.Blocks(stream.Device, shape.Tokens, 1), 1, 1), threads, 0, args);
    }
}
