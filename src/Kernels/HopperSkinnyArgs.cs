using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of <see cref="HopperSkinnyGemm"/> and <see cref="HopperSweep"/>: y[M, N] = x[M, K] · W[N, K]ᵀ. Plain bytes, as <see cref="HopperArgs"/>.</summary>
internal struct HopperSkinnyArgs
{
    /// <summary>Distances of the maps from the start of the arguments, for the copy instructions.</summary>
    public const int WeightMap = 0, MultiplierMap = 128;

    /// <summary>Rows of W as bytes, tiles of 128 (<see cref="HopperSweep"/>: 64) bytes × 32 rows.</summary>
    public TensorMap Weight;

    /// <summary>What multiplies W's groups, tiles of 16 bytes × 32 rows: [N, ScaleColumns] float32 or [N, K / 16] E4M3 (<see cref="HopperSweep"/>).</summary>
    public TensorMap Multipliers;

    /// <summary>Address of x: [M, K] BF16 or codes.</summary>
    public long X;

    /// <summary>Address of y[M, OutputStride], BF16 or float32.</summary>
    public long Output;

    /// <summary>Address of the float32 multipliers of W: of groups of a row, or the matrix's (NVFP4).</summary>
    public long Scales;

    /// <summary>Address of the E4M3 multipliers of W's groups, [N, K / 16] (NVFP4).</summary>
    public long Groups;

    /// <summary>Address of W's zero points, two a byte.</summary>
    public long ZeroPoints;

    /// <summary>Elements between rows of y.</summary>
    public long OutputStride;

    public int M;
    public int N;
    public int K;
    public int ScaleRowShift;
    public int ScaleColumnShift;
    public int ScaleColumns;

    /// <summary>Tiles of 32 rows of W (<see cref="HopperSkinnyGemm"/>).</summary>
    public int Tiles;

    /// <summary>Chunks of 128 bytes of a row of W (<see cref="HopperSkinnyGemm"/>).</summary>
    public int Chunks;

    /// <summary>Address of the E4M3 multipliers of x's groups, [M, K / 16], where x is NVFP4.</summary>
    public long InputGroups;

    /// <summary>Address of the float32 multipliers of x: one a row (NVFP4).</summary>
    public long InputScales;
}
