using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Where a lane reads the rows g and g + 8 of a tile in the first matrix of a stack, and their multipliers, as numbers.</summary>
internal struct TileAddresses
{
    public long Row0, Row1;
    public long Scales0, Scales1;
    public long Zeros0, Zeros1;
}

/// <summary>
/// One warp's chunks of 16 rows of weights (<see cref="TileStream"/>) on their way into shared memory by asynchronous copies: a slot a chunk, two slots a step.
/// </summary>
/// <remarks>
/// A lane copies just the words that it multiplies, to where it alone reads them, so that no block-wide barrier stands between memory and
/// tensor cores and no bank is met twice. What is on its way costs no registers, so nearly all of a block's weights can be requested before a launch may read
/// anything else, and blocks of the launch before fit beside.
/// </remarks>
internal struct TileRing
{
    /// <summary>Most slots of a warp.</summary>
    public const int MostSlots = 8;

    /// <summary>Fewest slots of a warp: those of a step.</summary>
    public const int LeastSlots = 2;

    private const int CodeBytes = TileStream.Rows * SkinnyGemm.ChunkBytes;
    private const int RowsApart = CodeBytes / 2;
    private const int LaneWords = 32 * sizeof(uint);

    /// <summary>The warp's first slot.</summary>
    public uint Start;

    /// <summary>2, 4 or 8.</summary>
    public int Slots;

    /// <summary>Bytes of a slot: codes, multipliers, zero points.</summary>
    public static int SlotBytes<TFormat>()
        where TFormat : struct, IStreamedFormat =>
        CodeBytes + (TFormat.HasTileScales ? 16 : 0) + (TFormat.HasRowScales || TFormat.HasGroupScales ? 2 * LaneWords : 0) + (TFormat.HasZeroPoints ? 2 * LaneWords : 0);

    /// <summary>The most slots, 2, 4 or 8, that a warp with so many chunks needs and that fit, where one slot of every warp takes <paramref name="bytesOfOne"/>.</summary>
    public static int SlotsFor(int chunks, int bytesOfOne, int availableBytes)
    {
        int slots = MostSlots;
        while (slots > LeastSlots && (slots >= 2 * chunks || slots * bytesOfOne > availableBytes))
            slots /= 2;
        return slots;
    }

    /// <summary>The calling warp's slots; all warps' lie behind one another from <paramref name="first"/> on.</summary>
    public static TileRing Of<TFormat>(uint first, int warp, int slots)
        where TFormat : struct, IStreamedFormat
    {
        TileRing ring;
        ring.Start = first + (uint)(warp * slots * SlotBytes<TFormat>());
        ring.Slots = slots;
        return ring;
    }

    /// <summary>A lane's addresses.</summary>
    public static TileAddresses Locate<TFormat>(StreamedWeights w, int firstRow, int lane)
        where TFormat : struct, IStreamedFormat
    {
        TilePlace place = TileStream.Locate<TFormat>(w, firstRow, lane);
        TileAddresses at = default;
        long codes = Mem.GlobalAddress(ref w.Codes.Cast<uint>()[0]);
        at.Row0 = codes + (4 * place.Row0);
        at.Row1 = codes + (4 * place.Row1);
        if (TFormat.HasGroupScales)
        {
            // Two multipliers a lane: the word that has them.
            long groups = Mem.GlobalAddressOfByte(ref w.ScaleTable.Groups[0]);
            at.Scales0 = (groups + place.Scales0) & ~3L;
            at.Scales1 = (groups + place.Scales1) & ~3L;
        }
        if (TFormat.HasTileScales || TFormat.HasRowScales)
        {
            long blocks = Mem.GlobalAddress(ref w.ScaleTable.Blocks.Cast<uint>()[0]);
            at.Scales0 = blocks + (4 * place.Scales0);
            at.Scales1 = blocks + (4 * place.Scales1);
        }
        if (TFormat.HasZeroPoints)
        {
            long zeros = Mem.GlobalAddressOfByte(ref w.ScaleTable.ZeroPoints[0]);
            at.Zeros0 = zeros + place.Zeros0;
            at.Zeros1 = zeros + place.Zeros1;
        }
        return at;
    }

