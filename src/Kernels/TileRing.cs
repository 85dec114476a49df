using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Where a lane reads the rows g and g + 8 of a tile in the first matrix of a stack, their multipliers, and the row that it copies, as numbers.</summary>
internal struct TileAddresses
{
    public long Row0, Row1;
    public long Scales0, Scales1;
    public long Zeros0, Zeros1;
    public long Copied;
}

/// <summary>
/// One warp's strips of weights on their way into shared memory: a strip is up to four chunks (<see cref="TileStream"/>) side by side, 256 bytes of 16 rows, and has a slot. What is on its
/// way costs no registers, so nearly all of a block's weights can be requested before a launch may read anything else, and blocks of the launch before fit beside.
/// </summary>
internal struct TileRing
{
    /// <summary>Chunks of a strip.</summary>
    public const int StripChunks = 4;

    /// <summary>Bytes of a row of a strip.</summary>
    public const int StripBytes = StripChunks * SkinnyGemm.ChunkBytes;

    /// <summary>Bytes of the barriers of all warps, in front of the slots.</summary>
    public const int BarrierBytes = SkinnyGemm.MostWarps * MostSlots * sizeof(long);

    /// <summary>Most slots of a warp.</summary>
    public const int MostSlots = 4;

    private const int LaneWords = 32 * sizeof(uint);

    /// <summary>The warp's first slot.</summary>
    public uint Start;

    /// <summary>The warp's first barrier.</summary>
    public uint Barriers;

    /// <summary>1, 2 or 4.</summary>
    public int Slots;

    /// <summary>Bytes from a row of a strip to the next in shared memory: 64 more than it has keep rows that are read at once in different banks.</summary>
    public int RowStride;

    /// <summary>Bytes of a slot's multipliers and zero points: one a chunk for all rows, or lanes' own.</summary>
    public static int OperandBytes<TFormat>()
        where TFormat : struct, IStreamedFormat =>
        (TFormat.HasTileScales ? 16 : 0) + (StripChunks * ((TFormat.HasRowScales || TFormat.HasGroupScales ? 2 * LaneWords : 0) + (TFormat.HasZeroPoints ? 2 * LaneWords : 0)));

    /// <summary>Bytes of a slot.</summary>
    public static int SlotBytes<TFormat>(int rowStride)
        where TFormat : struct, IStreamedFormat => (TileStream.Rows * rowStride) + OperandBytes<TFormat>();

    /// <summary>Strips of a row.</summary>
    public static int Strips<TFormat>(int k)
        where TFormat : struct, IStreamedFormat => ((k / TileStream.ChunkCodes<TFormat>()) + StripChunks - 1) / StripChunks;

