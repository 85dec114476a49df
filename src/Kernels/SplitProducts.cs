using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Where a lane of <see cref="SplitGemm"/> finds operands and scales: the latter of the rows g, g + 8, g + 16 and g + 24 of its warp's 32 of W.</summary>
internal struct SplitPlace
{
    public GemmPlace Operands;
    public int Row0, Row1, Row2, Row3;
    public int Scales0, Scales1, Scales2, Scales3;
}

/// <summary>What multiplies the sums of a turn, and what decoding needs.</summary>
internal struct SplitScales
{
    public GemmScales Scales;
    public uint Operand0, Operand1, Operand2, Operand3;
}

/// <summary>The multiplications of <see cref="SplitGemm"/>.</summary>
internal static class SplitProducts
{
    /// <summary>A lane's places.</summary>
    public static SplitPlace Locate<TFormat, TWarp, TStages, TTeams>(LinearArgs a)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp>
        where TStages : struct, IGemmStages
        where TTeams : struct, ISplitTeams
    {
        int lane = Group.IdxX & 31, firstWeight = ((Group.IdxX >> 5) & ((1 << TTeams.WarpsShift) - 1)) * SplitGemm.WarpColumns, last = a.N - 1;
        int row = (Grid.IdxY * SplitSizes<TFormat, TWarp, TStages, TTeams>.Columns) + firstWeight + (lane >> 2);
        SplitPlace place = default;
        place.Operands = GemmProducts.Locate<TFormat>(lane, 0, firstWeight, SplitSizes<TFormat, TWarp, TStages, TTeams>.InputBytes);
        place.Row0 = IntrinsicMath.Min(row, last);
        place.Row1 = IntrinsicMath.Min(row + 8, last);
        place.Row2 = IntrinsicMath.Min(row + 16, last);
        place.Row3 = IntrinsicMath.Min(row + 24, last);
        place.Scales0 = (int)a.ScaleIndex(0, place.Row0, 0);
        if (HasOneScale<TFormat>())
            return place;
        place.Scales1 = (int)a.ScaleIndex(0, place.Row1, 0);
        place.Scales2 = (int)a.ScaleIndex(0, place.Row2, 0);
        place.Scales3 = (int)a.ScaleIndex(0, place.Row3, 0);
        return place;
    }

    /// <summary>What the turn at <paramref name="k"/> needs from global memory, requested before the turn waits for its copies.</summary>
    public static SplitScales Scales<TFormat>(LinearArgs a, SplitPlace place, int k)
        where TFormat : struct, ITiledFormat
    {
        SplitScales scales = default;
        if (TFormat.HasRowScales)
        {
            // No turn begins beyond K, and a block has 64 columns or more.
            ArrayView<uint> blocks = a.Scales.Cast<uint>();
            int block = k >> a.ColumnShift;
            scales.Scales.Upper0 = Interop.IntAsFloat(Mem.LoadReadOnly1(ref blocks[place.Scales0 + block]));
            if (HasOneScale<TFormat>())
            {
                scales.Scales.Lower0 = scales.Scales.Upper0;
                scales.Scales.Upper1 = scales.Scales.Upper0;
                scales.Scales.Lower1 = scales.Scales.Upper0;
                return scales;
            }
            scales.Scales.Lower0 = Interop.IntAsFloat(Mem.LoadReadOnly1(ref blocks[place.Scales1 + block]));
            scales.Scales.Upper1 = Interop.IntAsFloat(Mem.LoadReadOnly1(ref blocks[place.Scales2 + block]));
            scales.Scales.Lower1 = Interop.IntAsFloat(Mem.LoadReadOnly1(ref blocks[place.Scales3 + block]));
        }
        if (TFormat.HasOperands)
        {
            // Codes beyond K are zeros: any operand will do.
            int column = IntrinsicMath.Min(k + place.Operands.Column, a.K - 1);
            scales.Operand0 = TFormat.Operand(a.ScaleTable, 0, place.Row0, column);
            scales.Operand1 = TFormat.Operand(a.ScaleTable, 0, place.Row1, column);
            scales.Operand2 = TFormat.Operand(a.ScaleTable, 0, place.Row2, column);
            scales.Operand3 = TFormat.Operand(a.ScaleTable, 0, place.Row3, column);
        }
        return scales;
    }

