using ILGPU;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Several linear layers of the same input whose outputs lie side by side in one row. One matrix where their rows can share
/// one; else a few that write into the same buffer.
/// </summary>
internal sealed class FusedLinear(IReadOnlyList<(QuantizedMatrix Matrix, int Offset)> parts) : IDisposable
{
    /// <summary>Width of an output row.</summary>
    public int Width { get; } = parts.Sum(p => p.Matrix.N);

    /// <summary>The matrices, in the order of their outputs.</summary>
    public IEnumerable<QuantizedMatrix> Matrices => parts.Select(p => p.Matrix);

    /// <summary>The matrix, where there is but one.</summary>
    public QuantizedMatrix? Single => parts.Count == 1 ? parts[0].Matrix : null;

    /// <summary>Bytes of weights and scales.</summary>
    public long Bytes => parts.Sum(p => p.Matrix.Bytes);

    /// <summary>y[m, Width] = x[m, K] · Wᵀ.</summary>
    public void Multiply(GpuStream stream, ArrayView<BFloat16> x, ArrayView<BFloat16> y, int m)
    {
        foreach ((QuantizedMatrix matrix, int offset) in parts)
            Linear.Multiply(stream, matrix, x, y.SubView(offset, y.Length - offset), m, Width);
    }

    /// <summary>y[m, Width] = x[m, K] · Wᵀ in float32.</summary>
    public void Multiply(GpuStream stream, ArrayView<BFloat16> x, ArrayView<float> y, int m)
    {
        foreach ((QuantizedMatrix matrix, int offset) in parts)
            Linear.Multiply(stream, matrix, x, y.SubView(offset, y.Length - offset), m, Width);
    }

    /// <summary>The same with each row's expert.</summary>
    public void Multiply(GpuStream stream, in ExpertRouting routing, ArrayView<BFloat16> x, ArrayView<BFloat16> y, GroupedSize size)
    {
        foreach ((QuantizedMatrix matrix, int offset) in parts)
            GroupedLinear.Multiply(stream, matrix, routing, x, y.SubView(offset, y.Length - offset), size with { YStride = Width });
    }

    /// <summary>The same with each row's expert, in float32.</summary>
    public void Multiply(GpuStream stream, in ExpertRouting routing, ArrayView<BFloat16> x, ArrayView<float> y, GroupedSize size)
    {
        foreach ((QuantizedMatrix matrix, int offset) in parts)
            GroupedLinear.Multiply(stream, matrix, routing, x, y.SubView(offset, y.Length - offset), size with { YStride = Width });
    }

    public void Dispose()
    {
        foreach ((QuantizedMatrix matrix, _) in parts)
            matrix.Dispose();
    }
}
