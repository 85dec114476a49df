using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of <see cref="HopperGemm"/>: y[M, N] = x[M, K] · W[N, K]ᵀ.</summary>
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

    /// <summary>The multipliers of x: one a row and 128 columns.</summary>
    public ScaleTable InputScales;

    /// <summary>The multipliers of W: blocks of 128 rows or more.</summary>
    public ScaleTable WeightScales;

    public int M;
    public int N;

    /// <summary>Steps along K: 128 bytes of a row each.</summary>
    public int Steps;

    /// <summary>Tiles along M; with clusters, pairs of them.</summary>
    public int RowTiles;

    /// <summary>Tiles along N.</summary>
    public int ColumnTiles;
}
