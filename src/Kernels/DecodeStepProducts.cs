using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>One lane's sums of the rows g and g + 8 of an mma's 16.</summary>
internal struct DecodeStepSums
{
    public float Upper, Lower;
}

/// <summary>What a product of <see cref="DecodeStep"/> multiplies: so many groups of eight rows, in pairs, of so many matrices of so many columns.</summary>
internal struct DecodeStepProduct
{
    public int Groups, Matrices, Columns;
}

/// <summary>
/// The products of <see cref="DecodeStep"/>. Rows of weights are the 16-row operand of an mma, x all of its eight columns alike. The warps share the columns of a
/// segment in whole chunks of 64, so each slot is emptied by all of them at once, and add up in warp order at the end.
/// </summary>
internal static class DecodeStepProducts
{
    private const int ChunkCodes = 64;

    /// <summary>A warp's sums of the block's rows. A meeting must follow.</summary>
    /// <param name="ring">Where the weights come from.</param>
    /// <param name="product">Its shape.</param>
    /// <param name="x">Address of the inputs in the order that the format multiplies them in; those of each matrix follow one another.</param>
    /// <param name="weights">What each matrix's sums are multiplied by; one matrix has none.</param>
    /// <param name="columnShift">log2 of the columns that share a multiplier.</param>
    /// <param name="partials">[rows] where the warp's sums go.</param>
    public static void Run<TFormat>(ref DecodeStepRing ring, DecodeStepProduct product, uint x, ArrayView<float> weights, int columnShift, ArrayView<float> partials)
        where TFormat : struct, IStreamedFormat
    {
        int lane = Group.IdxX & 31;
        for (int group = 0; group < product.Groups; group += 2)
        {
            bool hasLower = group + 1 < product.Groups;
            DecodeStepSums sums = default;
            for (int matrix = 0; matrix < product.Matrices; matrix++)
            {
                float weight = product.Matrices > 1 ? weights[matrix] * TFormat.Correction : TFormat.Correction;
                uint inputs = x + (uint)(matrix * product.Columns * sizeof(ushort));
                for (int s = 0; s * DecodeStepSegment.MostCodes < product.Columns; s++)
                    Segment<TFormat>(ref ring, (DecodeStepSegment.Of(product.Columns, s), columnShift, hasLower), inputs, weight, ref sums);
            }
            if ((lane & 3) > 0)
                continue;
            int place = (group * DecodeStepRing.GroupRows) + (lane >> 2);
            partials[place] = sums.Upper;
            if (hasLower)
                partials[place + DecodeStepRing.GroupRows] = sums.Lower;
        }
    }

    private static void Segment<TFormat>(ref DecodeStepRing ring, (DecodeStepSegment Columns, int Shift, bool HasLower) part, uint x, float weight, ref DecodeStepSums sums)
        where TFormat : struct, IStreamedFormat
    {
        DecodeStepSegment segment = part.Columns;
        uint upper = ring.Address, empty = ring.Empty, lower = upper, secondEmpty = empty;
        bool hasSecond = part.HasLower && !segment.IsPaired;
        Mbarrier.Wait(ring.Full, ring.Parity);
        ring.Advance();
        if (part.HasLower)
            lower = upper + (uint)(DecodeStepRing.GroupRows * segment.Pitch);
        if (hasSecond)
        {
            lower = ring.Address;
            secondEmpty = ring.Empty;
            Mbarrier.Wait(ring.Full, ring.Parity);
            ring.Advance();
        }
        int lane = Group.IdxX & 31, warp = Group.IdxX >> 5, warps = DecodeStep.Multipliers, chunks = segment.Codes >> 6;
        int chunk = warp * chunks / warps, end = (warp + 1) * chunks / warps;
        uint row = (uint)(((lane >> 2) * segment.Pitch) + ((lane & 3) * 16)), own = x + (uint)((segment.Start * sizeof(ushort)) + ((lane & 3) * 32));
        DecodeStepLane place;
        place.Upper = upper + row;
        place.Lower = lower + row;
        place.UpperScales = upper + (uint)segment.ScaleOffset;
        place.LowerScales = lower + (uint)segment.ScaleOffset;
        place.Inputs = own;
        place.Shift = part.Shift;
        for (; chunk + 1 < end; chunk += 2)
        {
            DecodeStepSums first = Multiply<TFormat>(place, chunk), second = Multiply<TFormat>(place, chunk + 1);
            sums.Upper = Fast.Fma(first.Upper + second.Upper, weight, sums.Upper);
            sums.Lower = Fast.Fma(first.Lower + second.Lower, weight, sums.Lower);
        }
        if (chunk < end)
        {
            DecodeStepSums last = Multiply<TFormat>(place, chunk);
            sums.Upper = Fast.Fma(last.Upper, weight, sums.Upper);
            sums.Lower = Fast.Fma(last.Lower, weight, sums.Lower);
        }
        WarpOps.Barrier(); // the warp has read the slots before they are given back
        if (lane > 0)
            return;
        Mbarrier.Arrive(empty);
        if (hasSecond)
            Mbarrier.Arrive(secondEmpty);
    }

    // 16 rows by 64 columns.
    private static DecodeStepSums Multiply<TFormat>(DecodeStepLane place, int chunk)
        where TFormat : struct, IStreamedFormat
    {
        U4 upper = SharedWindow.Load(place.Upper + (uint)(chunk * ChunkCodes)), lower = SharedWindow.Load(place.Lower + (uint)(chunk * ChunkCodes));
        uint x = place.Inputs + (uint)(chunk * ChunkCodes * sizeof(ushort)), scale = (uint)(((chunk * ChunkCodes) >> place.Shift) * sizeof(float));
        F4 first = Step<TFormat>(upper, lower, 0, SharedWindow.Load(x)), second = Step<TFormat>(upper, lower, 1, SharedWindow.Load(x + 16));
        DecodeStepSums sums;
        sums.Upper = (first.X + second.X) * Interop.IntAsFloat(SharedWindow.LoadWord(place.UpperScales + scale));
        sums.Lower = (first.Z + second.Z) * Interop.IntAsFloat(SharedWindow.LoadWord(place.LowerScales + scale));
        return sums;
    }

    private static F4 Step<TFormat>(U4 upper, U4 lower, int step, U4 x)
        where TFormat : struct, IStreamedFormat
    {
        U4 first = TFormat.Decode(upper, step, 0), second = TFormat.Decode(lower, step, 0);
        F4 part = SkinnyProducts.Multiply<TFormat>(first.X, second.X, first.Y, second.Y, x.X, x.Y, default);
        return SkinnyProducts.Multiply<TFormat>(first.Z, second.Z, first.W, second.W, x.Z, x.W, part);
    }

    /// <summary>A row's sum over the warps, in their order.</summary>
    public static float Collect(ArrayView<float> partials, int row, int rows)
    {
        float sum = 0;
        for (int warp = 0; warp < DecodeStep.Multipliers; warp++)
            sum += partials[(warp * rows) + row];
        return sum;
    }
}

/// <summary>Where a lane reads its rows, their multipliers and its inputs.</summary>
internal struct DecodeStepLane
{
    public uint Upper, Lower, UpperScales, LowerScales, Inputs;
    public int Shift;
}
