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

    /// <summary>A block's share of one of a layer's products. Units of gate and up are two groups: eight gate rows and the eight up rows beside them.</summary>
    public static DecodeStepProduct Of(DecodeStepArgs a, DecodeStepShares shares, int product)
    {
        DecodeStepProduct p;
        p.Groups = shares.OfProduct(product).Count * (product == DecodeStep.GateUp ? 2 : 1);
        p.Matrices = product == DecodeStep.Down ? a.TopK : 1;
        p.Columns = product == DecodeStep.Output ? (int)a.Attended.Length : product == DecodeStep.Down ? a.Width : a.Hidden;
        return p;
    }
}

/// <summary>
/// The products of <see cref="DecodeStep"/>. Rows of weights are the 16-row operand of an mma, x all of its eight columns alike. The warps take turns along a row, 128
/// columns at a time, so each slot is emptied by all of them at once, and add up in warp order at the end.
/// </summary>
/// <remarks>
/// Rows in a slot lie as in memory, mostly a multiple of 128 bytes apart, so that two rows that are read at once meet the same banks: each load takes twice as long. Rows moved apart would
/// need a copy each, and a copy costs the producer more than the conflict costs here.
/// </remarks>
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
        int lane = Group.IdxX & 31, rowShift = DecodeStepTile.RowShiftOf(product.Columns);
        for (int group = 0; group < product.Groups; group += 2)
        {
            bool hasLower = group + 1 < product.Groups;
            DecodeStepTile tile = DecodeStepTile.Of(product.Columns, rowShift, hasLower);
            DecodeStepSums sums = default;
            for (int matrix = 0; matrix < product.Matrices; matrix++)
            {
                float weight = product.Matrices > 1 ? weights[matrix] * TFormat.Correction : TFormat.Correction;
                Multiply<TFormat>(ref ring, (tile, columnShift, hasLower), x + (uint)(matrix * product.Columns * sizeof(ushort)), weight, ref sums);
            }
            if ((lane & 3) > 0)
                continue;
            int place = (group * DecodeStepRing.GroupRows) + (lane >> 2);
            partials[place] = sums.Upper;
            if (hasLower)
                partials[place + DecodeStepRing.GroupRows] = sums.Lower;
        }
    }

    private static void Multiply<TFormat>(ref DecodeStepRing ring, (DecodeStepTile Tile, int Shift, bool HasLower) part, uint x, float weight, ref DecodeStepSums sums)
        where TFormat : struct, IStreamedFormat
    {
        DecodeStepRing first = ring;
        for (int s = 0; s < part.Tile.Slots; s++)
        {
            Mbarrier.Wait(ring.Full, ring.Parity);
            ring.Advance();
        }
        int lane = Group.IdxX & 31, row = lane >> 2;
        uint own = (uint)((lane & 3) * 16);
        DecodeStepLane place;
        place.Upper = part.Tile.RowAddress(first, row) + own;
        place.Lower = part.Tile.RowAddress(first, part.HasLower ? row + DecodeStepRing.GroupRows : row) + own;
        place.UpperScales = part.Tile.ScaleAddress(first, false);
        place.LowerScales = part.Tile.ScaleAddress(first, part.HasLower);
        place.Inputs = x + (uint)((lane & 3) * 32);
        place.Shift = part.Shift;
        for (int pair = Group.IdxX >> 5; pair < part.Tile.Columns >> 7; pair += DecodeStep.Multipliers)
        {
            DecodeStepSums even = Chunk<TFormat>(place, 2 * pair), odd = Chunk<TFormat>(place, (2 * pair) + 1);
            sums.Upper = Fast.Fma(even.Upper + odd.Upper, weight, sums.Upper);
            sums.Lower = Fast.Fma(even.Lower + odd.Lower, weight, sums.Lower);
        }
        WarpOps.Barrier(); // the warp has read the slots before they are given back
        if (lane > 0)
            return;
        for (int s = 0; s < part.Tile.Slots; s++)
        {
            Mbarrier.Arrive(first.Empty);
            first.Advance();
        }
    }

    // 16 rows by 64 columns.
    private static DecodeStepSums Chunk<TFormat>(DecodeStepLane place, int chunk)
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
}

/// <summary>Where a lane reads its rows, their multipliers and its inputs.</summary>
internal struct DecodeStepLane
{
    public uint Upper, Lower, UpperScales, LowerScales, Inputs;
    public int Shift;
}
