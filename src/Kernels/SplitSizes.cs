using GpuKit.Ilgpu.Kernels.Formats;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Teams of four warps that a block of <see cref="SplitGemm"/> has.</summary>
internal interface ISplitTeams
{
    static abstract int Count { get; }
}

internal readonly struct OneTeam : ISplitTeams
{
    public static int Count => 1;
}

internal readonly struct TwoTeams : ISplitTeams
{
    public static int Count => 2;
}

internal readonly struct ThreeTeams : ISplitTeams
{
    public static int Count => 3;
}

internal readonly struct FourTeams : ISplitTeams
{
    public static int Count => 4;
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

    /// <summary>log2 of the bytes of a row of W and 64 columns.</summary>
    public static int WeightRowShift => 8 - TFormat.CodesPerWordShift;

    /// <summary>Bytes of x a stage.</summary>
    public static int InputBytes => Rows * GemmCopies.RowBytes;

    /// <summary>Bytes of a stage: x, then W.</summary>
    public static int StageBytes => InputBytes + (SplitGemm.Columns << WeightRowShift);

    /// <summary>Shared memory of a team: its stages, then its sums.</summary>
    public static int TeamBytes => IntrinsicMath.Max(TStages.Count * StageBytes, Rows * SplitGemm.Pitch * sizeof(float));

    /// <summary>Dynamic shared memory of a block.</summary>
    public static int SharedBytes => TTeams.Count * TeamBytes;

    /// <summary>Threads of a block.</summary>
    public static int Threads => TTeams.Count * SplitGemm.TeamThreads;
}
