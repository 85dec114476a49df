using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>The end of a block of <see cref="SkinnyGemm"/> or <see cref="SkinnyArranging"/>: the warps' sums meet in shared memory.</summary>
internal static class SkinnySums
{
    // Between columns of x, so that what a warp's lanes store at once lies in different banks.
    private const int ColumnStep = SkinnyGemm.Rows + 4;

    /// <summary>Sums of one warp in one tile of x: [column of x][row of W].</summary>
    public const int TileSums = SkinnyGemm.Columns * ColumnStep;

    /// <summary>Adds the sums of the warps, in their order, and stores them, a lane a row of W. Called once by every thread of the block.</summary>
    public static void Add<TFormat, TInput, TOutput, TTiles>(LinearArgs a, SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TOutput : struct, IOutput
        where TTiles : struct, ITiles
    {
        // Asked anew, memory too, not kept in registers all the time.
        ArrayView<float> partials = SharedMemory.GetDynamic<float>();
        int lane = (int)WarpOps.LaneId(), warp = Group.IdxX >> 5, warps = Group.DimX >> 5;
        long n = SkinnyGemm.FirstRow<TInput>(a) + lane;
        // Found before the warps meet; multipliers of rows of x are asked for by a lane each.
        float scale = WeightScale<TFormat, TInput>(a, (int)IntrinsicMath.Min(n, a.N - 1)), inputScales = TInput.HasRowScales ? a.InputScales.Blocks[IntrinsicMath.Min(lane, a.M - 1)] : 1f;
        long to = ((long)(SkinnyGemm.FirstInput<TInput>(a) + warp) * a.YStride) + n;
        int start = warp * TTiles.Count * TileSums;
        Publish(partials, start, lane, sums.Upper0);
        Publish(partials, start + (SkinnyGemm.Rows / 2), lane, sums.Lower0);
        if (TTiles.Count == 2)
        {
            Publish(partials, start + TileSums, lane, sums.Upper1);
            Publish(partials, start + TileSums + (SkinnyGemm.Rows / 2), lane, sums.Lower1);
        }
        // All warps' sums are there before they are added.
        Block.Barrier();
        // A warp a row of x; all lanes stay for the shuffle.
        int rows = IntrinsicMath.Min(SkinnyGemm.TileRows(TInput.ScaleColumns == 32) * TTiles.Count, a.M - SkinnyGemm.FirstInput<TInput>(a));
        for (int row = warp; row < rows; row += warps, to += (long)warps * a.YStride)
        {
            // Of a format with row scales the block has all rows of x.
            float inputScale = TInput.HasRowScales ? Interop.IntAsFloat(WarpOps.Shuffle(Interop.FloatAsInt(inputScales), row)) : 1f;
            // Where halves of a chunk are scaled apart a tile has four rows of x (SkinnyGemm.TileRows), then the same rows' second halves.
            int first = lane + (TInput.ScaleColumns == 32 ? ((row >> 2) * TileSums) + ((row & 3) * ColumnStep) : row * ColumnStep);
            float sum = Sum<TInput>(partials.SubView(first, partials.Length - first), TTiles.Count * TileSums, warps);
            sum = Finish<TFormat, TInput>(sum, scale);
            if (n < a.N)
                TOutput.Store(a.Y, to, TInput.HasRowScales ? Fast.Mul(sum, inputScale) : sum);
        }
    }

    // The warps' sums at one place, in their order. Of a number that the compiler knows all are on their way at once: with few weights a block has most warps, and waits for little else; with many a lane has several rows.
    private static float Sum<TInput>(ArrayView<float> partials, int step, int warps)
        where TInput : struct, IStreamedInputs
    {
        float sum = 0, seconds = 0;
        if (warps == SkinnyGemm.MostWarps)
        {
            AddWarps<TInput>(partials, step, SkinnyGemm.MostWarps, ref sum, ref seconds);
        }
        else
        {
            int warp = 0;
            for (; warp + 4 <= warps; warp += 4)
                AddWarps<TInput>(partials.SubView(warp * step, partials.Length - (warp * step)), step, 4, ref sum, ref seconds);
            // Behind the last warp's sums there is nothing to see.
            if (warp < warps)
                AddWarps<TInput>(partials.SubView(warp * step, partials.Length - (warp * step)), step, warps - warp, ref sum, ref seconds);
        }
        if (TInput.AreIntegers)
            return (int)Interop.FloatAsInt(sum);
        return TInput.ScaleColumns == 32 ? sum + seconds : sum;
    }

    // Where halves of a chunk are scaled apart the row's second ones are added apart. Integers' bits are whole numbers when divided by what products are multiplied by; a warp's fills 32 bits.
    private static void AddWarps<TInput>(ArrayView<float> partials, int step, int count, ref float sum, ref float seconds)
        where TInput : struct, IStreamedInputs
    {
        for (int warp = 0; warp < count; warp++)
        {
            float part = partials[warp * step];
            sum = TInput.AreIntegers
                ? Interop.IntAsFloat((uint)((int)Interop.FloatAsInt(sum) + ((int)Interop.FloatAsInt(part) >> StreamedInt4Bytes.ProductShift)))
                : sum + part;
            if (TInput.ScaleColumns == 32)
                seconds += partials[(warp * step) + (SkinnyGemm.TileRows(true) * ColumnStep)];
        }
    }

    /// <summary>What multiplies whole sums of row <paramref name="n"/> of W, with what undoes powers of two.</summary>
    public static float WeightScale<TFormat, TInput>(LinearArgs a, int n)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        if (TFormat.HasGroupScales)
            return a.Scales[0] * (TInput.AreCodes ? TFormat.Correction * TFormat.Correction : TFormat.Correction);
        return TInput.AreIntegers ? a.Scales[a.ScaleIndex(0, n, 0)] : 1f;
    }

    /// <summary>A whole sum times what multiplies it for its row of W; the multiplier of its row of x follows.</summary>
    public static float Finish<TFormat, TInput>(float sum, float weightScale)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs => TFormat.HasGroupScales || TInput.AreIntegers ? Fast.Mul(sum, weightScale) : sum;

    private static void Publish(ArrayView<float> partials, int start, int lane, F4 sum)
    {
        partials[start + (MmaFragment.CColumn(lane, 0) * ColumnStep) + MmaFragment.CRow(lane, 0)] = sum.X;
        partials[start + (MmaFragment.CColumn(lane, 1) * ColumnStep) + MmaFragment.CRow(lane, 1)] = sum.Y;
        partials[start + (MmaFragment.CColumn(lane, 2) * ColumnStep) + MmaFragment.CRow(lane, 2)] = sum.Z;
        partials[start + (MmaFragment.CColumn(lane, 3) * ColumnStep) + MmaFragment.CRow(lane, 3)] = sum.W;
    }
}

/// <summary>Tiles of 8 columns, rows of x, that share the decoded weights.</summary>
internal interface ITiles
{
    static abstract int Count { get; }
}

/// <summary>1..8 rows; 1..4 where halves of a chunk are scaled apart.</summary>
internal readonly struct OneTile : ITiles
{
    public static int Count => 1;
}

/// <summary>Up to twice as many.</summary>
internal readonly struct TwoTiles : ITiles
{
    public static int Count => 2;
}
