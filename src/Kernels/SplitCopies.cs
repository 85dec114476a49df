using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// What a thread of <see cref="SplitGemm"/> copies to its team's stages, 16 bytes a copy, and from where: such units of rows, counted from the first of x and of the tile. As in
/// <see cref="GemmCopies"/> nothing branches, units of rows of 128 bytes are exchanged, and what lies beyond the part of K is a copy of no bytes.
/// </summary>
internal struct SplitCopies
{
    private const int UnitBytes = 16;

    private ArrayView<U4> x, codes;
    private ArrayView<byte> target;
    private int end, last, inputColumn, weightColumn, inputStart, weightStart;

    // Fields, not arrays: those would be local memory.
    private int input0, input1, input2, input3, input4, input5, input6, input7;
    private int weight0, weight1, weight2, weight3, weight4, weight5, weight6, weight7;

    /// <summary>A thread's places.</summary>
    public static SplitCopies Locate<TFormat, TWarp, TStages, TTeams>(LinearArgs a, ArrayView<byte> own, int end)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp>
        where TStages : struct, IGemmStages
        where TTeams : struct, ISplitTeams
    {
        int threads = SplitSizes<TFormat, TWarp, TStages, TTeams>.TeamThreads, thread = Group.IdxX & (threads - 1), codesShift = TFormat.CodesPerWordShift + 2;
        int columns = SplitSizes<TFormat, TWarp, TStages, TTeams>.Columns, rowUnits = a.K >> codesShift, first = Grid.IdxY * columns;
        SplitCopies c = default;
        int firstInput = Grid.IdxX * SplitSizes<TFormat, TWarp, TStages, TTeams>.Rows;
        c.x = a.X.Cast<U4>();
        ArrayView<U4> units = a.Codes.Cast<U4>();
        c.codes = units.SubView((long)first * rowUnits, units.Length - ((long)first * rowUnits));
        c.target = own;
        c.end = end;
        c.last = a.K;
        int unit = thread & 7, row = thread >> 3;
        c.inputColumn = unit * 8;
        c.inputStart = (row * GemmCopies.RowBytes) + ((unit ^ (row & 7)) * UnitBytes);
        int inputStep = threads >> 3;
        c.input0 = Input(a, firstInput + row);
        c.input1 = Input(a, firstInput + row + inputStep);
        c.input2 = Input(a, firstInput + row + (2 * inputStep));
        c.input3 = Input(a, firstInput + row + (3 * inputStep));
        c.input4 = Input(a, firstInput + row + (4 * inputStep));
        c.input5 = Input(a, firstInput + row + (5 * inputStep));
        c.input6 = Input(a, firstInput + row + (6 * inputStep));
        c.input7 = Input(a, firstInput + row + (7 * inputStep));
        int rowShift = SplitSizes<TFormat, TWarp, TStages, TTeams>.WeightRowShift, unitsShift = rowShift - 4, step = threads >> unitsShift;
        unit = thread & ((1 << unitsShift) - 1);
        row = thread >> unitsShift;
        c.weightColumn = unit << codesShift;
        c.weightStart = SplitSizes<TFormat, TWarp, TStages, TTeams>.InputBytes + (row << rowShift) + ((TFormat.CodesPerWordShift == 1 ? unit ^ (row & 7) : unit) * UnitBytes);
        int rows = IntrinsicMath.Min(columns, a.N - first) - 1;
        c.weight0 = IntrinsicMath.Min(row, rows) * rowUnits;
        c.weight1 = IntrinsicMath.Min(row + step, rows) * rowUnits;
        c.weight2 = IntrinsicMath.Min(row + (2 * step), rows) * rowUnits;
        c.weight3 = IntrinsicMath.Min(row + (3 * step), rows) * rowUnits;
        c.weight4 = IntrinsicMath.Min(row + (4 * step), rows) * rowUnits;
        c.weight5 = IntrinsicMath.Min(row + (5 * step), rows) * rowUnits;
        c.weight6 = IntrinsicMath.Min(row + (6 * step), rows) * rowUnits;
        c.weight7 = IntrinsicMath.Min(row + (7 * step), rows) * rowUnits;
        return c;
    }

