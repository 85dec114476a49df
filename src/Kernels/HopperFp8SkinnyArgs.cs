using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of <see cref="HopperFp8Skinny"/>: y[M, N] = x[M, K] · W[N, K]ᵀ. Plain bytes, as <see cref="HopperArgs"/>.</summary>
internal struct HopperFp8SkinnyArgs
{
    /// <summary>Distance of each map from the start of the arguments, for the copy instructions.</summary>
    public const int WeightMap = 0, InputMap = 128;

    /// <summary>W[N, K] codes, tiles of 128 columns × 32 rows.</summary>
    public TensorMap Weight;

    /// <summary>x[M, K] codes, tiles of 128 columns × 8 or 16 rows.</summary>
    public TensorMap Input;

    /// <summary>Address of y[M, OutputStride], BF16 or float32.</summary>
    public long Output;

    /// <summary>Address of the float32 multipliers of x, [M, K / 32].</summary>
    public long InputScales;

    /// <summary>Address of the float32 multipliers of W: one a block of 2^WeightRowShift rows, 32 or more, and 32 columns.</summary>
    public long WeightScales;

    /// <summary>Elements between rows of y.</summary>
    public long OutputStride;

    /// <summary>Chunks of a warp, 1 or 2, whose weights are asked for before the launch before is waited for.</summary>
    public int EarlyChunks;

    public int WeightRowShift;
    public int M;
    public int N;
    public int K;
}
