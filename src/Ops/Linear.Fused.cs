using GpuKit.Ilgpu.Kernels;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <content>Products whose sums are changed before they are rounded and stored.</content>
public static partial class Linear
{
    /// <summary>
    /// Multiplies and adds: <c>y[i, n] = Σ_k x[i, k] · W[n, k] + bias[n] + residual[i, n]</c>, in float32, rounded once to BF16.
    /// </summary>
    /// <remarks>
    /// Bitwise repeatable; a row's bits do not depend on the other rows, and on a card may differ from those of
    /// <see cref="Multiply(GpuStream, QuantizedMatrix, ArrayView{BFloat16}, ArrayView{BFloat16}, int, int, Accumulator)"/> with few rows, which
    /// takes another path. On a card products run in tiles for any m where views are 16-byte aligned, K fills 16-byte words and scale blocks
    /// have 64 columns or more, else as dot products by warps.
    /// </remarks>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="weights"><c>W[N, K]</c>; one matrix.</param>
    /// <param name="x"><c>[m, K]</c> BF16.</param>
    /// <param name="y"><c>[m, N]</c> BF16.</param>
    /// <param name="m">Rows; 0 does nothing.</param>
    /// <param name="bias"><c>[N]</c> BF16, or empty for none.</param>
    /// <param name="residual"><c>[m, N]</c> BF16, or empty for none. May be <paramref name="y"/> itself where its rows are not apart.</param>
    /// <param name="yStride">Elements between rows of y; N when 0.</param>
    /// <exception cref="ArgumentException">A view is too short or on another device, or the matrix is a stack.</exception>
    public static void MultiplyAdd(GpuStream stream, QuantizedMatrix weights, ArrayView<BFloat16> x, ArrayView<BFloat16> y, int m, ArrayView<BFloat16> bias = default, ArrayView<BFloat16> residual = default, int yStride = 0)
    {
        RequireOutput(stream, weights, y, m, yStride);
        LaunchFused(stream, weights, (x, bias, residual), y, gated: false, (m, yStride));
    }

    /// <summary>
    /// Multiplies by gates and values and joins them (SwiGLU): with w = N / 2, <c>y[i, j] = silu(Σ_k x[i, k] · W[j, k]) · Σ_k x[i, k] ·
    /// W[w + j, k]</c>, in float32, rounded once to BF16. The products themselves are not stored.
    /// </summary>
    /// <inheritdoc cref="MultiplyAdd" path="/remarks"/>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="weights"><c>W[N, K]</c>, the rows of the gate projection above those of the up projection; one matrix, N even.</param>
    /// <param name="x"><c>[m, K]</c> BF16.</param>
    /// <param name="y"><c>[m, N / 2]</c> BF16.</param>
    /// <param name="m">Rows; 0 does nothing.</param>
    /// <param name="yStride">Elements between rows of y; N / 2 when 0.</param>
    /// <exception cref="ArgumentException">A view is too short or on another device, N is odd, or the matrix is a stack.</exception>
    public static void MultiplyGated(GpuStream stream, QuantizedMatrix weights, ArrayView<BFloat16> x, ArrayView<BFloat16> y, int m, int yStride = 0)
    {
        ArgumentNullException.ThrowIfNull(stream);
        ArgumentNullException.ThrowIfNull(weights);
        if (weights.N % 2 != 0)
            throw new ArgumentException($"{weights.N} rows are not as many gates as values.", nameof(weights));
        RequireOutput(stream, weights, y, m, yStride, weights.N / 2);
        LaunchFused(stream, weights, (x, default, default), y, gated: true, (m, yStride));
    }

    /// <summary>The same on a path and tile chosen by the caller, for tests and benchmarks.</summary>
    internal static void LaunchFused(GpuStream stream, QuantizedMatrix weights, (ArrayView<BFloat16> X, ArrayView<BFloat16> Bias, ArrayView<BFloat16> Residual) inputs, ArrayView<BFloat16> y, bool gated, (int M, int YStride) size, LinearPath? path = null, GemmTile? tile = null)
    {
        RequireOne(weights);
        Shape.Require(stream, inputs.X, size.M, weights.K, "x");
        if (inputs.Bias.Length > 0)
            Shape.Require(stream, inputs.Bias, 1, weights.N, "bias");
        if (inputs.Residual.Length > 0)
            Shape.Require(stream, inputs.Residual, size.M, weights.N, "residual");
        int width = gated ? weights.N / 2 : weights.N;
        if (size.M == 0 || width == 0)
            return;
        var shape = new LinearShape(size.M, weights.N, weights.K, weights.Format, IsAligned(weights, inputs.X), 0, weights.Block);
        LinearDevice device = LinearDevice.Of(stream.Device);
        LinearPath wanted = path ?? (!device.IsCuda ? LinearPath.Scalar : shape.CanPipeline ? LinearPath.Gemm : LinearPath.Gemv);
        LinearPlan plan = wanted == LinearPath.Gemm ? GemmPlan.Choose(shape, device, gated, tile) : LinearPlan.Choose(shape with { N = width }, device, wanted);
        LinearArgs args = CreateArgs(weights, inputs.X, y.Cast<byte>(), size.M, size.YStride == 0 ? width : size.YStride);
        args.Bias = inputs.Bias.Cast<ushort>();
        args.Residual = inputs.Residual.Cast<ushort>();
        args.WholeTiles = plan.WholeTiles;
        GemmEpilogue epilogue = gated ? GemmEpilogue.Gated : Epilogue(inputs.Bias.Length > 0, inputs.Residual.Length > 0);
        var kernel = plan.Tile is { } chosen ? GemmKernels.Get(weights.Format, chosen, epilogue) : FusedKernels.Get(weights.Format, plan.Path, epilogue);
        stream.Device.Launch(kernel, stream, (plan.GridX, plan.GridY, 1), plan.Threads, plan.SharedBytes, args);
    }

    private static GemmEpilogue Epilogue(bool bias, bool residual) =>
        bias ? residual ? GemmEpilogue.BiasResidual : GemmEpilogue.Bias : residual ? GemmEpilogue.Residual : GemmEpilogue.Plain;
}
