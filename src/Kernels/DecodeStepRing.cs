using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>A ring of slots for weights in shared memory, and where a thread stands in it. Two barriers a slot say "full" and "empty".</summary>
internal struct DecodeStepRing
{
    /// <summary>Rows of a group: half of an mma's.</summary>
    public const int GroupRows = 8;

    /// <summary>Bytes of a slot's weights: rows as they lie in memory, one copy of neighbouring bytes.</summary>
    public const int WeightBytes = 16 * 1024;

    /// <summary>Room for the multipliers of a slot's rows behind them.</summary>
    public const int MostScales = 32;

    public const int SlotBytes = WeightBytes + (MostScales * sizeof(float));

    public uint Slots, Barriers;
    public int Count, Slot;
    public uint Parity;

    public readonly uint Address => Slots + (uint)(Slot * SlotBytes);

    public readonly uint Full => Barriers + (uint)(Slot * HopperGemm.BarrierBytes);

    public readonly uint Empty => Full + (uint)(Count * HopperGemm.BarrierBytes);

    /// <summary>The address of a slot further on.</summary>
    public readonly uint AddressOf(int further)
    {
        int slot = Slot + further;
        return Slots + (uint)((slot >= Count ? slot - Count : slot) * SlotBytes);
    }

    public void Advance()
    {
        Slot++;
        if (Slot == Count)
        {
            Slot = 0;
            Parity ^= 1;
        }
    }
}

/// <summary>How the 16 rows of an mma, or the eight of a group without another, lie in slots.</summary>
internal struct DecodeStepTile
{
    // Two groups.
    private const int PairShift = 4;

    /// <summary>log2 of the rows in a slot: as many as fit, at most 16.</summary>
    public int RowShift;

    /// <summary>Slots of the tile.</summary>
    public int Slots;

    public int Columns;

    /// <summary>Whether a slot holds both groups.</summary>
    public readonly bool IsPaired => RowShift == PairShift;

    public static int RowShiftOf(int columns)
    {
        int shift = PairShift;
        while (shift > 0 && (columns << shift) > DecodeStepRing.WeightBytes)
            shift--;
        return shift;
    }

    public static DecodeStepTile Of(int columns, int rowShift, bool hasLower)
    {
        DecodeStepTile tile;
        tile.RowShift = rowShift;
        tile.Slots = IntrinsicMath.Max((hasLower ? 16 : 8) >> rowShift, 1);
        tile.Columns = columns;
        return tile;
    }

    /// <summary>Where a row of the tile begins.</summary>
    public readonly uint RowAddress(DecodeStepRing first, int row) =>
        first.AddressOf(row >> RowShift) + (uint)((row & ((1 << RowShift) - 1)) * Columns);

    /// <summary>Where the multipliers of the upper or lower group begin: behind the rows of its first slot.</summary>
    public readonly uint ScaleAddress(DecodeStepRing first, bool lower) =>
        first.AddressOf(lower ? 8 >> RowShift : 0) + DecodeStepRing.WeightBytes + (uint)(lower && IsPaired ? DecodeStepRing.MostScales / 2 * sizeof(float) : 0);
}

/// <summary>A block's share of something that is counted in groups of eight rows.</summary>
internal struct DecodeStepShare
{
    public int First, Count;

    public static DecodeStepShare Of(int groups)
    {
        DecodeStepShare share;
        share.First = Grid.IdxX * groups / Grid.DimX;
        share.Count = ((Grid.IdxX + 1) * groups / Grid.DimX) - share.First;
        return share;
    }
}

/// <summary>A block's shares of a layer's products.</summary>
internal struct DecodeStepShares
{
    public DecodeStepShare QueryKeyValue, Hidden, Units;

    public static DecodeStepShares Of(DecodeStepArgs a)
    {
        DecodeStepShares shares;
        shares.QueryKeyValue = DecodeStepShare.Of((int)(a.QueryKeyValue.Length >> 3));
        shares.Hidden = DecodeStepShare.Of(a.Hidden >> 3);
        shares.Units = DecodeStepShare.Of(a.TopK * (a.Width >> 3));
        return shares;
    }

    /// <summary>Groups of one of a layer's products; units of gate and up.</summary>
    public readonly DecodeStepShare OfProduct(int product)
    {
        DecodeStepShare share = Hidden;
        if (product == DecodeStep.QueryKeyValue)
            share = QueryKeyValue;
        if (product == DecodeStep.GateUp)
            share = Units;
        return share;
    }
}
