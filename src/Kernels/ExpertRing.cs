using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Weights of <see cref="ExpertGateUp"/> on their way through shared memory: a warp's ring of six chunks of both matrices, filled by <c>cp.async</c>. What is on its way costs
/// no register, so most of a block's weights are requested as soon as its expert is known, and the blocks of the next launch find registers to wait in. A lane reads
/// only what it has copied itself: no barrier, and no exchange between banks.
/// </summary>
internal static class ExpertRing
{
    /// <summary>Chunks on their way: three blocks of four warps have 162 KB of a multiprocessor's shared memory, and the next launch the rest.</summary>
    public const int Stages = 6;

    private const int Lanes = 32, RowWords = 4 * Lanes;

    /// <summary>Four rows' words and two scales a lane.</summary>
    private const int StageWords = (4 * RowWords) + (2 * Lanes);

    /// <summary>Bytes of a warp's ring; none where a format does not go through it.</summary>
    public static int WarpBytes<TFormat>()
        where TFormat : struct, IStreamedFormat => Suits<TFormat>() ? Stages * StageWords * sizeof(uint) : 0;

    /// <summary>Whether a chunk is words and at most a scale a tile: what else formats have comes in pieces too small to copy.</summary>
    public static bool Suits<TFormat>()
        where TFormat : struct, IStreamedFormat => !TFormat.HasGroupScales && !TFormat.HasZeroPoints && !TFormat.HasRowScales;

    /// <summary>Requests a chunk of both matrices and closes its group; past the last chunk the group is empty.</summary>
    public static void Request<TFormat>(ExpertArgs a, ExpertRows rows, ArrayView<uint> ring, int stage, int chunk)
        where TFormat : struct, IStreamedFormat
    {
        if (chunk * TileStream.ChunkCodes<TFormat>() < a.Weights.K)
        {
            int lane = Group.IdxX & 31, at = (stage * StageWords) + (lane * 4);
            ArrayView<uint> words = a.Weights.Codes.Cast<uint>();
            long start = ((long)rows.Expert * a.Weights.N * (a.Weights.K >> TFormat.CodesPerWordShift)) + (chunk * SkinnyGemm.ChunkWords);
            CpAsync.Copy16(ref ring[at], ref words[rows.Gate.Row0 + start]);
            CpAsync.Copy16(ref ring[at + RowWords], ref words[rows.Gate.Row1 + start]);
            CpAsync.Copy16(ref ring[at + (2 * RowWords)], ref words[rows.Up.Row0 + start]);
            CpAsync.Copy16(ref ring[at + (3 * RowWords)], ref words[rows.Up.Row1 + start]);
            if (TFormat.HasTileScales)
            {
                ArrayView<uint> scales = a.Weights.ScaleTable.Blocks.Cast<uint>();
                long block = ((long)rows.Expert * a.Weights.ScaleTable.PerSlab) + ((chunk * TileStream.ChunkCodes<TFormat>()) >> a.Weights.ScaleTable.ColumnShift);
                int scale = (stage * StageWords) + (4 * RowWords) + lane;
                CpAsync.Copy4ZeroFill(ref ring[scale], ref scales[rows.Gate.Scales0 + block], sizeof(uint));
                CpAsync.Copy4ZeroFill(ref ring[scale + Lanes], ref scales[rows.Up.Scales0 + block], sizeof(uint));
            }
        }
        CpAsync.Commit();
    }

    /// <summary>The oldest chunk that was requested, when at most five younger groups are closed.</summary>
    public static ExpertChunk Take<TFormat>(ArrayView<uint> ring, int stage)
        where TFormat : struct, IStreamedFormat
    {
        CpAsync.Wait(Stages - 1);
        int lane = Group.IdxX & 31, at = (stage * StageWords) + (lane * 4), scale = (stage * StageWords) + (4 * RowWords) + lane;
        ExpertChunk chunk = default;
        chunk.Gate.Row0 = Mem.LoadShared(ref ring[at]);
        chunk.Gate.Row1 = Mem.LoadShared(ref ring[at + RowWords]);
        chunk.Up.Row0 = Mem.LoadShared(ref ring[at + (2 * RowWords)]);
        chunk.Up.Row1 = Mem.LoadShared(ref ring[at + (3 * RowWords)]);
        if (TFormat.HasTileScales)
        {
            chunk.Gate.Scale0 = ring[scale];
            chunk.Up.Scale0 = ring[scale + Lanes];
        }
        return chunk;
    }
}
