using GpuKit.Ilgpu.Kernels.Formats;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of the two kernels that run the experts of one token that they route themselves.</summary>
internal struct ExpertArgs
{
    /// <summary>Gate and up, one below the other, or down.</summary>
    public StreamedWeights Weights;

    /// <summary>The token's inputs, of gate and up.</summary>
    public TileSource Source;

    /// <summary>What the choice is made from.</summary>
    public RouterArgs Router;

    /// <summary>[TopK] the chosen experts, written.</summary>
    public ArrayView<int> Experts;

    /// <summary>[TopK] float32, written.</summary>
    public ArrayView<float> PairWeights;

    /// <summary>[TopK, Width] BF16: silu(gate) · up.</summary>
    public ArrayView<ushort> Activated;

    /// <summary>[N of down] float32, added to.</summary>
    public ArrayView<float> Residual;

    public int TopK;
    public int ExpertCount;

    /// <summary>Rows of gate, of up, and columns of down.</summary>
    public int Width;
}
