using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// A tile of 16 rows of weights in shared memory, its rows behind one another as they are in device memory: neighbouring rows are one piece, which the copy engine (sm_90) moves at
/// one thread's request.
/// </summary>
/// <remarks>
/// So nearly all weights of a block are requested before its launch may read anything else. Asynchronous copies of the lanes can do the same, but they and all other accesses of a multiprocessor share one unit, which
/// stands still when too many are on their way; and a request a row costs its warp more than the row's multiplication.
/// </remarks>
internal struct BulkTile
{
    /// <summary>Address of the first row in shared memory.</summary>
    public uint Codes;

    /// <summary>Bytes of a row.</summary>
    public int RowBytes;

    /// <summary>Makes a block's barriers, each for one tile at a time; a barrier of the block must follow before they are waited for.</summary>
    public static void MakeBarriers(uint first, int count)
    {
        if (Group.IdxX != 0)
            return;
        for (int i = 0; i < count; i++)
            Mbarrier.Initialize(first + (uint)(i * sizeof(long)), 1);
        Mbarrier.FenceInitialized();
    }

    /// <summary>One thread requests rows of a matrix of the stack into row <paramref name="row"/> of the tile. The barrier expects them already.</summary>
    public readonly void Request<TFormat>(StreamedWeights w, (int Slab, int FirstRow, int Count) from, int row, uint barrier)
        where TFormat : struct, IStreamedFormat
    {
        long start = (((long)from.Slab * w.N) + from.FirstRow) * RowBytes;
        Bulk.Load(Codes + (uint)(row * RowBytes), Mem.GlobalAddress(ref w.Codes.Cast<uint>()[start >> 2]), from.Count * RowBytes, barrier);
    }

    /// <summary>A lane's words of a chunk.</summary>
    public readonly TileChunk Take(int chunk)
    {
        int lane = Group.IdxX & 31;
        uint at = Codes + (uint)(((lane >> 2) * RowBytes) + (chunk * SkinnyGemm.ChunkBytes) + ((lane & 3) * 16));
        TileChunk taken = default;
        taken.Row0 = SharedWindow.Load(at);
        taken.Row1 = SharedWindow.Load(at + (uint)(8 * RowBytes));
        return taken;
    }

    /// <summary>Adds a chunk's products with one row of x, arranged as weights are decoded, to a lane's two sums.</summary>
    public readonly BulkSums Multiply<TFormat>(TileInputs x, int chunk, (float Upper, float Lower) scales, BulkSums sums)
        where TFormat : struct, IStreamedFormat
    {
        F4 part = TileStream.Products<TFormat, AsDecoded<TFormat>>(Take(chunk), x);
        float correction = TFormat.HasTileScales ? TFormat.Correction : 1f;
        sums.Upper = Fast.Fma(part.X, scales.Upper * correction, sums.Upper);
        sums.Lower = Fast.Fma(part.Z, scales.Lower * correction, sums.Lower);
        return sums;
    }

    /// <summary>A scale in shared memory, or 1 in a format without.</summary>
    public static float Scale<TFormat>(ArrayView<float> scales, int first, StreamedWeights w, int chunk)
        where TFormat : struct, IStreamedFormat =>
        TFormat.HasTileScales ? scales[first + ((chunk * TileStream.ChunkCodes<TFormat>()) >> w.ScaleTable.ColumnShift)] : 1f;

    /// <summary>Floats of a row's scales.</summary>
    public static int ScaleCount<TFormat>(StreamedWeights w)
        where TFormat : struct, IStreamedFormat => TFormat.HasTileScales ? w.ScaleTable.Columns : 0;

    /// <summary>Some threads of a block copy the scales of a row's block; a barrier must follow.</summary>
    public static void LoadScales<TFormat>(ArrayView<float> scales, int first, StreamedWeights w, (int Slab, int Row) from, (int Thread, int Threads) who)
        where TFormat : struct, IStreamedFormat
    {
        if (!TFormat.HasTileScales)
            return;
        ArrayView<uint> table = w.ScaleTable.Blocks.Cast<uint>();
        long start = w.ScaleTable.Index(from.Slab, IntrinsicMath.Min(from.Row, w.N - 1), 0);
        for (int i = who.Thread; i < w.ScaleTable.Columns; i += who.Threads)
            scales[first + i] = Interop.IntAsFloat(Mem.LoadReadOnly1(ref table[start + i]));
    }

    /// <summary>A warp's sums of 16 rows: every lane of four has the same.</summary>
    public static void Publish(ArrayView<float> partials, int first, BulkSums sums)
    {
        int lane = Group.IdxX & 31;
        if ((lane & 3) > 0)
            return;
        partials[first + (lane >> 2)] = sums.Upper;
        partials[first + 8 + (lane >> 2)] = sums.Lower;
    }

    /// <summary>One row's sum over the warps by eight lanes beside each other, which all get it; whole warps call, each thread with its number among 128. A fixed order.</summary>
    public static float Collect(ArrayView<float> partials, int first, int warps, int thread)
    {
        float sum = 0;
        for (int warp = thread & 7; warp < warps; warp += 8)
            sum += partials[first + (warp * TileStream.Rows) + (thread >> 3)];
        sum += WarpOps.ShuffleXor(sum, 1);
        sum += WarpOps.ShuffleXor(sum, 2);
        return sum + WarpOps.ShuffleXor(sum, 4);
    }
}

/// <summary>A lane's sums of the rows g and g + 8 of a tile, for one row of x.</summary>
internal struct BulkSums
{
    public float Upper, Lower;

    /// <summary>Both halves of a warp's chunks.</summary>
    public static BulkSums Add(BulkSums a, BulkSums b)
    {
        a.Upper += b.Upper;
        a.Lower += b.Lower;
        return a;
    }
}
