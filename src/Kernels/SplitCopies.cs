using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// What a thread of <see cref="SplitGemm"/> copies to its team's stages, 16 bytes a copy, and from where: words of rows, counted from the first of x and of the tile. As in
/// <see cref="GemmCopies"/> nothing branches, units of rows of 128 bytes are exchanged, and what lies beyond the part of K is a copy of no bytes.
/// </summary>
internal struct SplitCopies
{
    private const int UnitBytes = 16;

    private ArrayView<uint> x, codes, target;
    private int end, last, inputColumn, weightColumn, inputStart, weightStart;

    // Fields, not an array: that would be local memory.
    private int input0, input1, input2, input3, weight0, weight1, weight2, weight3, weight4, weight5, weight6, weight7;
    private int bytes0, bytes1, bytes2, bytes3;

    /// <summary>A thread's places.</summary>
    public static SplitCopies Locate<TFormat, TWarp, TStages, TTeams>(LinearArgs a, ArrayView<byte> own, int end)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp>
        where TStages : struct, IGemmStages
        where TTeams : struct, ISplitTeams
    {
        int thread = Group.IdxX & (SplitGemm.TeamThreads - 1), codesShift = TFormat.CodesPerWordShift + 2;
        int rowWords = a.K >> TFormat.CodesPerWordShift, first = Grid.IdxX * SplitGemm.Columns;
        SplitCopies c = default;
        c.x = a.X.Cast<uint>();
        ArrayView<uint> words = a.Codes.Cast<uint>();
        c.codes = words.SubView((long)first * rowWords, words.Length - ((long)first * rowWords));
        c.target = own.Cast<uint>();
        c.end = end;
        c.last = a.K;
        int unit = thread & 7, row = thread >> 3;
        c.inputColumn = unit * 8;
        c.inputStart = ((row * GemmCopies.RowBytes) + ((unit ^ (row & 7)) * UnitBytes)) >> 2;
        c.input0 = Input(a, row);
        c.input1 = Input(a, row + 16);
        c.input2 = Input(a, row + 32);
        c.input3 = Input(a, row + 48);
        c.bytes0 = row < a.M ? UnitBytes : 0;
        c.bytes1 = row + 16 < a.M ? UnitBytes : 0;
        c.bytes2 = row + 32 < a.M ? UnitBytes : 0;
        c.bytes3 = row + 48 < a.M ? UnitBytes : 0;
        int rowShift = SplitSizes<TFormat, TWarp, TStages, TTeams>.WeightRowShift, unitsShift = rowShift - 4, step = SplitGemm.TeamThreads >> unitsShift;
        unit = thread & ((1 << unitsShift) - 1);
        row = thread >> unitsShift;
        c.weightColumn = unit << codesShift;
        c.weightStart = (SplitSizes<TFormat, TWarp, TStages, TTeams>.InputBytes + (row << rowShift) + ((TFormat.CodesPerWordShift == 1 ? unit ^ (row & 7) : unit) * UnitBytes)) >> 2;
        int rows = IntrinsicMath.Min(SplitGemm.Columns, a.N - first) - 1;
        c.weight0 = IntrinsicMath.Min(row, rows) * rowWords;
        c.weight1 = IntrinsicMath.Min(row + step, rows) * rowWords;
        c.weight2 = IntrinsicMath.Min(row + (2 * step), rows) * rowWords;
        c.weight3 = IntrinsicMath.Min(row + (3 * step), rows) * rowWords;
        c.weight4 = IntrinsicMath.Min(row + (4 * step), rows) * rowWords;
        c.weight5 = IntrinsicMath.Min(row + (5 * step), rows) * rowWords;
        c.weight6 = IntrinsicMath.Min(row + (6 * step), rows) * rowWords;
        c.weight7 = IntrinsicMath.Min(row + (7 * step), rows) * rowWords;
        return c;
    }

    /// <summary>64 columns of x from <paramref name="k"/> on.</summary>
    public readonly void Inputs<TFormat, TWarp, TStages, TTeams>(int stage, int k)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp>
        where TStages : struct, IGemmStages
        where TTeams : struct, ISplitTeams
    {
        const int Pass = 16 * GemmCopies.RowBytes / 4;
        int column = k + inputColumn, word = IntrinsicMath.Min(column, last - 8) >> 1;
        // K is a multiple of 8: a unit lies within the part or beyond it.
        int exists = column < end ? -1 : 0;
        int to = inputStart + (stage * (SplitSizes<TFormat, TWarp, TStages, TTeams>.StageBytes >> 2));
        CpAsync.Copy16ZeroFill(ref target[to], ref x[input0 + word], bytes0 & exists);
        CpAsync.Copy16ZeroFill(ref target[to + Pass], ref x[input1 + word], bytes1 & exists);
        if (TWarp.InputTiles > 4)
        {
            CpAsync.Copy16ZeroFill(ref target[to + (2 * Pass)], ref x[input2 + word], bytes2 & exists);
            CpAsync.Copy16ZeroFill(ref target[to + (3 * Pass)], ref x[input3 + word], bytes3 & exists);
        }
    }

    /// <summary>64 columns of W from <paramref name="k"/> on. Rows beyond the matrix repeat its last: they are not stored.</summary>
    public readonly void Weights<TFormat, TWarp, TStages, TTeams>(int stage, int k)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp>
        where TStages : struct, IGemmStages
        where TTeams : struct, ISplitTeams
    {
        // A pass is a unit a thread of the team.
        const int Pass = SplitGemm.TeamThreads * UnitBytes / 4;
        int column = k + weightColumn, word = IntrinsicMath.Min(column, last - (4 << TFormat.CodesPerWordShift)) >> TFormat.CodesPerWordShift;
        int bytes = column < end ? UnitBytes : 0;
        int to = weightStart + (stage * (SplitSizes<TFormat, TWarp, TStages, TTeams>.StageBytes >> 2));
        CpAsync.Copy16ZeroFill(ref target[to], ref codes[weight0 + word], bytes);
        CpAsync.Copy16ZeroFill(ref target[to + Pass], ref codes[weight1 + word], bytes);
        if (TFormat.CodesPerWordShift < 3)
        {
            CpAsync.Copy16ZeroFill(ref target[to + (2 * Pass)], ref codes[weight2 + word], bytes);
            CpAsync.Copy16ZeroFill(ref target[to + (3 * Pass)], ref codes[weight3 + word], bytes);
        }
        if (TFormat.CodesPerWordShift < 2)
        {
            CpAsync.Copy16ZeroFill(ref target[to + (4 * Pass)], ref codes[weight4 + word], bytes);
            CpAsync.Copy16ZeroFill(ref target[to + (5 * Pass)], ref codes[weight5 + word], bytes);
            CpAsync.Copy16ZeroFill(ref target[to + (6 * Pass)], ref codes[weight6 + word], bytes);
            CpAsync.Copy16ZeroFill(ref target[to + (7 * Pass)], ref codes[weight7 + word], bytes);
        }
    }

    // Rows beyond x are copies of no bytes, from a place that exists.
    private static int Input(LinearArgs a, int row) => IntrinsicMath.Min(row, a.M - 1) * (a.K >> 1);
}