    /// <summary>The calling warp's slots. Barriers of all warps lie in front of all warps' slots; the whole block calls, and a barrier must follow only before another warp's are used.</summary>
    public static TileRing Open<TFormat, TRing>(uint first, int warp, int slots, int rowStride)
        where TFormat : struct, IStreamedFormat
        where TRing : struct, ITileRing
    {
        TileRing ring;
        ring.Barriers = first + (uint)(warp * MostSlots * sizeof(long));
        ring.Slots = slots;
        ring.RowStride = rowStride;
        ring.Start = first + BarrierBytes + (uint)(warp * slots * SlotBytes<TFormat>(rowStride));
        TRing.Begin(ring);
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
        at.Copied = codes + (4L * IntrinsicMath.Min(firstRow + (lane & 15), w.N - 1) * (w.K >> TFormat.CodesPerWordShift));
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

    /// <summary>Bytes from the first matrix's row to a strip of another's.</summary>
    public static long Offset<TFormat>(StreamedWeights w, int slab, int strip)
        where TFormat : struct, IStreamedFormat => ((long)slab * w.N * (w.K >> TFormat.CodesPerWordShift) * 4) + (strip * StripBytes);

    /// <summary>Chunks of a strip: fewer at the end of a row.</summary>
    public static int ChunksOf<TFormat>(StreamedWeights w, int strip)
        where TFormat : struct, IStreamedFormat => IntrinsicMath.Min((w.K / TileStream.ChunkCodes<TFormat>()) - (strip * StripChunks), StripChunks);

    /// <summary>The slot of the warp's <paramref name="index"/>-th strip.</summary>
    public readonly uint Slot<TFormat>(int index)
        where TFormat : struct, IStreamedFormat => Start + (uint)((index & (Slots - 1)) * SlotBytes<TFormat>(RowStride));

    /// <summary>The barrier of that slot.</summary>
    public readonly uint Barrier(int index) => Barriers + (uint)((index & (Slots - 1)) * sizeof(long));

    /// <summary>The parity of that slot's phase.</summary>
    public readonly uint Parity(int index) => (index & Slots) != 0 ? 1u : 0u;

    /// <summary>Requests the multipliers and zero points of a strip by copies of four bytes.</summary>
    public readonly void RequestOperands<TFormat>(StreamedWeights w, TileAddresses at, int slab, int strip, int index)
        where TFormat : struct, IStreamedFormat
    {
        int lane = Group.IdxX & 31, chunks = ChunksOf<TFormat>(w, strip);
        uint to = Slot<TFormat>(index) + (uint)(TileStream.Rows * RowStride);
        long table = (long)slab * w.ScaleTable.PerSlab;
        if (TFormat.HasTileScales && lane < chunks)
            CpAsync.Copy4(to + (uint)(4 * lane), at.Scales0 + (4 * (table + Block<TFormat>(w, (strip * StripChunks) + lane))));
        if (!TFormat.HasRowScales && !TFormat.HasGroupScales && !TFormat.HasZeroPoints)
            return;
        to += (uint)(lane * 4);
        for (int i = 0; i < chunks; i++)
        {
            int chunk = (strip * StripChunks) + i, block = Block<TFormat>(w, chunk);
            if (TFormat.HasRowScales)
            {
                CpAsync.Copy4(to, at.Scales0 + (4 * (table + block)));
                CpAsync.Copy4(to + LaneWords, at.Scales1 + (4 * (table + block)));
            }
            if (TFormat.HasGroupScales)
            {
                long group = table + ((chunk * TileStream.ChunkCodes<TFormat>()) >> 4);
                CpAsync.Copy4(to, at.Scales0 + group);
                CpAsync.Copy4(to + LaneWords, at.Scales1 + group);
            }
            if (TFormat.HasZeroPoints)
            {
                long zero = ZeroByte(w, slab, block);
                CpAsync.Copy4(to + (2 * LaneWords), (at.Zeros0 + zero) & ~3L);
                CpAsync.Copy4(to + (3 * LaneWords), (at.Zeros1 + zero) & ~3L);
            }
            to += (uint)(TFormat.HasZeroPoints ? 4 * LaneWords : 2 * LaneWords);
        }
    }

    /// <summary>A lane's multipliers and zero points of chunk <paramref name="i"/> of a strip that is there.</summary>
    public readonly TileChunk TakeOperands<TFormat>(StreamedWeights w, TileAddresses at, (int Slab, int Strip) from, int index, int i)
        where TFormat : struct, IStreamedFormat
    {
        int lane = Group.IdxX & 31;
        uint start = Slot<TFormat>(index) + (uint)(TileStream.Rows * RowStride);
        TileChunk taken = default;
        if (TFormat.HasTileScales)
            taken.Scale0 = SharedWindow.LoadWord(start + (uint)(4 * i));
        start += (uint)((lane * 4) + (i * (TFormat.HasZeroPoints ? 4 * LaneWords : 2 * LaneWords)));
        if (TFormat.HasRowScales)
        {
            taken.Scale0 = SharedWindow.LoadWord(start);
            taken.Scale1 = SharedWindow.LoadWord(start + LaneWords);
        }
        if (TFormat.HasGroupScales)
        {
            // Chunks and rows begin on words: which half it is, the lane says.
            int shift = (lane & 1) * 16;
            taken.Operand0 = (SharedWindow.LoadWord(start) >> shift) & 0xFFFF;
            taken.Operand1 = (SharedWindow.LoadWord(start + LaneWords) >> shift) & 0xFFFF;
        }
        if (TFormat.HasZeroPoints)
        {
            int block = Block<TFormat>(w, (from.Strip * StripChunks) + i), nibble = 4 * (block & 1);
            long zero = ZeroByte(w, from.Slab, block);
            taken.Operand0 = (SharedWindow.LoadWord(start + (2 * LaneWords)) >> (int)((((at.Zeros0 + zero) & 3) * 8) + nibble)) & 15;
            taken.Operand1 = (SharedWindow.LoadWord(start + (3 * LaneWords)) >> (int)((((at.Zeros1 + zero) & 3) * 8) + nibble)) & 15;
        }
        return taken;
    }

    private static int Block<TFormat>(StreamedWeights w, int chunk)
        where TFormat : struct, IStreamedFormat => (chunk * TileStream.ChunkCodes<TFormat>()) >> w.ScaleTable.ColumnShift;

    private static long ZeroByte(StreamedWeights w, int slab, int block) => ((long)slab * w.ScaleTable.ZeroBytesPerSlab) + (block >> 1);
}

/// <summary>How strips get into shared memory. All methods are the whole warp's.</summary>
internal interface ITileRing
{
    /// <summary>Prepares the warp's slots.</summary>
    static abstract void Begin(TileRing ring);

    /// <summary>Requests a strip of one matrix of the stack as the warp's <paramref name="index"/>-th one.</summary>
    static abstract void Request<TFormat>(TileRing ring, StreamedWeights w, TileAddresses at, (int Slab, int Strip) from, int index)
        where TFormat : struct, IStreamedFormat;

    /// <summary>Waits for a strip; of the steps that were committed after it, <paramref name="later"/> may be on their way.</summary>
    static abstract void Wait(TileRing ring, int index, int later);

