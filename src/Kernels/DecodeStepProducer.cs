using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>A matrix, or a stack of them, as the producers of <see cref="DecodeStep"/> read it.</summary>
internal struct DecodeStepMatrix
{
    public long Codes, Scales;
    public int Rows, Columns;
}

/// <summary>
/// The two warps of <see cref="DecodeStep"/> that ask for weights, each into a ring of its own: one those of attention, which are known for all layers, the other those of
/// the experts, which are known when a token is routed. Neither waits for anything else, so both run ahead of the multiplying warps as far as their rings allow, also through
/// the points where blocks wait for each other.
/// </summary>
internal static class DecodeStepProducer
{
    public static void RunDense(DecodeStepArgs a, DecodeStepRing ring)
    {
        int heads = a.KvHeads * a.GroupSize;
        int headDim = (int)(a.Attended.Length / heads);
        for (int layer = 0; layer < a.LayerCount; layer++)
        {
            DecodeStepMatrix matrix = Matrix(a, layer, (int)DecodeLayerField.QueryKeyValue, (heads + (2 * a.KvHeads)) * headDim, a.Hidden);
            LoadRows(a, ref ring, matrix, DecodeStepShare.Of(matrix.Rows >> 3));
            matrix = Matrix(a, layer, (int)DecodeLayerField.Output, a.Hidden, heads * headDim);
            LoadRows(a, ref ring, matrix, DecodeStepShare.Of(matrix.Rows >> 3));
        }
    }

    public static void RunExperts(DecodeStepArgs a, DecodeStepRing ring, ArrayView<int> chosen, uint routed)
    {
        int perExpert = a.Width >> 3;
        DecodeStepShare units = DecodeStepShare.Of(a.TopK * perExpert), groups = DecodeStepShare.Of(a.Hidden >> 3);
        for (int layer = 0; layer < a.LayerCount; layer++)
        {
            Mbarrier.Wait(routed, (uint)(layer & 1));
            DecodeStepMatrix matrix = Matrix(a, layer, (int)DecodeLayerField.GateUp, 2 * a.Width, a.Hidden);
            for (int unit = units.First; unit < units.First + units.Count; unit++)
            {
                int slot = unit / perExpert, row = (unit - (slot * perExpert)) * DecodeStepRing.GroupRows;
                for (int s = 0; s * DecodeStepSegment.MostCodes < matrix.Columns; s++)
                    Load(a, ref ring, matrix, chosen[slot], (row, a.Width + row), DecodeStepSegment.Of(matrix.Columns, s));
            }
            matrix = Matrix(a, layer, (int)DecodeLayerField.Down, a.Hidden, a.Width);
            for (int group = 0; group < groups.Count; group += 2)
            {
                (int upper, int lower) = Rows(groups, group);
                for (int slot = 0; slot < a.TopK; slot++)
                    for (int s = 0; s * DecodeStepSegment.MostCodes < matrix.Columns; s++)
                        Load(a, ref ring, matrix, chosen[slot], (upper, lower), DecodeStepSegment.Of(matrix.Columns, s));
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
        return matrix;
    }

    // First rows of a group and of the one that shares its mma, −1 where there is none.
    private static (int Upper, int Lower) Rows(DecodeStepShare groups, int group)
    {
        int upper = (groups.First + group) * DecodeStepRing.GroupRows;
        return (upper, group + 1 < groups.Count ? upper + DecodeStepRing.GroupRows : -1);
    }

    private static void LoadRows(DecodeStepArgs a, ref DecodeStepRing ring, DecodeStepMatrix matrix, DecodeStepShare groups)
    {
        for (int group = 0; group < groups.Count; group += 2)
            for (int s = 0; s * DecodeStepSegment.MostCodes < matrix.Columns; s++)
                Load(a, ref ring, matrix, 0, Rows(groups, group), DecodeStepSegment.Of(matrix.Columns, s));
    }

    private static void Load(DecodeStepArgs a, ref DecodeStepRing ring, DecodeStepMatrix matrix, int slab, (int Upper, int Lower) rows, DecodeStepSegment segment)
    {
        bool pairs = rows.Lower >= 0 && segment.IsPaired;
        LoadSlot(a, ref ring, matrix, slab, (rows.Upper, pairs ? rows.Lower : -1), segment);
        if (rows.Lower >= 0 && !pairs)
            LoadSlot(a, ref ring, matrix, slab, (rows.Lower, -1), segment);
    }

    // Lanes ask for a row each; multipliers come by copies of four bytes, since a table's rows need not lie on 16. The barrier expects all lanes and, once, the bytes.
    private static void LoadSlot(DecodeStepArgs a, ref DecodeStepRing ring, DecodeStepMatrix matrix, int slab, (int Upper, int Lower) rows, DecodeStepSegment segment)
    {
        int lane = Group.IdxX & 31, groups = rows.Lower < 0 ? 1 : 2;
        Mbarrier.Wait(ring.Empty, ring.Parity ^ 1);
        uint slot = ring.Address, full = ring.Full;
        if (lane == 0)
            Mbarrier.ArriveExpecting(full, groups * DecodeStepRing.GroupRows * segment.Codes);
        if (lane < groups * DecodeStepRing.GroupRows)
        {
            int row = lane < DecodeStepRing.GroupRows ? rows.Upper + lane : rows.Lower + lane - DecodeStepRing.GroupRows;
            Bulk.Load(slot + (uint)(lane * segment.Pitch), matrix.Codes + ((((long)slab * matrix.Rows) + row) * matrix.Columns) + segment.Start, segment.Codes, full);
        }
        int blocks = (segment.Codes + (1 << a.ColumnShift) - 1) >> a.ColumnShift, columns = (matrix.Columns + (1 << a.ColumnShift) - 1) >> a.ColumnShift;
        long table = (long)slab * ((matrix.Rows + (1 << a.RowShift) - 1) >> a.RowShift);
        for (int i = lane; i < groups * blocks; i += 32)
        {
            bool isLower = i >= blocks;
            int block = isLower ? i - blocks : i, row = isLower ? rows.Lower : rows.Upper;
            long index = ((table + (row >> a.RowShift)) * columns) + (segment.Start >> a.ColumnShift) + block;
            uint place = slot + (uint)((isLower ? DecodeStepRing.GroupRows * segment.Pitch : 0) + segment.ScaleOffset + (block * sizeof(float)));
            CpAsync.Copy4To(place, matrix.Scales + (index * sizeof(float)));
        }
        CpAsync.ArriveWhenDone(full);
        ring.Advance();
    }
}
