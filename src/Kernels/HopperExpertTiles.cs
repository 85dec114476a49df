using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;
using ILGPU.Algorithms;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Copies and products of <see cref="HopperExperts"/>: tiles of gate and up, numbered over all chosen experts, and items of down, 16 rows of the block and 128 columns of one chosen expert.</summary>
internal static class HopperExpertTiles
{
    /// <summary>Which of the chosen experts a tile belongs to.</summary>
    public static int TileRank(HopperExpertsArgs a, int tile) => (tile * a.TileReciprocal) >> HopperExpertsArgs.ReciprocalBits;

    // Rows in that expert's gate, of which up's are as many further.
    private static int TileRow(HopperExpertsArgs a, int tile) => (tile * HopperExperts.TileRows) - (TileRank(a, tile) * a.Width);

    private static int TileExpert(HopperExpertsArgs a, HopperExpertBlock block, int tile) => block.Experts[TileRank(a, tile)];

    private static int Item(HopperExpertBlock block, int j) => block.Warp + (j * HopperExperts.Warps);

    // Items go through the activations of one chosen expert after the other.
    private static int ItemRank(HopperExpertsArgs a, int item) => (item * a.ItemReciprocal) >> HopperExpertsArgs.ReciprocalBits;

    private static int ItemColumn(HopperExpertsArgs a, int item) => (item * HopperExperts.BlockColumns) - (ItemRank(a, item) * a.Width);

    /// <summary>Asks for the warp's columns of a tile, gate into a slot and up into the next. By one lane.</summary>
    public static void RequestGateUp(HopperExpertsArgs a, HopperExpertBlock block, int tile, int slot, int barrier)
    {
        uint arrived = block.Barrier(barrier);
        int row = (TileExpert(a, block, tile) * 2 * a.Width) + TileRow(a, tile), column = block.Warp * HopperExperts.BlockColumns;
        Mbarrier.ArriveExpecting(arrived, 2 * HopperExperts.SlotBytes);
        Tma.Load(a.GateUp, HopperExpertsArgs.GateUpMap, block.Slot(slot), column, row, arrived);
        Tma.Load(a.GateUp, HopperExpertsArgs.GateUpMap, block.Slot(slot + 1), column, row + a.Width, arrived);
    }

    /// <summary>Asks for an item of down. By one lane, when the first tiles have been multiplied or, with one tile only, have other slots.</summary>
    public static void RequestDown(HopperExpertsArgs a, HopperExpertBlock block, int j, int slot)
    {
        uint arrived = block.Barrier(HopperExperts.MostTurns + j);
        int item = Item(block, j), row = (block.Experts[ItemRank(a, item)] * HopperExperts.Hidden) + (Grid.IdxX * HopperExperts.TileRows);
        Mbarrier.ArriveExpecting(arrived, HopperExperts.SlotBytes);
        Tma.Load(a.Down, HopperExpertsArgs.DownMap, block.Slot(slot), ItemColumn(a, item), row, arrived);
    }

    /// <summary>Where an item of down lies: where a tile was, or with one tile, which is multiplied meanwhile, behind it.</summary>
    public static int DownSlot<TTurns>(int j)
        where TTurns : struct, ITileTurns => TTurns.Count == 1 ? 2 : j;

    /// <summary>Multipliers of the block's tiles: gate's and up's of a tile in lanes beside each other.</summary>
    public static float LoadGateUpScales(HopperExpertsArgs a, HopperExpertBlock block) =>
        LoadScale(a, block, (Grid.IdxX * a.Turns) + IntrinsicMath.Min(block.Lane >> 1, a.Turns - 1), block.Lane & 1);

    /// <summary>A tile's multiplier: gate's, or up's.</summary>
    public static float LoadScale(HopperExpertsArgs a, HopperExpertBlock block, int tile, int up) =>
        Mem.LoadReadOnlyFloat(a.GateUpScales.At(TileExpert(a, block, tile), TileRow(a, tile) + (up * a.Width), block.Warp * HopperExperts.BlockColumns));

    /// <summary>Multipliers of the warp's items of down, one a lane.</summary>
    public static float LoadDownScales(HopperExpertsArgs a, HopperExpertBlock block)
    {
        int item = Item(block, IntrinsicMath.Min(block.Lane, a.Turns - 1));
        return Mem.LoadReadOnlyFloat(a.DownScales.At(block.Experts[ItemRank(a, item)], Grid.IdxX * HopperExperts.TileRows, ItemColumn(a, item)));
    }

    /// <summary>Products of the warp's columns of a tile, noted as sums of a tile of the block.</summary>
    public static void MultiplyGateUp(HopperExpertBlock block, int slot, int note, HopperExpertInputs x, float scales)
    {
        // One body for both: what runs once runs from a cold instruction cache.
        for (int up = 0; up < 2; up++)
        {
            HopperExpertSums sums = Multiply(block.Line(slot + up), x, Lane(scales, (2 * note) + up), default);
            Publish(block, ((2 * note) + up) * HopperExperts.TileRows * sizeof(float), sums);
        }
    }

    /// <summary>Puts a lane's sums among the warp's notes: rows beside each other.</summary>
    public static void Publish(HopperExpertBlock block, int at, HopperExpertSums sums)
    {
        // All columns of a product are the same; the first is written.
        if ((block.Lane & 3) != 0)
            return;
        int row = (at / sizeof(float)) + HopperExpertBlock.Row(block.Lane);
        block.Notes[row] = sums.Upper;
        block.Notes[row + 8] = sums.Lower;
    }

