using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Attention of one token of each sequence over its own KV cache, with what stands before it: RMSNorm over each query and key head (optional), rotation, the new
/// key and value into the cache. A block takes all query heads of a KV head of a sequence, so each key is read once.
/// </summary>
/// <remarks>
/// A block has a run of tiles of 16 positions, and walks it in chunks of as many as it has warps. A warp scores one tile: keys are the 16-row operand of an mma whose columns are up to eight query
/// heads. It keeps its own largest score and mass (online softmax in base 2), and leaves its weights in shared memory. Behind one barrier every warp has 16 columns of the values of all tiles: transposed by
/// ldmatrix they are the 16-row operand of an mma whose columns are the weights, and a factor a tile makes up for the different largest scores. So no sums are exchanged between warps. Blocks meet in a
/// workspace (<see cref="AttentionMerge"/>). The order of sums depends on the position alone, not on when blocks run and not on other sequences. Tiles are copied to shared memory (<see cref="AttentionRing"/>), in a
/// graph the first ones before the kernel waits: what the cache holds of earlier tokens is older than the launch before this one, and the
/// new token's key and value come from that launch's output. How the cache stores them is a type argument (<see cref="IAttentionTiles{TTiles}"/>).
/// </remarks>
internal static class DecodeAttention
{
    /// <summary>Most query heads of a KV head: columns of an mma.</summary>
    public const int MostGroup = 8;

    /// <summary>Most blocks of a KV head, a power of two.</summary>
    public const int MostParts = 32;

    public const int MostWarps = 8;

    /// <summary>A warp has at most two slices.</summary>
    public const int LeastWarps = 4;

    /// <summary>Positions of a tile.</summary>
    public const int TilePositions = 16;

    /// <summary>Tiles of a warp, below which one block takes them all, and which no part exceeds before there are the most: waiting for another block's part costs more.</summary>
    public const int WarpTiles = 2;

    /// <summary>Columns of the values that a warp multiplies.</summary>
    public const int SliceColumns = 16;

    /// <summary>Slices of a head.</summary>
    public static int Slices<THead>()
        where THead : struct, IHeadWidth => 64 / SliceColumns * THead.Halves;

    /// <summary>Dynamic shared memory of a stage of tiles.</summary>
    public static int StageBytes<THead, TTiles>(int warps)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles> => warps * AttentionRing.TileWords<THead, TTiles>() * sizeof(uint);

    /// <summary>Other shared memory of a block: heads, and of two turns weights, largest scores and masses.</summary>
    public const int StaticBytes = sizeof(uint) * (((MostGroup + 2) * AttentionTiles.HeadWords) + (2 * AttentionTiles.WeightWords) + (2 * AttentionTiles.MassWords));

    /// <summary>Blocks of a KV head that a position may need; a power of two.</summary>
    public static int Parts(long tiles, int warps, int most)
    {
        int parts = 1;
        while (parts < most && (long)parts * WarpTiles * warps < tiles)
            parts *= 2;
        return parts;
    }

