using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Arguments of <see cref="HopperMixedGemm"/>: y[M, N] = x[M, K] · W[N, K]ᵀ, or with experts y[order[i]] = W[e] · x[i] for the places i of expert e. Plain bytes, as
/// <see cref="HopperArgs"/>.
/// </summary>
internal struct HopperMixedArgs
{
    /// <summary>Distance of each map from the start of the arguments, for the copy instructions.</summary>
    public const int InputMap = 0, WeightMap = 128;

    /// <summary>x[M, K] BF16, tiles of 64 columns × 32 rows, or as many as a tile of <see cref="HopperSplitGemm"/> has.</summary>
    public TensorMap Input;

    /// <summary>W[experts · N, K] codes, tiles of 128 columns × the rows of a tile: 128, or as many as one of <see cref="HopperSplitGemm"/> has.</summary>
    public TensorMap Weight;

    /// <summary>Address of y[M, YStride].</summary>
    public long Output;

    /// <summary>Address of the float32 multipliers of W: one a block of 2^WeightRowShift rows, 128 or more, and 2^WeightColumnShift columns, 128 or more.</summary>
    public long WeightScales;

    /// <summary>Address of the first place of each expert and the end, [ExpertCount + 1] int32, with experts.</summary>
    public long Offsets;

    /// <summary>Address of the rows of y that the places stand for, [M] int32, or 0: place i is row i.</summary>
    public long Order;

    /// <summary>Bytes between rows of y.</summary>
    public long OutputStride;

    public int ExpertCount;
    public int ScalesPerExpert;
    public int WeightScaleColumns;
    public int WeightRowShift;
    public int WeightColumnShift;
    public int M;
    public int N;

    /// <summary>Steps along K: 128 columns each.</summary>
    public int Steps;

    /// <summary>Most rows of x of a tile: 64, 128, 160, 176 or 192, in <see cref="HopperSplitGemm"/> 32 or 64.</summary>
    public int TileRows;

    /// <summary>Tiles along N.</summary>
    public int ColumnTiles;

    /// <summary>Tiles that are one block's, of one matrix.</summary>
    public int WholeTiles;

    /// <summary>Tiles behind them that two blocks each share along K (<see cref="HopperMixedTurns"/>).</summary>
    public int SharedTiles;

    /// <summary>Address of totals of shared tiles (<see cref="HopperMixedSharing"/>), or, where K is split (<see cref="HopperSplitGemm"/>), of float32 sums of its parts, [parts, row tiles, column tiles, 64, tile columns].</summary>
    public long Partials;

    /// <summary>Address of counters, zero before and afterwards: two a shared tile, or one a column tile where K is split.</summary>
    public long Arrived;

    /// <summary>Steps of a part, where K is split.</summary>
    public int PartSteps;

    /// <summary>Stages of a team, 1 or 2, whose weights are asked for before the launch before is waited for, where K is split.</summary>
    public int EarlyStages;
}
