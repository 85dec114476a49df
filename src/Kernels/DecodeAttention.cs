using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of attention for one token of each of several sequences; shapes are those of one.</summary>
internal struct DecodeAttentionArgs
{
    /// <summary>Stamps.</summary>
    public ArrayView<long> Stamps;

    /// <summary>[QueryHeads + 2·KvHeads, HeadDim] BF16: queries, keys, values.</summary>
    public ArrayView<ushort> Qkv;

    /// <summary>[KvHeads, Capacity, HeadDim] of one layer: BF16, two a word, or codes, four a word.</summary>
    public ArrayView<uint> Keys;

    /// <summary>As Keys.</summary>
    public ArrayView<uint> Values;

    /// <summary>[HeadDim] BF16, unless HasGains is 0.</summary>
    public ArrayView<ushort> QueryGain;

    /// <summary>As QueryGain.</summary>
    public ArrayView<ushort> KeyGain;

    /// <summary>[≥ Capacity, HeadDim / 2] float32.</summary>
    public ArrayView<float> Cos;

    /// <summary>As Cos.</summary>
    public ArrayView<float> Sin;

    /// <summary>[1]; negative for a sequence without a token.</summary>
    public ArrayView<int> Position;

    /// <summary>[QueryHeads, HeadDim] BF16.</summary>
    public ArrayView<ushort> Output;

    /// <summary>[KvHeads, Parts, 8, HeadDim] float32, workspace: sums of a part.</summary>
    public ArrayView<float> Sums;

    /// <summary>[KvHeads, Parts, 2, 8] float32, workspace: largest scores and masses of a part.</summary>
    public ArrayView<float> Masses;

    /// <summary>[KvHeads] workspace, zero between launches: parts that are done.</summary>
    public ArrayView<int> Done;

    /// <summary>Words between the keys of a sequence and those of the next.</summary>
    public long Stride;

    public int KvHeads;
    public int GroupSize;
    public int Capacity;
    public int HasGains;
    public float Epsilon;

    /// <summary>Of scores, log₂ e included.</summary>
    public float Scale;

    /// <summary>[KvHeads, Capacity] float32, where the cache has codes.</summary>
    public ArrayView<float> KeyScales;

    /// <summary>As KeyScales.</summary>
    public ArrayView<float> ValueScales;

    /// <summary>Scales between a sequence and the next.</summary>
    public long ScaleStride;

    /// <summary>What runs here, set by the kernel: a part of so many of a KV head, by so many warps.</summary>
    public int KvHead, Part, GridParts, Warps;
}

/// <summary>Which tiles of positions a warp walks: its first, how many there are, and how the parts of a head share them.</summary>
internal struct AttentionSpan
{
    public int Position, Tiles, Parts, Tile;

    /// <summary>0 where the position lies outside the cache.</summary>
    public int IsInside;
}

/// <summary>The width of a head as a type argument.</summary>
internal interface IHeadWidth
{
    /// <summary>64 columns each.</summary>
    static abstract int Halves { get; }
}

/// <summary>64 columns.</summary>
internal readonly struct Head64 : IHeadWidth
{
    public static int Halves => 1;
}

/// <summary>128 columns.</summary>
internal readonly struct Head128 : IHeadWidth
{
    public static int Halves => 2;
}

/// <summary>
/// Attention of one token of each sequence over its own KV cache, with what stands before it: RMSNorm over each query and key head (optional), rotation, the new
/// key and value into the cache. A block takes all query heads of a KV head of a sequence, so each key is read once.
/// </summary>
/// <remarks>
/// Warps walk the cache in tiles of 16 positions: warp w of block b takes tile b·warps + w, then every (parts·warps)-th; up to two tiles a warp one block takes them all. Keys are the 16-row operand of
/// an mma whose columns are up to eight query heads; values, transposed by byte permutation, the 16-row operand of one whose columns are the
/// weights. Each warp keeps its own largest score, mass and sums (online softmax in base 2); warps meet in shared memory, blocks in a workspace, where
/// the last of them to arrive adds all in order. So the order of sums depends on the position alone, not on when blocks run and not on other sequences. In a graph the
/// first tiles are requested before the kernel waits: what the cache holds of earlier tokens is older than the launch before this one, and the
/// new token's key and value come from that launch's output. How the cache stores them is a type argument (<see cref="IAttentionTiles{TTiles}"/>).
/// </remarks>
internal static class DecodeAttention
{
    /// <summary>Most query heads of a KV head: columns of an mma.</summary>
    public const int MostGroup = 8;

    /// <summary>Most blocks of a KV head.</summary>
    public const int MostParts = 32;

    public const int MostWarps = 8;

    /// <summary>Positions of a tile.</summary>
    public const int TilePositions = 16;

    /// <summary>Dynamic shared memory of a block: each warp's sums.</summary>
    public static int SharedBytes(int warps, int headDim) => warps * MostGroup * AttentionMerge.RowWords(headDim) * sizeof(float);

