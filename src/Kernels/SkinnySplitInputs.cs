using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>What a thread loads of a chunk of x: eight columns of a row of each tile.</summary>
internal struct SkinnyInputPair
{
    public U4 Tile0, Tile1;
}

/// <summary>
/// x in <see cref="SkinnySplit"/>: a group's threads load a chunk, 16 of them a row's 256 bytes, and put it into the order in which its warps multiply it: [tile of 8 rows][step of eight codes][lane] 16 bytes, a step's lanes
/// exchanged by twice its number, so that stores, of four steps at once, and loads, of one, both lie in different banks.
/// </summary>
internal struct SkinnySplitInputs
{
    private const int LaneWords = 4, StepWords = 32 * LaneWords, TileWords = 4 * StepWords, ChunkWords = 64;

    private ArrayView<uint> row0, row1, stages;
    private int own, lane0;

    /// <summary>A thread's places, in a group's shared memory.</summary>
    public static SkinnySplitInputs Locate<TTiles>(LinearArgs a, ArrayView<uint> shared, int group, int lane)
        where TTiles : struct, ITiles
    {
        // Which 16 bytes of the row: its step within a lane's four, and the lane.
        int thread = Group.IdxX & (Warpgroup.Threads - 1), row = thread >> 4, unit = thread & 15, step = unit & 3;
        SkinnySplitInputs place = default;
        ArrayView<uint> x = a.X.Cast<uint>();
        long words = a.K >> 1;
        long first = (IntrinsicMath.Min(row, a.M - 1) * words) + (unit * LaneWords), second = (IntrinsicMath.Min(row + SkinnyGemm.Columns, a.M - 1) * words) + (unit * LaneWords);
        first = IntrinsicMath.Min(first, x.Length - LaneWords);
        second = IntrinsicMath.Min(second, x.Length - LaneWords);
        place.row0 = x.SubView(first, x.Length - first);
        place.row1 = x.SubView(second, x.Length - second);
        place.stages = shared.SubView(group * SkinnySplit.GroupWords(TTiles.Count), SkinnySplit.GroupWords(TTiles.Count));
        place.own = (step * StepWords) + ((((row * 4) + (unit >> 2)) ^ (2 * step)) * LaneWords);
        place.lane0 = lane;
        return place;
    }

    /// <summary>Asks for the thread's part of a chunk. Plain loads: x may be the output of the launch before.</summary>
    public readonly SkinnyInputPair Load<TTiles>(int chunk)
        where TTiles : struct, ITiles
    {
        SkinnyInputPair x = default;
        x.Tile0 = Mem.LoadGlobal(ref row0[chunk * ChunkWords]);
        if (TTiles.Count == 2)
            x.Tile1 = Mem.LoadGlobal(ref row1[chunk * ChunkWords]);
        return x;
    }

    /// <summary>The same of a chunk that K ends in, zeros behind it.</summary>
    public readonly SkinnyInputPair LoadRest<TTiles>(int chunk, int k)
        where TTiles : struct, ITiles => (chunk * 2 * ChunkWords) + ((Group.IdxX & 15) * 2 * LaneWords) < k ? Load<TTiles>(chunk) : default;

    /// <summary>Arranges it, into stage 0 or 1.</summary>
    public readonly void Store<TFormat, TTiles>(SkinnyInputPair x, int stage)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        int to = (stage * TTiles.Count * TileWords) + own;
        Mem.StoreShared(ref stages[to], TFormat.Arrange(x.Tile0));
        if (TTiles.Count == 2)
            Mem.StoreShared(ref stages[to + TileWords], TFormat.Arrange(x.Tile1));
    }

    /// <summary>A lane's inputs of the chunk in a stage.</summary>
    public readonly SkinnyInputTiles Read<TTiles>(int stage)
        where TTiles : struct, ITiles
    {
        SkinnyInputTiles x = default;
        int from = stage * TTiles.Count * TileWords;
        x.Tile0 = ReadTile(from);
        if (TTiles.Count == 2)
            x.Tile1 = ReadTile(from + TileWords);
        return x;
    }

    private readonly SkinnyInputs ReadTile(int from)
    {
        SkinnyInputs x = default;
        x.X0 = Mem.LoadShared(ref stages[from + (lane0 * LaneWords)]);
        x.X1 = Mem.LoadShared(ref stages[from + StepWords + ((lane0 ^ 2) * LaneWords)]);
        x.X2 = Mem.LoadShared(ref stages[from + (2 * StepWords) + ((lane0 ^ 4) * LaneWords)]);
        x.X3 = Mem.LoadShared(ref stages[from + (3 * StepWords) + ((lane0 ^ 6) * LaneWords)]);
        return x;
    }
}