    /// <summary>silu(gate) · up of a tile for all blocks, from all warps' notes. By one warp.</summary>
    public static void Activate(HopperExpertsArgs a, HopperExpertBlock block, int note, int tile)
    {
        int row = (note * 2 * HopperExperts.TileRows) + block.Lane;
        float sum = (SumFour(block, 0, row) + SumFour(block, 4, row)) + (SumFour(block, 8, row) + SumFour(block, 12, row));
        float up = WarpOps.ShuffleXor(sum, 16), value = sum / (1f + XMath.Exp(-sum)) * up, other = WarpOps.ShuffleXor(value, 2);
        // Of four activations first those of rows 0 and 2, then those of 1 and 3, as weights are decoded.
        if (block.Lane < 16 && (block.Lane & 2) == 0)
        {
            int word = (tile * HopperExperts.TileRows / 2) + ((block.Lane >> 2) * 2) + (block.Lane & 1);
            Mem.StoreRelaxedTo(HopperExpertState.Activated(a, block.Set) + (word * sizeof(uint)), ~StreamedFp8.Scale(Bf16.Pack(value, other)));
        }
    }

    /// <summary>Puts an item's activations among the warp's notes. False where one of them has not come after so many times.</summary>
    public static bool AwaitInputs(HopperExpertsArgs a, HopperExpertBlock block, int j, int patience)
    {
        long words = HopperExpertState.Activated(a, block.Set) + (Item(block, j) * HopperExperts.InputBytes) + (block.Lane * 8);
        for (int i = 0; i < patience; i++)
        {
            U2 posted = Mem.LoadRelaxed2From(words);
            if (WarpOps.Any(posted.X == 0 | posted.Y == 0 ? 1u : 0u) == 0)
            {
                int word = ((HopperExperts.DownInputs + (j * HopperExperts.InputBytes)) / sizeof(uint)) + (block.Lane * 2);
                ArrayView<uint> notes = block.Notes.Cast<uint>();
                notes[word] = ~posted.X;
                notes[word + 1] = ~posted.Y;
                WarpOps.Barrier();
                return true;
            }
        }
        return false;
    }

    /// <summary>Adds the products of an item whose inputs are noted.</summary>
    public static HopperExpertSums MultiplyDown(HopperExpertsArgs a, HopperExpertBlock block, int j, int slot, float scales, HopperExpertSums sums) =>
        Multiply(block.Line(slot), HopperExpertInputs.LoadNotes(block, j), Lane(scales, j) * block.Weights[ItemRank(a, Item(block, j))], sums);

    /// <summary>The block's columns of the residual stream, from all warps' notes. By one warp.</summary>
    public static void Store(HopperExpertsArgs a, HopperExpertBlock block, float old)
    {
        int row = (HopperExperts.DownSums / sizeof(float)) + (block.Lane & (HopperExperts.TileRows - 1)), first = (block.Lane >> 4) * 8;
        float sum = SumFour(block, first, row) + SumFour(block, first + 4, row);
        sum += WarpOps.ShuffleXor(sum, 16);
        if (block.Lane < HopperExperts.TileRows)
            Mem.StoreRelaxedTo(a.Residual + (((Grid.IdxX * HopperExperts.TileRows) + block.Lane) * sizeof(float)), Interop.FloatAsInt(old + sum));
    }

    private static float SumFour(HopperExpertBlock block, int warp, int row) => (Note(block, warp, row) + Note(block, warp + 1, row)) + (Note(block, warp + 2, row) + Note(block, warp + 3, row));

    private static float Note(HopperExpertBlock block, int warp, int row) =>
        block.Slots[(((warp * HopperExperts.WarpBytes) + (HopperExperts.NotesSlot * HopperExperts.SlotBytes)) / sizeof(float)) + row];

    private static float Lane(float values, int lane) => Interop.IntAsFloat(WarpOps.Shuffle(Interop.FloatAsInt(values), lane));

    // 16 rows and 128 columns. Two sums that do not wait for each other, one a half of the columns.
    private static HopperExpertSums Multiply(uint line, HopperExpertInputs x, float scale, HopperExpertSums sums)
    {
        const uint EightRows = 8 * HopperExperts.BlockColumns, Half = 64;
        U4 upper0 = SharedWindow.Load(line), lower0 = SharedWindow.Load(line + EightRows), upper1 = SharedWindow.Load(line ^ Half), lower1 = SharedWindow.Load((line ^ Half) + EightRows);
        F4 first = Step(upper0, lower0, 0, x.X0, default), second = Step(upper1, lower1, 0, x.X2, default);
        first = Step(upper0, lower0, 1, x.X1, first);
        second = Step(upper1, lower1, 1, x.X3, second);
        scale *= StreamedFp8.Correction;
        sums.Upper = Fast.Fma(first.X + second.X, scale, sums.Upper);
        sums.Lower = Fast.Fma(first.Z + second.Z, scale, sums.Lower);
        return sums;
    }

    private static F4 Step(U4 upper, U4 lower, int step, U4 inputs, F4 part)
    {
        U4 rows = StreamedFp8.Decode(upper, step, 0), further = StreamedFp8.Decode(lower, step, 0);
        part = SkinnyProducts.Multiply<StreamedFp8>(rows.X, further.X, rows.Y, further.Y, inputs.X, inputs.Y, part);
        return SkinnyProducts.Multiply<StreamedFp8>(rows.Z, further.Z, rows.W, further.W, inputs.Z, inputs.W, part);
    }
}
