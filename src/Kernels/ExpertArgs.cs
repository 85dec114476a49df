using GpuKit.Ilgpu.Kernels.Formats;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of the two kernels that run the chosen experts of at most 16 tokens.</summary>
internal struct ExpertArgs
{
    /// <summary>Gate and up, one below the other, or down.</summary>
    public StreamedWeights Weights;

    /// <summary>The tokens' inputs, of gate and up.</summary>
    public TileSource Source;

    /// <summary>One token's routing where the kernels make it themselves.</summary>
    public RouterArgs Router;

    /// <summary>[Tokens · TopK] the expert of each pair; of a token's pairs all differ.</summary>
    public ArrayView<int> Experts;

    /// <summary>[Tokens · TopK] float32.</summary>
    public ArrayView<float> PairWeights;

    /// <summary>[Tokens · TopK, Width] BF16: silu(gate) · up.</summary>
    public ArrayView<ushort> Activated;

    /// <summary>[Tokens, N of down] float32, added to.</summary>
    public ArrayView<float> Residual;

    public int Tokens;
    public int TopK;
    public int ExpertCount;

    /// <summary>Rows of gate, of up, and columns of down.</summary>
    public int Width;
}
