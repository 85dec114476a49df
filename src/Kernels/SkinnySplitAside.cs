using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Multipliers and zero points of a block of <see cref="SkinnySplit"/> in shared memory, behind sums and stages: [row of W] those of the block's own chunks, group after group in each round of turns, and the zero points of all of a row.
/// </summary>
internal static class SkinnySplitAside
{
    private const int ChunkGroupBytes = 8;

    /// <summary>Bytes of multipliers of a row, of the chunks of one part.</summary>
    public static long ScaleBytes(bool groups, int k, int groupsOfBlock, int parts) => LocalChunks(k, groupsOfBlock, parts) * (groups ? ChunkGroupBytes : sizeof(float));

    /// <summary>Shared memory of a block's rows.</summary>
    public static long SharedBytes(long scaleBytes, long zeroBytes) => SkinnySplit.Rows * sizeof(uint) * (SkinnyAside.RowWords(scaleBytes) + (zeroBytes == 0 ? 0 : SkinnyAside.RowWords(zeroBytes)));

    private static long LocalChunks(int k, int groups, int parts)
    {
        long chunks = ((long)k + 127) / 128, step = (long)groups * parts;
        return (chunks + step - 1) / step * groups;
    }

    private static int First<TTiles>()
        where TTiles : struct, ITiles => Group.DimX / Warpgroup.Threads * SkinnySplit.GroupWords(TTiles.Count) * sizeof(uint);

    // Of a row's own chunks.
    private static int OwnBytes<TFormat>(LinearArgs a)
        where TFormat : struct, IStreamedFormat => (int)ScaleBytes(TFormat.HasGroupScales, a.K, Group.DimX / Warpgroup.Threads, Grid.DimY);

    /// <summary>Where a lane will find its rows', the first of which is <paramref name="row"/> of the block.</summary>
    public static SkinnyAsidePlace Locate<TFormat, TTiles>(LinearArgs a, ArrayView<byte> shared, int row, int lane)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        int words = SkinnyAside.RowWords(OwnBytes<TFormat>(a)), zeroWords = SkinnyAside.RowWords(SkinnyAside.ZeroBytes(a));
        SkinnyAsidePlace place = default;
        place.Scales = SkinnyAside.Words(shared, First<TTiles>() + (((row * words) + (TFormat.HasGroupScales ? (lane & 3) >> 1 : 0)) * sizeof(uint)));
        place.ScaleStep = 8 * words;
        if (TFormat.HasZeroPoints)
        {
            place.ZeroPoints = SkinnyAside.Words(shared, First<TTiles>() + (((SkinnySplit.Rows * words) + (row * zeroWords)) * sizeof(uint)));
            place.ZeroStep = 8 * zeroWords;
        }
        return place;
    }

    /// <summary>Starts to bring them; the whole block.</summary>
    public static void Request<TFormat, TTiles>(LinearArgs a, ArrayView<byte> shared)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        int lane = Group.IdxX & 31, scaleBytes = SkinnyAside.ScaleBytes<TFormat>(a), zeroBytes = SkinnyAside.ZeroBytes(a), ownBytes = OwnBytes<TFormat>(a);
        int scaleStep = SkinnyAside.RowWords(ownBytes) * sizeof(uint), zeroStep = SkinnyAside.RowWords(zeroBytes) * sizeof(uint);
        for (int row = Group.IdxX >> 5; row < SkinnySplit.Rows; row += Group.DimX >> 5)
        {
            long n = IntrinsicMath.Min(SkinnySplit.FirstRow() + row, a.N - 1), block = n >> a.ScaleTable.RowShift;
            int to = First<TTiles>() + (row * scaleStep);
            if (TFormat.HasGroupScales)
                CopyGroups(a, shared, to, n * scaleBytes, (scaleBytes, ownBytes), lane);
            else
                CopyRowBlocks(a, shared, to, block * a.ScaleTable.Columns, ownBytes, lane);
            if (TFormat.HasZeroPoints)
                SkinnyAside.CopyRow(shared, First<TTiles>() + (SkinnySplit.Rows * scaleStep) + (row * zeroStep), a.ScaleTable.ZeroPoints, block * zeroBytes, zeroBytes, lane);
        }
    }

    // The chunk of K that is the block's own by its number.
    private static int Chunk(int local)
    {
        int groups = Group.DimX / Warpgroup.Threads, round = local / groups;
        return (((round * Grid.DimY) + Grid.IdxY) * groups) + local - (round * groups);
    }

    // A warp, eight bytes of group multipliers a chunk, whole words where rows begin with one.
    private static void CopyGroups(LinearArgs a, ArrayView<byte> shared, int to, long from, (int Row, int Own) bytes, int lane)
    {
        ArrayView<byte> stored = a.ScaleTable.Groups;
        if ((bytes.Row & 7) == 0)
        {
            for (int at = lane * ChunkGroupBytes; at < bytes.Own; at += 32 * ChunkGroupBytes)
            {
                int source = Chunk(at / ChunkGroupBytes) * ChunkGroupBytes;
                if (source < bytes.Row)
                    CpAsync.Copy8ZeroFill(ref shared.Cast<uint>()[(to + at) >> 2], ref stored.Cast<uint>()[(from + source) >> 2], 8);
            }
        }
        else
        {
            for (int at = lane; at < bytes.Own; at += 32)
            {
                int source = (Chunk(at / ChunkGroupBytes) * ChunkGroupBytes) + (at & (ChunkGroupBytes - 1));
                if (source < bytes.Row)
                    shared[to + at] = stored[from + source];
            }
        }
    }

    // A warp, a multiplier a chunk.
    private static void CopyRowBlocks(LinearArgs a, ArrayView<byte> shared, int to, long from, int ownBytes, int lane)
    {
        for (int at = lane * sizeof(float); at < ownBytes; at += 32 * sizeof(float))
        {
            int block = (Chunk(at / sizeof(float)) * 128) >> a.ColumnShift;
            if (block < a.ScaleTable.Columns)
                CpAsync.Copy4ZeroFill(ref shared.Cast<uint>()[(to + at) >> 2], ref a.Scales.Cast<uint>()[from + block], 4);
        }
    }

    /// <summary>A chunk's, of a lane's four rows: multipliers by its number among the block's own, zero points by that in the row.</summary>
    public static void Load<TFormat>(LinearArgs a, SkinnyAsidePlace place, int chunk, int local, ref SkinnyChunk w)
        where TFormat : struct, IStreamedFormat
    {
        if (TFormat.HasGroupScales)
            SkinnyAside.GroupMultipliers(place, local, ref w);
        else
            SkinnyAside.RowMultipliers(place, local, ref w);
        if (TFormat.HasZeroPoints)
            SkinnyAside.RowZeroPoints(place, (chunk * 128) >> a.ColumnShift, ref w);
    }
}