    /// <summary>Requests a chunk of one matrix of the stack into slot <paramref name="slot"/> (modulo the slots).</summary>
    public readonly void Request<TFormat>(StreamedWeights w, TileAddresses at, int slab, int chunk, int slot)
        where TFormat : struct, IStreamedFormat
    {
        int lane = Group.IdxX & 31;
        uint to = Slot<TFormat>(slot);
        long start = ((long)slab * w.N * (w.K >> TFormat.CodesPerWordShift) * 4) + (chunk * SkinnyGemm.ChunkBytes);
        CpAsync.Stream16(to + (uint)(lane * 16), at.Row0 + start);
        CpAsync.Stream16(to + (uint)(lane * 16) + RowsApart, at.Row1 + start);
        int first = chunk * TileStream.ChunkCodes<TFormat>(), block = first >> w.ScaleTable.ColumnShift;
        long table = (long)slab * w.ScaleTable.PerSlab;
        to += CodeBytes;
        if (TFormat.HasTileScales && lane == 0)
            CpAsync.Copy4(to, at.Scales0 + (4 * (table + block)));
        to += (uint)(lane * 4);
        if (TFormat.HasRowScales)
        {
            CpAsync.Copy4(to, at.Scales0 + (4 * (table + block)));
            CpAsync.Copy4(to + LaneWords, at.Scales1 + (4 * (table + block)));
        }
        if (TFormat.HasGroupScales)
        {
            CpAsync.Copy4(to, at.Scales0 + table + (first >> 4));
            CpAsync.Copy4(to + LaneWords, at.Scales1 + table + (first >> 4));
        }
        if (TFormat.HasZeroPoints)
        {
            long zero = ZeroByte(w, slab, block);
            CpAsync.Copy4(to + (2 * LaneWords), (at.Zeros0 + zero) & ~3L);
            CpAsync.Copy4(to + (3 * LaneWords), (at.Zeros1 + zero) & ~3L);
        }
    }

    /// <summary>What was requested into a slot, once it is there.</summary>
    public readonly TileChunk Take<TFormat>(StreamedWeights w, TileAddresses at, int slab, int chunk, int slot)
        where TFormat : struct, IStreamedFormat
    {
        int lane = Group.IdxX & 31;
        uint from = Slot<TFormat>(slot);
        TileChunk taken = default;
        taken.Row0 = SharedWindow.Load(from + (uint)(lane * 16));
        taken.Row1 = SharedWindow.Load(from + (uint)(lane * 16) + RowsApart);
        from += CodeBytes;
        if (TFormat.HasTileScales)
            taken.Scale0 = SharedWindow.LoadWord(from);
        from += (uint)(lane * 4);
        if (TFormat.HasRowScales)
        {
            taken.Scale0 = SharedWindow.LoadWord(from);
            taken.Scale1 = SharedWindow.LoadWord(from + LaneWords);
        }
        if (TFormat.HasGroupScales)
        {
            // Chunks and rows begin on words: which half it is, the lane says.
            int shift = (lane & 1) * 16;
            taken.Operand0 = (SharedWindow.LoadWord(from) >> shift) & 0xFFFF;
            taken.Operand1 = (SharedWindow.LoadWord(from + LaneWords) >> shift) & 0xFFFF;
        }
        if (TFormat.HasZeroPoints)
        {
            int block = (chunk * TileStream.ChunkCodes<TFormat>()) >> w.ScaleTable.ColumnShift, nibble = 4 * (block & 1);
            long zero = ZeroByte(w, slab, block);
            taken.Operand0 = (SharedWindow.LoadWord(from + (2 * LaneWords)) >> (int)((((at.Zeros0 + zero) & 3) * 8) + nibble)) & 15;
            taken.Operand1 = (SharedWindow.LoadWord(from + (3 * LaneWords)) >> (int)((((at.Zeros1 + zero) & 3) * 8) + nibble)) & 15;
        }
        return taken;
    }

    /// <summary>Waits until the oldest step that is on its way is there, for the whole warp. Every step was committed, empty or not.</summary>
    public readonly void WaitStep()
    {
        if (Slots == 8)
            CpAsync.Wait(3);
        else if (Slots == 4)
            CpAsync.Wait(1);
        else
            CpAsync.Wait(0);
        WarpOps.Barrier(); // a tile's multiplier was copied by one lane for all
    }

    private static long ZeroByte(StreamedWeights w, int slab, int block) => ((long)slab * w.ScaleTable.ZeroBytesPerSlab) + (block >> 1);

    private readonly uint Slot<TFormat>(int slot)
        where TFormat : struct, IStreamedFormat => Start + (uint)((slot & (Slots - 1)) * SlotBytes<TFormat>());
}
