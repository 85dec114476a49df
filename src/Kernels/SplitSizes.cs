using GpuKit.Ilgpu.Kernels.Formats;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Teams of warps that a block of <see cref="SplitGemm"/> has. A tile is as wide as a team.</summary>
internal interface ISplitTeams
{
    static abstract int Count { get; }

    /// <summary>log2 of the warps of a team, of which each has <see cref="SplitGemm.WarpColumns"/> rows of W.</summary>
    static abstract int WarpsShift { get; }
}

/// <summary>A team of four warps: tiles of 128 rows of W.</summary>
internal readonly struct OneTeam : ISplitTeams
{
    public static int Count => 1;

    public static int WarpsShift => 2;
}

/// <inheritdoc cref="OneTeam"/>
internal readonly struct TwoTeams : ISplitTeams
{
    public static int Count => 2;

    public static int WarpsShift => 2;
}

/// <inheritdoc cref="OneTeam"/>
internal readonly struct ThreeTeams : ISplitTeams
{
    public static int Count => 3;

    public static int WarpsShift => 2;
}

/// <inheritdoc cref="OneTeam"/>
internal readonly struct FourTeams : ISplitTeams
{
    public static int Count => 4;

    public static int WarpsShift => 2;
}

/// <summary>Teams of two warps: tiles of 64 rows of W.</summary>
internal readonly struct FourPairs : ISplitTeams
{
    public static int Count => 4;

    public static int WarpsShift => 1;
}

/// <inheritdoc cref="FourPairs"/>
internal readonly struct SixPairs : ISplitTeams
{
    public static int Count => 6;

    public static int WarpsShift => 1;
}

/// <inheritdoc cref="FourPairs"/>
internal readonly struct EightPairs : ISplitTeams
{
    public static int Count => 8;

    public static int WarpsShift => 1;
}

/// <summary>Sizes of <see cref="SplitGemm"/> that follow from type arguments, for kernel and host; constants to the compiler.</summary>
internal static class SplitSizes<TFormat, TWarp, TStages, TTeams>
    where TFormat : struct, ITiledFormat
    where TWarp : struct, IGemmWarp<TWarp>
    where TStages : struct, IGemmStages
    where TTeams : struct, ISplitTeams
{
    /// <summary>Rows of x of a tile.</summary>
    public static int Rows => TWarp.InputTiles * 8;

    /// <summary>Rows of W of a tile.</summary>
    public static int Columns => SplitGemm.WarpColumns << TTeams.WarpsShift;

    /// <summary>Floats between rows of sums in shared memory; four beside a power of two keep a warp's stores in 32 banks.</summary>
    public static int Pitch => Columns + 4;

    /// <summary>Threads of a team.</summary>
    public static int TeamThreads => 32 << TTeams.WarpsShift;

    /// <summary>log2 of the bytes of a row of W and 64 columns.</summary>
    public static int WeightRowShift => 8 - TFormat.CodesPerWordShift;

    /// <summary>Bytes of x a stage.</summary>
    public static int InputBytes => Rows * GemmCopies.RowBytes;

    /// <summary>Bytes of a stage: x, then W.</summary>
    public static int StageBytes => InputBytes + (Columns << WeightRowShift);

    /// <summary>Shared memory of a team: its stages, then its sums.</summary>
    public static int TeamBytes => IntrinsicMath.Max(TStages.Count * StageBytes, Rows * Pitch * sizeof(float));

    /// <summary>Dynamic shared memory of a block.</summary>
    public static int SharedBytes => TTeams.Count * TeamBytes;

    /// <summary>Threads of a block.</summary>
    public static int Threads => TTeams.Count * TeamThreads;
}