    /// <summary>64 columns of x from <paramref name="k"/> on.</summary>
    public readonly void Inputs<TFormat, TWarp, TStages, TTeams>(int stage, int k)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp>
        where TStages : struct, IGemmStages
        where TTeams : struct, ISplitTeams
    {
        // A pass is a unit a thread of the team.
        int threads = SplitSizes<TFormat, TWarp, TStages, TTeams>.TeamThreads, pass = threads * UnitBytes, passes = TWarp.InputTiles * 64 / threads;
        // K is a multiple of 8: a unit lies within the part or beyond it.
        int column = k + inputColumn, unit = IntrinsicMath.Min(column, last - 8) >> 3, exists = column < end ? 1 : 0;
        ArrayView<uint> to = To<TFormat, TWarp, TStages, TTeams>(inputStart, stage);
        CpAsync.Copy16OfLineAt(ref to[0], 0, ref x[input0 + unit], exists);
        CpAsync.Copy16OfLineAt(ref to[0], pass, ref x[input1 + unit], exists);
        if (passes > 2)
        {
            CpAsync.Copy16OfLineAt(ref to[0], 2 * pass, ref x[input2 + unit], exists);
            CpAsync.Copy16OfLineAt(ref to[0], 3 * pass, ref x[input3 + unit], exists);
        }
        if (passes > 4)
        {
            CpAsync.Copy16OfLineAt(ref to[0], 4 * pass, ref x[input4 + unit], exists);
            CpAsync.Copy16OfLineAt(ref to[0], 5 * pass, ref x[input5 + unit], exists);
            CpAsync.Copy16OfLineAt(ref to[0], 6 * pass, ref x[input6 + unit], exists);
            CpAsync.Copy16OfLineAt(ref to[0], 7 * pass, ref x[input7 + unit], exists);
        }
    }

    /// <summary>64 columns of W from <paramref name="k"/> on. Rows beyond the matrix repeat its last: they are not stored.</summary>
    public readonly void Weights<TFormat, TWarp, TStages, TTeams>(int stage, int k)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp>
        where TStages : struct, IGemmStages
        where TTeams : struct, ISplitTeams
    {
        int pass = SplitSizes<TFormat, TWarp, TStages, TTeams>.TeamThreads * UnitBytes;
        int column = k + weightColumn, unit = IntrinsicMath.Min(column, last - (4 << TFormat.CodesPerWordShift)) >> (TFormat.CodesPerWordShift + 2);
        int exists = column < end ? 1 : 0;
        ArrayView<uint> to = To<TFormat, TWarp, TStages, TTeams>(weightStart, stage);
        CpAsync.Copy16OfLineAt(ref to[0], 0, ref codes[weight0 + unit], exists);
        CpAsync.Copy16OfLineAt(ref to[0], pass, ref codes[weight1 + unit], exists);
        if (TFormat.CodesPerWordShift < 3)
        {
            CpAsync.Copy16OfLineAt(ref to[0], 2 * pass, ref codes[weight2 + unit], exists);
            CpAsync.Copy16OfLineAt(ref to[0], 3 * pass, ref codes[weight3 + unit], exists);
        }
        if (TFormat.CodesPerWordShift < 2)
        {
            CpAsync.Copy16OfLineAt(ref to[0], 4 * pass, ref codes[weight4 + unit], exists);
            CpAsync.Copy16OfLineAt(ref to[0], 5 * pass, ref codes[weight5 + unit], exists);
            CpAsync.Copy16OfLineAt(ref to[0], 6 * pass, ref codes[weight6 + unit], exists);
            CpAsync.Copy16OfLineAt(ref to[0], 7 * pass, ref codes[weight7 + unit], exists);
        }
    }

    private readonly ArrayView<uint> To<TFormat, TWarp, TStages, TTeams>(int start, int stage)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp>
        where TStages : struct, IGemmStages
        where TTeams : struct, ISplitTeams => target.SubView(start + (stage * SplitSizes<TFormat, TWarp, TStages, TTeams>.StageBytes), UnitBytes).Cast<uint>();

    // Rows beyond x are its first sixteen: the last one for all is slower, as is not to copy them (docs/kernels/gemm.md). Their sums are not stored.
    private static int Input(LinearArgs a, int row) => (row < a.M ? row : row & 15) * (a.K >> 3);
}
