using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Arguments of <see cref="HopperGemm"/>: y[M, N] = x[M, K] · W[N, K]ᵀ. Plain bytes without views, which the driver copies as they are: its
/// own way of passing arguments knows where ones that need an alignment go.
/// </summary>
internal struct HopperArgs
{
    /// <summary>Distance of each map from the start of the arguments, for the copy instructions.</summary>
    public const int InputMap = 0, WeightMap = 128, OutputMap = 256;

    /// <summary>x[M, K], tiles of 128 bytes × the rows of a block.</summary>
    public TensorMap Input;

    /// <summary>W[N, K], tiles of 128 bytes × the rows that a block loads.</summary>
    public TensorMap Weight;

    /// <summary>y[M, N], tiles of 128 bytes × 64 rows.</summary>
    public TensorMap Output;

    /// <summary>Address of the float32 multipliers of x, [M, InputScaleColumns]: one a row and 128 columns.</summary>
    public long InputScales;

    /// <summary>Address of the float32 multipliers of W, [.., WeightScaleColumns]: one a block of 2^WeightRowShift rows, 128 or more, and 2^WeightColumnShift columns.</summary>
    public long WeightScales;

    public int InputScaleColumns;
    public int WeightScaleColumns;
    public int WeightRowShift;
    public int WeightColumnShift;
    public int M;
    public int N;

    /// <summary>Steps along K: 128 bytes of a row each.</summary>
    public int Steps;

    /// <summary>Tiles along M; with clusters, pairs of them.</summary>
    public int RowTiles;

    /// <summary>Tiles along N.</summary>
    public int ColumnTiles;
}
