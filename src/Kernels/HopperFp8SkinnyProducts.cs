using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Where a lane of <see cref="HopperFp8Skinny"/> reads: multipliers of the rows of x that its sums are of and of the tile's weights, and its words in a stage.</summary>
internal struct HopperFp8SkinnyPlace
{
    public long Scales0, Scales1, Scales2, Scales3, Weights;

    /// <summary>Its first row of W within a stage, and what that exchanges words by; the same of its row of x.</summary>
    public uint Row, Word, InputRow, InputWord;
}

/// <summary>Multipliers of a chunk's four groups for the two rows of x of a tile that a lane's sums are of, in one tile or two; <see cref="Weights"/> until those of the weights are multiplied in.</summary>
internal struct HopperFp8SkinnyScales
{
    public F4 Column0, Column1, Column2, Column3, Weights;

    /// <summary>Multiplies those of the weights in.</summary>
    public readonly HopperFp8SkinnyScales Multiplied<TTiles>()
        where TTiles : struct, ITiles
    {
        HopperFp8SkinnyScales scales = default;
        scales.Column0 = Times(Column0);
        scales.Column1 = Times(Column1);
        if (TTiles.Count == 2)
        {
            scales.Column2 = Times(Column2);
            scales.Column3 = Times(Column3);
        }
        return scales;
    }

    private readonly F4 Times(F4 column)
    {
        column.X *= Weights.X;
        column.Y *= Weights.Y;
        column.Z *= Weights.Z;
        column.W *= Weights.W;
        return column;
    }
}

/// <summary>Loads and products of a chunk in <see cref="HopperFp8Skinny"/>.</summary>
/// <remarks>
/// The copy engine exchanges the 16-byte words of a row by its number modulo 8, so pairs of words, which are groups, by all but its lowest bit. 16 lanes that are served together, the pairs of four rows, ask for all banks once if those rows
/// are two apart.
/// </remarks>
internal static class HopperFp8SkinnyProducts
{
    /// <summary>Rows that a lane's two rows of x are apart.</summary>
    public const int InputRowStep = 2;

    // What one lane has of a group: the lanes of a quad have one after the other.
    private const int LaneBytes = HopperFp8Skinny.GroupColumns / 4, RowBytes = HopperFp8Skinny.ChunkColumns;

    /// <summary>The first of a lane's rows of W; the others are the next one and the same two 16 further on.</summary>
    public static int Row(int lane) => 2 * (lane >> 2);

    /// <summary>The row of x in a column of a product.</summary>
    public static int InputRow(int column) => ((column & 3) * InputRowStep) + (column >> 2);

    /// <summary>A lane's places. Rows of x beyond M take the last one's multipliers; their sums are not stored.</summary>
    public static HopperFp8SkinnyPlace Locate(HopperFp8SkinnyArgs a)
    {
        int lane = Group.IdxX & 31, column = InputRow(2 * (lane & 3)), last = a.M - 1, row = Row(lane), inputRow = InputRow(lane >> 2);
        long groups = a.K / HopperFp8Skinny.GroupColumns * sizeof(float);
        HopperFp8SkinnyPlace place;
        place.Scales0 = a.InputScales + (IntrinsicMath.Min(column, last) * groups);
        place.Scales1 = a.InputScales + (IntrinsicMath.Min(column + InputRowStep, last) * groups);
        place.Scales2 = a.InputScales + (IntrinsicMath.Min(column + SkinnyGemm.Columns, last) * groups);
        place.Scales3 = a.InputScales + (IntrinsicMath.Min(column + SkinnyGemm.Columns + InputRowStep, last) * groups);
        place.Weights = a.WeightScales + (((Grid.IdxX * HopperFp8Skinny.Rows) >> a.WeightRowShift) * groups);
        uint within = (uint)((lane & 1) * LaneBytes);
        place.Row = (uint)(row * RowBytes) + within;
        place.Word = Word(lane, row);
        place.InputRow = (uint)(inputRow * RowBytes) + within;
        place.InputWord = Word(lane, inputRow);
        return place;
    }

    // Where the lane's word of the first group is in a row; those of other groups are exchanged by their number.
    private static uint Word(int lane, int row) => (uint)((((lane & 3) >> 1) ^ row) & 7) << 4;

