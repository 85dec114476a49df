using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// A warp's place in the work of its block in <see cref="HopperSkinnyGemm"/>: segments, each a phase of K for some tiles, in a segment the warp's run of chunks, tile after tile.
/// </summary>
internal struct HopperSkinnyCursor
{
    /// <summary>Most tiles of a segment where K has several phases: what has room for sums over phases.</summary>
    public const int PhasedTiles = 8;

    /// <summary>The segment, its first tile, the one behind its last, its first chunk of K and how many it has.</summary>
    public int Segment, FirstTile, EndTile, FirstChunk, Chunks;

    /// <summary>The place: a tile, a chunk of the segment's, its number among the segment's, and the number behind the run's last.</summary>
    public int Tile, Chunk, Number, End;

    /// <summary>Segments of the block.</summary>
    public static int Segments(HopperSkinnyArgs a) => a.Phases == 1 ? 1 : a.Phases * ((Bound(a, Grid.IdxX + 1) - Bound(a, Grid.IdxX) + PhasedTiles - 1) / PhasedTiles);

    /// <summary>Goes to the beginning of a warp's run of a segment.</summary>
    public void Enter(HopperSkinnyArgs a, int warp, int segment)
    {
        Segment = segment;
        int pass = a.Phases == 1 ? 0 : segment / a.Phases, end = Bound(a, Grid.IdxX + 1);
        FirstTile = Bound(a, Grid.IdxX) + (pass * PhasedTiles);
        EndTile = a.Phases == 1 ? end : IntrinsicMath.Min(end, FirstTile + PhasedTiles);
        FirstChunk = (segment - (pass * a.Phases)) * a.PhaseChunks;
        Chunks = IntrinsicMath.Min(a.PhaseChunks, a.Chunks - FirstChunk);
        Number = RunOf(warp);
        End = RunOf(warp + 1);
        Tile = FirstTile + (Number / Chunks);
        Chunk = Number - ((Tile - FirstTile) * Chunks);
    }

    /// <summary>From behind a run's end on to the next segment in which the warp has one, if there is one.</summary>
    public void Settle(HopperSkinnyArgs a, int warp)
    {
        while (Number >= End && Segment + 1 < Segments(a))
            Enter(a, warp, Segment + 1);
    }

    /// <summary>The next chunk.</summary>
    public void Advance()
    {
        Number++;
        Chunk++;
        if (Chunk == Chunks)
        {
            Chunk = 0;
            Tile++;
        }
    }

    /// <summary>The number of the first chunk of a warp's run of the segment.</summary>
    public readonly int RunOf(int warp) => (EndTile - FirstTile) * Chunks * warp / HopperSkinnyGemm.Warps;

    private static int Bound(HopperSkinnyArgs a, int block) => (int)((long)a.Tiles * block / Grid.DimX);
}
