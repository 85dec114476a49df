using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// The multipliers of a lane's two rows of x times those of its tile's columns for 128 columns of K. A tile of up to 192 columns, which begins at a multiple of 32 columns (of 64,
/// where it is wider than 160), meets at most two blocks of W's scales: the second from column 16 · edge on.
/// </summary>
internal struct HopperScales
{
    private const int ColumnsShift = 7, Extent = 1 << ColumnsShift;

    private long upperRow, lowerRow, firstColumns, secondColumns;
    private int edge, columnShift;
    private float upper, lower, first, second;

    /// <summary>Where they lie for a tile of a warpgroup.</summary>
    public static HopperScales At(HopperArgs a, HopperTile place)
    {
        int row = place.Row + (((Group.IdxX >> 5) & 3) * 16) + (Warp.LaneIdx >> 2);
        HopperScales scales = default;
        scales.edge = (Extent - (place.Column & (Extent - 1))) >> 4;
        scales.columnShift = a.WeightColumnShift - ColumnsShift;
        scales.upperRow = Row(a, row);
        scales.lowerRow = Row(a, row + 8);
        scales.firstColumns = Columns(a, place.Column);
        scales.secondColumns = Columns(a, place.Column + (16 * scales.edge));
        return scales;
    }

    /// <summary>Fetches those of a step.</summary>
    public void Load(int step)
    {
        long inputs = step * sizeof(float), weights = (step >> columnShift) * sizeof(float);
        upper = Mem.LoadReadOnlyFloat(upperRow + inputs);
        lower = Mem.LoadReadOnlyFloat(lowerRow + inputs);
        first = Mem.LoadReadOnlyFloat(firstColumns + weights);
        second = Mem.LoadReadOnlyFloat(secondColumns + weights);
    }

    /// <summary>Adds what a step has summed to the totals.</summary>
    public readonly void Promote<TProduct>()
        where TProduct : struct, IHopperProduct
    {
        if (TProduct.Columns == 128)
        {
            Wgmma.Promote0(upper * first, lower * first);
            Wgmma.Promote1(upper * first, lower * first);
        }
        else if (TProduct.Columns == 160)
        {
            WgmmaFp8.PromoteFirst128(upper * first, lower * first, upper * second, lower * second, edge);
            WgmmaFp8.PromoteLast32(upper * second, lower * second);
        }
        else
        {
            float middle = edge == Extent / 16 ? first : second;
            Wgmma.Promote0(upper * first, lower * first);
            Wgmma.Promote1(upper * middle, lower * middle);
            Wgmma.Promote2(upper * second, lower * second);
        }
    }

    // Rows beyond x have zeros as operands and the last row's scales.
    private static long Row(HopperArgs a, int row) =>
        a.InputScales + ((long)IntrinsicMath.Min(row, a.M - 1) * a.InputScaleColumns * sizeof(float));

    // What lies beyond W is not stored and takes the scales of the last block.
    private static long Columns(HopperArgs a, int column) =>
        a.WeightScales + ((long)(IntrinsicMath.Min(column, a.N - 1) >> a.WeightRowShift) * a.WeightScaleColumns * sizeof(float));
}