    /// <summary>A lane's multipliers of a chunk. Plain loads: those of x may be the output of the launch before.</summary>
    public static HopperFp8SkinnyScales LoadScales<TTiles>(HopperFp8SkinnyPlace place, int chunk)
        where TTiles : struct, ITiles
    {
        HopperFp8SkinnyScales scales = default;
        long at = chunk * 16L;
        scales.Column0 = Float4(place.Scales0 + at);
        scales.Column1 = Float4(place.Scales1 + at);
        scales.Weights = Float4(place.Weights + at);
        if (TTiles.Count == 2)
        {
            scales.Column2 = Float4(place.Scales2 + at);
            scales.Column3 = Float4(place.Scales3 + at);
        }
        return scales;
    }

    private static F4 Float4(long address) => Float32Output.Values(Mem.LoadGlobalFrom(address));

    /// <summary>Adds the products of the first two groups of a chunk that is in a stage.</summary>
    public static void MultiplyFirst<TTiles>(uint stage, HopperFp8SkinnyPlace place, HopperFp8SkinnyScales scales, ref SkinnyAccumulators sums)
        where TTiles : struct, ITiles
    {
        Multiply<TTiles>(stage, place, 0, (scales.Column0.X, scales.Column1.X, scales.Column2.X, scales.Column3.X), ref sums);
        Multiply<TTiles>(stage, place, 32, (scales.Column0.Y, scales.Column1.Y, scales.Column2.Y, scales.Column3.Y), ref sums);
    }

    /// <summary>Those of the last two.</summary>
    public static void MultiplySecond<TTiles>(uint stage, HopperFp8SkinnyPlace place, HopperFp8SkinnyScales scales, ref SkinnyAccumulators sums)
        where TTiles : struct, ITiles
    {
        Multiply<TTiles>(stage, place, 64, (scales.Column0.Z, scales.Column1.Z, scales.Column2.Z, scales.Column3.Z), ref sums);
        Multiply<TTiles>(stage, place, 96, (scales.Column0.W, scales.Column1.W, scales.Column2.W, scales.Column3.W), ref sums);
    }

    // A group: two products for each 16 rows and tile of x, which are added first and then multiplied.
    private static void Multiply<TTiles>(uint stage, HopperFp8SkinnyPlace place, uint group, (float C0, float C1, float C2, float C3) columns, ref SkinnyAccumulators sums)
        where TTiles : struct, ITiles
    {
        const uint Lower = 16 * RowBytes, SecondTile = SkinnyGemm.Columns * RowBytes;
        uint even = stage + place.Row + (place.Word ^ group), odd = stage + place.Row + RowBytes + (place.Word ^ group ^ 16), x = stage + place.InputRow + HopperFp8Skinny.WeightBytes + (place.InputWord ^ group);
        U4 x0 = Decode(SharedWindow.Load2(x)), x1 = TTiles.Count == 2 ? Decode(SharedWindow.Load2(x + SecondTile)) : default;
        U4 row0 = Decode(SharedWindow.Load2(even)), row1 = Decode(SharedWindow.Load2(odd));
        U2 lower0 = SharedWindow.Load2(even + Lower), lower1 = SharedWindow.Load2(odd + Lower);
        sums.Upper0 = Add(sums.Upper0, Product(row0, row1, x0), columns.C0, columns.C1);
        if (TTiles.Count == 2)
            sums.Upper1 = Add(sums.Upper1, Product(row0, row1, x1), columns.C2, columns.C3);
        row0 = Decode(lower0);
        row1 = Decode(lower1);
        sums.Lower0 = Add(sums.Lower0, Product(row0, row1, x0), columns.C0, columns.C1);
        if (TTiles.Count == 2)
            sums.Lower1 = Add(sums.Lower1, Product(row0, row1, x1), columns.C2, columns.C3);
    }

    private static U4 Decode(U2 codes) => StreamedFp8Inputs128.ToF16(codes.X, codes.Y);

    private static F4 Product(U4 row0, U4 row1, U4 x)
    {
        F4 part = SkinnyProducts.Multiply<StreamedFp8Half>(row0.X, row1.X, row0.Y, row1.Y, x.X, x.Y, default);
        return SkinnyProducts.Multiply<StreamedFp8Half>(row0.Z, row1.Z, row0.W, row1.W, x.Z, x.W, part);
    }

    // Registers X and Y belong to one row of W, Z and W to the next; X and Z to an even column of x, Y and W to the next.
    private static F4 Add(F4 sum, F4 part, float column0, float column1)
    {
        sum.X = Fast.Fma(part.X, column0, sum.X);
        sum.Y = Fast.Fma(part.Y, column1, sum.Y);
        sum.Z = Fast.Fma(part.Z, column0, sum.Z);
        sum.W = Fast.Fma(part.W, column1, sum.W);
        return sum;
    }
}