    // What belongs to one sequence, moved to the start of each view. The workspace is indexed as a whole.
    private static DecodeAttentionArgs Of<THead, TTiles>(DecodeAttentionArgs a, int sequence)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        int headDim = 64 * THead.Halves, heads = a.KvHeads * a.GroupSize;
        a.Qkv = From(a.Qkv, (long)sequence * (heads + a.KvHeads + a.KvHeads) * headDim);
        a.Keys = From(a.Keys, sequence * a.Stride);
        a.Values = From(a.Values, sequence * a.Stride);
        a.Position = From(a.Position, sequence);
        a.Output = From(a.Output, (long)sequence * heads * headDim);
        if (TTiles.HasScales)
        {
            a.KeyScales = From(a.KeyScales, sequence * a.ScaleStride);
            a.ValueScales = From(a.ValueScales, sequence * a.ScaleStride);
        }
        return a;
    }

    private static ArrayView<T> From<T>(ArrayView<T> view, long start)
        where T : unmanaged => view.SubView(start, view.Length - start);

    public static void Run<THead, TTiles>(DecodeAttentionArgs a)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        a = Of<THead, TTiles>(a, Grid.IdxZ);
        AttentionMemory memory = default;
        memory.Ring = SharedMemory.GetDynamic<byte>().Cast<uint>();
        int lane = Group.IdxX & 31, warps = Group.DimX >> 5;
        AttentionSpan span = Locate(a, warps);
        // The same for the whole block. One without a part ends before it has waited: the sequence's first block does wait, and the launch lasts as long as that.
        if (Grid.IdxX >= span.Parts)
            return;
        int tile = span.First + (Group.IdxX >> 5);
        AttentionScales scales = default;
        if (TTiles.HasScales && tile < span.End)
            scales = TTiles.LoadScales(a, AttentionTiles.Rows(a, tile, span.Position, lane));
        for (int stage = 0; stage < a.Stages; stage++)
        {
            AttentionRing.RequestKeys<THead, TTiles>(a, memory.Ring, span, tile + (stage * warps), stage);
            AttentionRing.RequestValues<THead, TTiles>(a, memory.Ring, span, tile + (stage * warps), stage);
        }
        AttentionAngles angles = AttentionHeads.Angles<THead>(a, span.IsInside != 0 ? span.Position : 0, lane);
        AttentionSources sources = AttentionHeads.Sources<THead>(a);
        GridDependency.Release();
        GridDependency.Wait();
        if (span.IsInside != 0)
            Attend<THead, TTiles>(a, span, sources, angles, scales, memory);
        else
            AttentionMerge.StoreNaN<THead>(a);
    }

    /// <summary>The tiles of the calling block. The position must be there.</summary>
    private static AttentionSpan Locate(DecodeAttentionArgs a, int warps)
    {
        AttentionSpan span = default;
        span.Position = (int)Mem.LoadL2Word(ref a.Position.Cast<uint>()[0]);
        span.IsInside = span.Position >= 0 && span.Position < a.Capacity ? 1 : 0;
        span.Tiles = span.IsInside != 0 ? (span.Position >> 4) + 1 : 0;
        span.Parts = Parts(span.Tiles, warps, Grid.DimX);
        int shift = 31 - Bits.LeadingZeros((uint)span.Parts);
        span.First = (int)(((long)span.Tiles * Grid.IdxX) >> shift);
        span.End = (int)(((long)span.Tiles * (Grid.IdxX + 1)) >> shift);
        return span;
    }

    /// <summary>All the rest, once the new token's heads are there: by the whole block.</summary>
    private static void Attend<THead, TTiles>(DecodeAttentionArgs a, AttentionSpan span, AttentionSources sources, AttentionAngles angles, AttentionScales scales, AttentionMemory memory)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        memory.Heads = SharedMemory.Allocate<U4>((MostGroup + 2) * AttentionTiles.HeadWords / 4).Cast<uint>();
        memory.Weights = SharedMemory.Allocate<U4>(2 * AttentionTiles.WeightWords / 4).Cast<uint>();
        memory.Masses = SharedMemory.Allocate<U4>(2 * AttentionTiles.MassWords / 4).Cast<float>();
        int lane = Group.IdxX & 31, warp = Group.IdxX >> 5, warps = Group.DimX >> 5;
        AttentionHeads.Prepare<THead, TTiles>(a, memory.Heads, sources, angles, span.Position, span.End == span.Tiles);
        Block.Barrier(); // queries, the new key and value are in shared memory before anyone reads them
        AttentionState state = default;
        state.Largest0 = float.NegativeInfinity;
        state.Largest1 = float.NegativeInfinity;
        AttentionSums sums = default;
        sums.Largest0 = float.NegativeInfinity;
        sums.Largest1 = float.NegativeInfinity;
        F2 mass = default;
        AttentionQueries queries = TTiles.LoadQueries<THead>(memory.Heads, lane);
        AttentionChunk chunk = default;
        for (chunk.First = span.First; chunk.First < span.End; chunk.First += warps)
        {
            bool isLast = chunk.First + warps >= span.End;
            if (chunk.First + warp < span.End)
                scales = Score<THead, TTiles>(a, span, memory, chunk, queries, scales, ref state);
            else
                AttentionRing.Clear<THead, TTiles>(AttentionRing.Values<THead, TTiles>(memory.Ring, chunk.Stage, warp), memory.WeightsOf(chunk.Turn), lane);
            // The lanes have read these keys themselves.
            if (!isLast)
                AttentionRing.RequestKeys<THead, TTiles>(a, memory.Ring, span, chunk.First + (a.Stages * warps) + warp, chunk.Stage);
            AttentionTiles.Publish(memory.MassesOf(chunk.Turn), state, isLast);
            if (isLast)
                CpAsync.WaitAll();
            else
                AttentionRing.WaitForValues();
            if (chunk.First + warp == span.Tiles - 1)
                AttentionRing.PlaceValue<THead, TTiles>(AttentionRing.Values<THead, TTiles>(memory.Ring, chunk.Stage, warp), memory.Heads, span.Position, lane);
            Block.Barrier(); // weights, largest scores and values are there before they are read, and those of the turn before have been read
            AttentionValues.Add<THead, TTiles>(memory, chunk, IntrinsicMath.Min(warps, span.End - chunk.First), ref sums);
            if (isLast)
                mass = AttentionValues.Mass(memory.MassesOf(chunk.Turn), sums, warps);
            else
                chunk.Stage = Advance<THead, TTiles>(a, span, memory.Ring, chunk);
            chunk.Turn ^= 1;
        }
        if (warp < Slices<THead>())
            AttentionMerge.Finish<THead, TTiles>(a, span, sums, mass, warp, sums.First);
        // Blocks of fewer warps have two slices a warp.
        if (warps < Slices<THead>())
            AttentionMerge.Finish<THead, TTiles>(a, span, sums, mass, warp + warps, sums.Second);
    }

    // Weights of the calling warp's tile; gives the scales of its next one.
    private static AttentionScales Score<THead, TTiles>(DecodeAttentionArgs a, AttentionSpan span, AttentionMemory memory, AttentionChunk chunk, AttentionQueries queries, AttentionScales scales, ref AttentionState state)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        int lane = Group.IdxX & 31, warp = Group.IdxX >> 5, tile = chunk.First + warp, next = tile + (Group.DimX >> 5);
        int before = span.Position - (tile * TilePositions) - (lane >> 2);
        ArrayView<uint> keys = AttentionRing.Keys<THead, TTiles>(memory.Ring, chunk.Stage, warp);
        // Requested before this tile is multiplied.
        AttentionScales following = default;
        if (TTiles.HasScales && next < span.End)
            following = TTiles.LoadScales(a, AttentionTiles.Rows(a, next, span.Position, lane));
        AttentionRing.WaitForKeys(a.Stages);
        if (tile == span.Tiles - 1)
            TTiles.PlaceKey<THead>(keys, memory.Heads, before, lane);
        if (TTiles.HasScales)
            scales = TTiles.PlaceScales(memory.Heads, scales, before);
        AttentionTiles.Weigh<TTiles>(memory.WeightsOf(chunk.Turn), TTiles.Scores<THead>(keys, queries, scales, lane), scales, a.Scale, before, ref state);
        return following;
    }

    // Requests the values that the ring has room for, and gives the next stage. The only stage must have been read by all warps; of two, that of the chunk before is free behind this one's barrier.
    private static int Advance<THead, TTiles>(DecodeAttentionArgs a, AttentionSpan span, ArrayView<uint> ring, AttentionChunk chunk)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        int next = chunk.First + (Group.DimX >> 5) + (Group.IdxX >> 5), stage = a.Stages - 1 - chunk.Stage;
        if (a.Stages == 1)
            Block.Barrier(); // all warps have read the stage before it is filled again
        // With two stages the second chunk has been requested before the first was read.
        AttentionRing.RequestValues<THead, TTiles>(a, ring, span, a.Stages == 1 || chunk.First > span.First ? next : span.End, stage);
        return stage;
    }
}
