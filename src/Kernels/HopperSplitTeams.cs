using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>How the four warpgroups of a block of <see cref="HopperSplitGemm"/> share its steps.</summary>
internal interface IHopperTeams
{
    /// <summary>Teams, which take steps in turn.</summary>
    static abstract int Count { get; }

    /// <summary>Rows of W, columns of y, of a tile: 64 for each warpgroup of a team.</summary>
    static abstract int Columns { get; }

    /// <summary>Threads of a team.</summary>
    static abstract int Threads { get; }
}

/// <summary>Two teams of two warpgroups, which share x.</summary>
internal readonly struct TwoHopperTeams : IHopperTeams
{
    public static int Count => 2;

    public static int Columns => 2 * HopperMixedGemm.WarpgroupColumns;

    public static int Threads => 2 * Warpgroup.Threads;
}

/// <summary>Four teams of one warpgroup: half the tile, so that fewer blocks, or one, have to share K.</summary>
internal readonly struct FourHopperTeams : IHopperTeams
{
    public static int Count => 4;

    public static int Columns => HopperMixedGemm.WarpgroupColumns;

    public static int Threads => Warpgroup.Threads;
}

/// <summary>Sizes of <see cref="HopperSplitGemm"/> that follow from type arguments, for kernel and host; constants to the compiler.</summary>
internal static class HopperSplitSizes<TTeams, TWidth>
    where TTeams : struct, IHopperTeams
    where TWidth : struct, IMixedWidth
{
    // What all stages may take together.
    private const int MostStageBytes = 192 << 10;

    /// <summary>Bytes of half of x of a step, 64 columns.</summary>
    public static int HalfBytes => TWidth.Rows * HopperMixedGemm.RowBytes;

    /// <summary>Bytes of a stage: x's columns 0 to 63 of the step, its columns 64 to 127, the codes.</summary>
    public static int StageBytes => (2 * HalfBytes) + (TTeams.Columns * HopperMixedGemm.RowBytes);

    /// <summary>Stages of a team, as many as fit: two to four.</summary>
    public static int Stages => MostStageBytes / (TTeams.Count * StageBytes);

    /// <summary>Whether a stage is filled again in the step behind the one that read it, when hardly anybody has to be waited for; with two it would be too late.</summary>
    public static bool FillsAStepLater => Stages > 2;

    /// <summary>Where the barriers begin: "full" of all stages, and behind them as many "empty".</summary>
    public static int Barriers => TTeams.Count * Stages * StageBytes;

    /// <summary>Bytes of the barriers of one kind.</summary>
    public static int BarrierBytes => TTeams.Count * Stages * HopperGemm.BarrierBytes;

    /// <summary>Dynamic shared memory of a block.</summary>
    public static int SharedBytes => Barriers + (2 * BarrierBytes);
}