    /// <summary>Adds the products of a stage.</summary>
    public static void Turn<TFormat, TWarp, TStages, TTeams>(ArrayView<byte> own, SplitPlace place, SplitScales scales, int stage, ref TWarp sums)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp>
        where TStages : struct, IGemmStages
        where TTeams : struct, ISplitTeams
    {
        int start = stage * SplitSizes<TFormat, TWarp, TStages, TTeams>.StageBytes;
        if (TFormat.CodesPerWordShift == 1)
        {
            Step<TFormat, TWarp>(own, place.Operands, start, 0, ref sums);
            Step<TFormat, TWarp>(own, place.Operands, start, 1, ref sums);
            Step<TFormat, TWarp>(own, place.Operands, start, 2, ref sums);
            Step<TFormat, TWarp>(own, place.Operands, start, 3, ref sums);
            return;
        }
        ArrayView<uint> stored = Words(own, start + place.Operands.Weight);
        GemmUnitRows rows;
        rows.Even = Words(own, start + place.Operands.Input);
        rows.Odd = Words(own, start + (place.Operands.Input ^ 16));
        int eightRows = 8 << SplitSizes<TFormat, TWarp, TStages, TTeams>.WeightRowShift;
        GemmCodes codes;
        codes.Upper0 = GemmCodeTurns.Load<TFormat>(stored, 0);
        codes.Lower0 = GemmCodeTurns.Load<TFormat>(stored, eightRows);
        codes.Upper1 = GemmCodeTurns.Load<TFormat>(stored, 2 * eightRows);
        codes.Lower1 = GemmCodeTurns.Load<TFormat>(stored, 3 * eightRows);
        codes.UpperOperand0 = scales.Operand0;
        codes.LowerOperand0 = scales.Operand1;
        codes.UpperOperand1 = scales.Operand2;
        codes.LowerOperand1 = scales.Operand3;
        GemmChunk w;
        w.Step0 = GemmProducts.Decode<TFormat, TWarp>(codes, 0);
        w.Step1 = GemmProducts.Decode<TFormat, TWarp>(codes, 1);
        w.Step2 = GemmProducts.Decode<TFormat, TWarp>(codes, 2);
        w.Step3 = GemmProducts.Decode<TFormat, TWarp>(codes, 3);
        w.Scales = scales.Scales;
        if (!HasOneScale<TFormat>() || TWarp.InputTiles > 4)
        {
            TWarp.Chunk<TFormat>(ref sums, rows, 0, w);
            return;
        }
        // E4M3 by 32 rows: up to 3 % faster, while others have no registers for it (docs/kernels/gemm.md).
        TWarp parts = default;
        TWarp.HalfChunk<TFormat>(ref parts, rows, 0, w, false);
        TWarp.HalfChunk<TFormat>(ref parts, rows, 0, w, true);
        TWarp.Fold<TFormat>(ref sums, parts, w.Scales);
    }

    private static ArrayView<uint> Words(ArrayView<byte> bytes, int start) => bytes.SubView(start, 16).Cast<uint>();

    // Blocks of E4M3 have 32 rows or more (LinearShape.CanSplit), as a warp has, and begin where one does.
    private static bool HasOneScale<TFormat>()
        where TFormat : struct, ITiledFormat => TFormat.HasRowScales && TFormat.CodesPerWordShift == 2;

    private static void Step<TFormat, TWarp>(ArrayView<byte> own, GemmPlace place, int start, int step, ref TWarp sums)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp>
    {
        GemmOperands operands = GemmProducts.Operands<TWarp>(own, place, start, start, step);
        TWarp.Step<TFormat>(ref sums, operands.X, operands.W);
    }
}
