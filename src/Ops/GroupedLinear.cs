using GpuKit.Ilgpu.Kernels;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>Which expert each row of a grouped product goes to, on the device.</summary>
/// <param name="Experts"><c>[M]</c> the expert of each row, 0 ≤ e &lt; the stack's count.</param>
/// <param name="Order"><c>[M]</c> the rows sorted by expert (stable).</param>
/// <param name="Offsets"><c>[experts + 1]</c> where each expert's rows begin in <paramref name="Order"/>.</param>
public readonly record struct ExpertRouting(ArrayView<int> Experts, ArrayView<int> Order, ArrayView<int> Offsets);

/// <summary>
/// Multiplication of each row by its expert's matrix: <c>y[p] = W[expert(p)] · x[p / rowsPerInput]</c> for M rows p,
/// accumulated in float32. Nothing is read back: routing decides on the device.
/// </summary>
/// <remarks>Determinism and paths as for <see cref="Linear"/>; tensor cores from 16 rows an expert on average.</remarks>
public static class GroupedLinear
{
    /// <summary>Multiplies into BF16.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="weights"><c>W[experts, N, K]</c>.</param>
    /// <param name="routing">The expert of each row. A row whose expert does not exist becomes NaN or stays unwritten; nothing else is read.</param>
    /// <param name="x"><c>[m / rowsPerInput, K]</c> BF16.</param>
    /// <param name="y"><c>[m, N]</c> BF16, rounded once.</param>
    /// <param name="size">Rows, sharing and stride.</param>
    /// <exception cref="ArgumentException">A view is too short or on another device.</exception>
    public static void Multiply(GpuStream stream, QuantizedMatrix weights, in ExpertRouting routing, ArrayView<BFloat16> x, ArrayView<BFloat16> y, in GroupedSize size)
    {
        Linear.RequireOutput(stream, weights, y, size.M, size.YStride);
        Launch(stream, weights, routing, x, y.Cast<byte>(), false, size);
    }

    /// <summary>Multiplies into float32.</summary>
    /// <inheritdoc cref="Multiply(GpuStream, QuantizedMatrix, in ExpertRouting, ArrayView{BFloat16}, ArrayView{BFloat16}, in GroupedSize)"/>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="weights"><c>W[experts, N, K]</c>.</param>
    /// <param name="routing">The expert of each row.</param>
    /// <param name="x"><c>[m / rowsPerInput, K]</c> BF16.</param>
    /// <param name="y"><c>[m, N]</c> float32.</param>
    /// <param name="size">Rows, sharing and stride.</param>
    public static void Multiply(GpuStream stream, QuantizedMatrix weights, in ExpertRouting routing, ArrayView<BFloat16> x, ArrayView<float> y, in GroupedSize size)
    {
        Linear.RequireOutput(stream, weights, y, size.M, size.YStride);
        Launch(stream, weights, routing, x, y.Cast<byte>(), true, size);
    }

    /// <summary>The same with the path and decoder chosen by the caller, for tests and benchmarks.</summary>
    internal static void Launch(GpuStream stream, QuantizedMatrix weights, in ExpertRouting routing, ArrayView<BFloat16> x, ArrayView<byte> y, bool float32, in GroupedSize size, LinearPath? path = null, Fp8Decoding? decoding = null, GemmTile? tile = null)
    {
        if (size.RowsPerInput < 1 || size.M % size.RowsPerInput != 0)
            throw new ArgumentException($"{size.M} rows cannot share inputs in groups of {size.RowsPerInput}.", nameof(size));
        Shape.Require(stream, x, size.M / size.RowsPerInput, weights.K, nameof(x));
        Shape.Require(stream, routing.Experts, 1, size.M, "routing.Experts");
        Shape.Require(stream, routing.Order, 1, size.M, "routing.Order");
        Shape.Require(stream, routing.Offsets, 1, weights.Count + 1L, "routing.Offsets");
        if (size.M == 0)
            return;
        var shape = new LinearShape(size.M, weights.N, weights.K, weights.Format, Linear.IsAligned(weights, x), weights.Count, weights.Block);
        LinearPlan plan = LinearPlan.Choose(shape, LinearDevice.Of(stream.Device), path, decoding, tile);
        LinearArgs args = Linear.CreateArgs(weights, x, y, size.M, size.YStride, float32);
        args.Experts = routing.Experts;
        args.Order = routing.Order;
        args.Offsets = routing.Offsets;
        args.ExpertCount = weights.Count;
        args.RowsPerInput = size.RowsPerInput;
        stream.Device.Launch(LinearKernels.Get(plan, weights.Format, size.M, float32, grouped: true), stream, (plan.GridX, plan.GridY, 1), plan.Threads, plan.SharedBytes, args);
    }
}

/// <summary>Sizes of a grouped product.</summary>
/// <param name="M">Rows of the output.</param>
/// <param name="RowsPerInput">Consecutive rows that read the same row of x: top-k for the first projection of experts, 1 for the second.</param>
/// <param name="YStride">Elements between rows of y; N when 0.</param>
public readonly record struct GroupedSize(int M, int RowsPerInput = 1, int YStride = 0);
