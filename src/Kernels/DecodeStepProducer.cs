using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>A matrix, or a stack of them, as the producers of <see cref="DecodeStep"/> read it.</summary>
internal struct DecodeStepMatrix
{
    public long Codes, Scales;
    public int Rows, Columns;

    /// <summary>log2 of the rows that a slot holds.</summary>
    public int RowShift;
}

/// <summary>
/// The two warps of <see cref="DecodeStep"/> that ask for weights, each into a ring of its own: one those of attention, which are known for all layers, the other those of
/// the experts, which are known when a token is routed. Neither waits for anything else, so both run ahead of the multiplying warps as far as their rings allow, also through
/// the points where blocks wait for each other.
/// </summary>
internal static class DecodeStepProducer
{
    public static void RunDense(DecodeStepArgs a, DecodeStepShares shares, DecodeStepRing ring)
    {
        for (int turn = 0; turn < 2 * a.LayerCount; turn++)
        {
            bool isOutput = (turn & 1) != 0;
            int rows = isOutput ? a.Hidden : (int)a.QueryKeyValue.Length, columns = isOutput ? (int)a.Attended.Length : a.Hidden;
            DecodeStepMatrix matrix = Matrix(a, turn >> 1, (int)(isOutput ? DecodeLayerField.Output : DecodeLayerField.QueryKeyValue), rows, columns);
            DecodeStepShare groups = shares.OfProduct(isOutput ? DecodeStep.Output : DecodeStep.QueryKeyValue);
            for (int group = 0; group < groups.Count; group += 2)
                LoadRows(a, ref ring, matrix, 0, Rows(groups, group));
        }
    }

    public static void RunExperts(DecodeStepArgs a, DecodeStepShares shares, DecodeStepRing ring, ArrayView<int> chosen, uint routed)
    {
        int perExpert = a.Width >> 3;
        DecodeStepShare units = shares.OfProduct(DecodeStep.GateUp), groups = shares.OfProduct(DecodeStep.Down);
        int all = units.Count + (((groups.Count + 1) >> 1) * a.TopK);
        for (int layer = 0; layer < a.LayerCount; layer++)
        {
            // Before the wait, behind which nothing should wait for memory but the weights.
            DecodeStepMatrix gateUp = Matrix(a, layer, (int)DecodeLayerField.GateUp, 2 * a.Width, a.Hidden), down = Matrix(a, layer, (int)DecodeLayerField.Down, a.Hidden, a.Width);
            Mbarrier.Wait(routed, (uint)(layer & 1));
            // Units of gate and up, then pairs of groups of down, each of all experts.
            for (int i = 0; i < all; i++)
            {
                bool isDown = i >= units.Count;
                int down2 = i - units.Count, pair = down2 / a.TopK, unit = units.First + i;
                int slot = isDown ? down2 - (pair * a.TopK) : unit / perExpert, row = (unit - (slot * perExpert)) * DecodeStepRing.GroupRows;
                (int upper, int lower) = (row, a.Width + row);
                DecodeStepMatrix matrix = gateUp;
                if (isDown)
                {
                    matrix = down;
                    (upper, lower) = Rows(groups, 2 * pair);
                }
                LoadRows(a, ref ring, matrix, chosen[slot], (upper, lower));
            }
        }
    }

    private static DecodeStepMatrix Matrix(DecodeStepArgs a, int layer, int field, int rows, int columns)
    {
        DecodeStepMatrix matrix;
        long entry = ((long)layer * (int)DecodeLayerField.Count) + field;
        matrix.Codes = a.Layers[entry];
        matrix.Scales = a.Layers[entry + 1];
        matrix.Rows = rows;
        matrix.Columns = columns;
        matrix.RowShift = DecodeStepTile.RowShiftOf(columns);
        return matrix;
    }

    // First rows of a group and of the one that shares its mma, −1 where there is none.
    private static (int Upper, int Lower) Rows(DecodeStepShare groups, int group)
    {
        int upper = (groups.First + group) * DecodeStepRing.GroupRows;
        return (upper, group + 1 < groups.Count ? upper + DecodeStepRing.GroupRows : -1);
    }

    // Two groups of rows, or one: a copy a slot. Multipliers come by copies of four bytes, since a table's rows need not lie on 16. The barrier expects all lanes and,
    // once, the bytes.
    private static void LoadRows(DecodeStepArgs a, ref DecodeStepRing ring, DecodeStepMatrix matrix, int slab, (int Upper, int Lower) rows)
    {
        int lane = Group.IdxX & 31, columns = matrix.Columns, blocks = (columns + (1 << a.ColumnShift) - 1) >> a.ColumnShift;
        DecodeStepTile tile = DecodeStepTile.Of(columns, matrix.RowShift, rows.Lower >= 0);
        long slabCodes = matrix.Codes + ((long)slab * matrix.Rows * columns), table = (long)slab * ((matrix.Rows + (1 << a.RowShift) - 1) >> a.RowShift);
        for (int s = 0; s < tile.Slots; s++)
        {
            int first = s << tile.RowShift, row = first < DecodeStepRing.GroupRows ? rows.Upper + first : rows.Lower + first - DecodeStepRing.GroupRows;
            bool hasBoth = tile.IsPaired && rows.Lower >= 0;
            // Of a pair that is not neighbours two copies.
            int bytes = columns << IntrinsicMath.Min(tile.RowShift, 3);
            Mbarrier.Wait(ring.Empty, ring.Parity ^ 1);
            uint slot = ring.Address, full = ring.Full;
            if (lane == 0)
            {
                Mbarrier.ArriveExpecting(full, hasBoth ? 2 * bytes : bytes);
                Bulk.Load(slot, slabCodes + ((long)row * columns), bytes, full);
                if (hasBoth)
                    Bulk.Load(slot + (uint)bytes, slabCodes + ((long)rows.Lower * columns), bytes, full);
            }
            int half = tile.IsPaired ? DecodeStepRing.MostScales / 2 : DecodeStepRing.MostScales, block = lane >= half ? lane - half : lane;
            bool isLower = lane >= half;
            if (block < blocks && (first & (DecodeStepRing.GroupRows - 1)) == 0 && (!isLower || hasBoth))
            {
                long index = ((table + ((isLower ? rows.Lower : row) >> a.RowShift)) * blocks) + block;
                CpAsync.Copy4To(slot + DecodeStepRing.WeightBytes + (uint)(lane * sizeof(float)), matrix.Scales + (index * sizeof(float)));
            }
            CpAsync.ArriveWhenDone(full);
            ring.Advance();
        }
    }
}