    /// <summary>A lane's words of chunk <paramref name="i"/> of a strip that is there.</summary>
    static abstract TileChunk Take<TFormat>(TileRing ring, StreamedWeights w, TileAddresses at, (int Slab, int Strip) from, int index, int i)
        where TFormat : struct, IStreamedFormat;
}

/// <summary>
/// By asynchronous copies of the lanes (<c>cp.async</c>, sm_80): a lane copies just the words that it multiplies, to where it alone reads them. They go through the unit that all loads go through, which
/// they block when too many are on their way.
/// </summary>
internal readonly struct LaneCopies : ITileRing
{
    private const int WarpWords = 32 * 16;

    public static void Begin(TileRing ring)
    {
    }

    public static void Request<TFormat>(TileRing ring, StreamedWeights w, TileAddresses at, (int Slab, int Strip) from, int index)
        where TFormat : struct, IStreamedFormat
    {
        int chunks = TileRing.ChunksOf<TFormat>(w, from.Strip);
        uint to = ring.Slot<TFormat>(index) + (uint)((Group.IdxX & 31) * 16);
        long offset = TileRing.Offset<TFormat>(w, from.Slab, from.Strip);
        for (int i = 0; i < chunks; i++)
        {
            CpAsync.Stream16(to + (uint)(2 * i * WarpWords), at.Row0 + offset + (i * SkinnyGemm.ChunkBytes));
            CpAsync.Stream16(to + (uint)(((2 * i) + 1) * WarpWords), at.Row1 + offset + (i * SkinnyGemm.ChunkBytes));
        }
        ring.RequestOperands<TFormat>(w, at, from.Slab, from.Strip, index);
    }

    public static void Wait(TileRing ring, int index, int later)
    {
        if (later == 3)
            CpAsync.Wait(3);
        else if (later == 1)
            CpAsync.Wait(1);
        else
            CpAsync.Wait(0);
        WarpOps.Barrier(); // a tile's multiplier was copied by one lane for all
    }

    public static TileChunk Take<TFormat>(TileRing ring, StreamedWeights w, TileAddresses at, (int Slab, int Strip) from, int index, int i)
        where TFormat : struct, IStreamedFormat
    {
        uint start = ring.Slot<TFormat>(index) + (uint)(((Group.IdxX & 31) * 16) + (2 * i * WarpWords));
        TileChunk taken = ring.TakeOperands<TFormat>(w, at, from, index, i);
        taken.Row0 = SharedWindow.Load(start);
        taken.Row1 = SharedWindow.Load(start + WarpWords);
        return taken;
    }
}

/// <summary>By the copy engine (<c>cp.async.bulk</c>, sm_90): a lane asks for a whole row of a strip, and as much may be on its way as there is room for.</summary>
internal readonly struct RowCopies : ITileRing
{
    public static void Begin(TileRing ring)
    {
        if ((Group.IdxX & 31) == 0)
        {
            for (int slot = 0; slot < ring.Slots; slot++)
                Mbarrier.Initialize(ring.Barrier(slot), 1);
            Mbarrier.FenceInitialized();
        }
        WarpOps.Barrier(); // the barriers are there before copies report to them
    }

    public static void Request<TFormat>(TileRing ring, StreamedWeights w, TileAddresses at, (int Slab, int Strip) from, int index)
        where TFormat : struct, IStreamedFormat
    {
        int lane = Group.IdxX & 31, bytes = TileRing.ChunksOf<TFormat>(w, from.Strip) * SkinnyGemm.ChunkBytes;
        uint barrier = ring.Barrier(index);
        if (lane == 0)
            Mbarrier.ArriveExpecting(barrier, TileStream.Rows * bytes);
        if (lane < TileStream.Rows)
            Bulk.Load(ring.Slot<TFormat>(index) + (uint)(lane * ring.RowStride), at.Copied + TileRing.Offset<TFormat>(w, from.Slab, from.Strip), bytes, barrier);
        ring.RequestOperands<TFormat>(w, at, from.Slab, from.Strip, index);
    }

    public static void Wait(TileRing ring, int index, int later)
    {
        LaneCopies.Wait(ring, index, later);
        Mbarrier.Wait(ring.Barrier(index), ring.Parity(index));
    }

    public static TileChunk Take<TFormat>(TileRing ring, StreamedWeights w, TileAddresses at, (int Slab, int Strip) from, int index, int i)
        where TFormat : struct, IStreamedFormat
    {
        int lane = Group.IdxX & 31;
        uint start = ring.Slot<TFormat>(index) + (uint)(((lane >> 2) * ring.RowStride) + (i * SkinnyGemm.ChunkBytes) + ((lane & 3) * 16));
        TileChunk taken = ring.TakeOperands<TFormat>(w, at, from, index, i);
        taken.Row0 = SharedWindow.Load(start);
        taken.Row1 = SharedWindow.Load(start + (uint)(8 * ring.RowStride));
        return taken;
    }
}