    // What belongs to one sequence, moved to the start of each view.
    private static DecodeAttentionArgs Of<THead, TTiles>(DecodeAttentionArgs a, int sequence)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        int headDim = 64 * THead.Halves, heads = a.KvHeads * a.GroupSize, parts = a.KvHeads * Grid.DimX;
        a.Qkv = From(a.Qkv, (long)sequence * (heads + a.KvHeads + a.KvHeads) * headDim);
        a.Keys = From(a.Keys, sequence * a.Stride);
        a.Values = From(a.Values, sequence * a.Stride);
        a.Position = From(a.Position, sequence);
        a.Output = From(a.Output, (long)sequence * heads * headDim);
        a.Sums = From(a.Sums, (long)sequence * parts * MostGroup * headDim);
        a.Masses = From(a.Masses, (long)sequence * parts * 2 * MostGroup);
        a.Done = From(a.Done, (long)sequence * a.KvHeads);
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
        Clock.Mark(a.Stamps, (Grid.IdxY * Grid.DimX) + Grid.IdxX, 0);
        a = Of<THead, TTiles>(a, Grid.IdxZ);
        a.KvHead = Grid.IdxY;
        a.Part = Grid.IdxX;
        a.GridParts = Grid.DimX;
        a.Warps = Group.DimX >> 5;
        ArrayView<float> sums = SharedMemory.GetDynamic<byte>().Cast<float>();
        AttentionSpan span = Locate(a);
        TTiles own = default;
        AttentionAngles angles = Request<THead, TTiles>(a, span, ref own);
        GridDependency.Release();
        GridDependency.Wait();
        Clock.Mark(a.Stamps, (Grid.IdxY * Grid.DimX) + Grid.IdxX, 1);
        Attend<THead, TTiles>(a, span, angles, own, sums);
    }

    /// <summary>The tiles of the calling warp. The position must be there.</summary>
    private static AttentionSpan Locate(DecodeAttentionArgs a)
    {
        AttentionSpan span = default;
        span.Position = (int)Mem.LoadL2Word(ref a.Position.Cast<uint>()[0]);
        bool inside = span.Position >= 0 && span.Position < a.Capacity;
        span.IsInside = inside ? 1 : 0;
        span.Tiles = inside ? (span.Position >> 4) + 1 : 0;
        // Two tiles a warp cost less than a second block, whose part must be waited for.
        span.Parts = span.Tiles <= 2 * a.Warps ? IntrinsicMath.Min(1, span.Tiles) : IntrinsicMath.Min(a.GridParts, (span.Tiles + a.Warps - 1) / a.Warps);
        span.Tile = a.Part < span.Parts ? (a.Part * a.Warps) + (Group.IdxX >> 5) : span.Tiles;
        return span;
    }

    /// <summary>Requests angles, gains and the first tile, which are older than the new token's heads.</summary>
    private static AttentionAngles Request<THead, TTiles>(DecodeAttentionArgs a, AttentionSpan span, ref TTiles tiles)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        int lane = Group.IdxX & 31;
        AttentionAngles angles = AttentionHeads.Angles<THead>(a, span.IsInside != 0 ? span.Position : 0, lane);
        if (span.Tile < span.Tiles)
        {
            TTiles.LoadKeys<THead>(ref tiles, a, span.Tile, span.Position, lane);
            TTiles.LoadValues<THead>(ref tiles, a, span.Tile, span.Position, lane);
        }
        return angles;
    }

    /// <summary>All the rest, once the new token's heads are there: by the whole block.</summary>
    private static void Attend<THead, TTiles>(DecodeAttentionArgs a, AttentionSpan span, AttentionAngles angles, TTiles own, ArrayView<float> sums)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        ArrayView<uint> heads = SharedMemory.Allocate<U4>((MostGroup + 2) * 16).Cast<uint>();
        ArrayView<uint> weights = SharedMemory.Allocate<U4>(MostWarps * MostGroup * 2).Cast<uint>();
        ArrayView<float> masses = SharedMemory.Allocate<float>(2 * MostWarps * MostGroup);
        int lane = Group.IdxX & 31, warp = Group.IdxX >> 5, position = span.Position, tile = span.Tile;
        // The same for the whole block.
        if (a.Part >= span.Parts)
        {
            if (span.IsInside == 0 && a.Part == 0)
                AttentionMerge.StoreNaN<THead>(a);
            return;
        }
        AttentionHeads.Prepare<THead, TTiles>(a, heads, angles, position, (span.Tiles - 1) / a.Warps % span.Parts == a.Part);
        Clock.Mark(a.Stamps, (Grid.IdxY * Grid.DimX) + Grid.IdxX, 2);
        Group.Barrier(); // queries, the new key and value are in shared memory before anyone reads them
        AttentionState state = default;
        state.Largest0 = float.NegativeInfinity;
        state.Largest1 = float.NegativeInfinity;
        AttentionQueries queries = TTiles.LoadQueries<THead>(heads, lane);
        ArrayView<uint> ownWeights = weights.SubView(warp * MostGroup * 8, MostGroup * 8);
        for (int stride = span.Parts * a.Warps; tile < span.Tiles; tile += stride)
        {
            int next = IntrinsicMath.Min(tile + stride, span.Tiles - 1);
            F4 scores = TTiles.Scores<THead>(ref own, heads, queries, tile, position, lane);
            TTiles.LoadKeys<THead>(ref own, a, next, position, lane);
            AttentionTiles.Weigh<THead, TTiles>(own, ownWeights, scores, a.Scale, position - (tile * TilePositions), ref state);
            TTiles.Add<THead>(ref own, heads, ownWeights, tile, position, lane, ref state);
            TTiles.LoadValues<THead>(ref own, a, next, position, lane);
        }
        AttentionMerge.Publish<THead>(sums, masses, state);
        Group.Barrier(); // all warps' sums are there before they are added
        Clock.Mark(a.Stamps, (Grid.IdxY * Grid.DimX) + Grid.IdxX, 3);
        AttentionMerge.Finish<THead>(a, sums, masses, span.Parts);
        Clock.Mark(a.Stamps, (Grid.IdxY * Grid.DimX) + Grid.IdxX, 4);
    }
}
