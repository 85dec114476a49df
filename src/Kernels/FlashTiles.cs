using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Keys and values in the shared memory of <see cref="FlashAttention"/>: two stages of a tile of each, rows 16 bytes longer than a head. An odd number of
/// 16-byte units apart, eight rows at one column lie in all banks, as <c>ldmatrix</c> wants them, and every place of a tile is a constant away from the
/// lane's first; exchanged units would be another address a step.
/// </summary>
internal static class FlashTiles
{
    private const int UnitBytes = 16;

    /// <summary>Bytes between rows.</summary>
    public static int Pitch(int headDim) => (headDim * sizeof(ushort)) + UnitBytes;

    /// <summary>Bytes of a tile of keys or of values.</summary>
    public static int TileBytes(int positions, int headDim) => positions * Pitch(headDim);

    /// <summary>Dynamic shared memory of a block: keys and values, twice.</summary>
    public static int SharedBytes(int positions, int headDim) => 4 * TileBytes(positions, headDim);

    /// <summary>Bytes to the row that the lane names to <c>ldmatrix</c>: positions 0 to 7 at columns 0 and 8, then positions 8 to 15.</summary>
    public static int KeyPlace(int lane, int headDim) => (((lane & 7) + ((lane >> 4) * 8)) * Pitch(headDim)) + (((lane >> 3) & 1) * UnitBytes);

    /// <summary>The same of values, which are transposed on the way: positions 0 to 15 at column 0, then at column 8.</summary>
    public static int ValuePlace(int lane, int headDim) => ((lane & 15) * Pitch(headDim)) + ((lane >> 4) * UnitBytes);

    /// <summary>Requests keys and values from position <paramref name="start"/> on. From <paramref name="end"/> on there are zeros: what memory holds there may be NaN.</summary>
    public static void Copy<TScores, TOutputs>(FlashAttentionArgs a, ArrayView<byte> shared, int stage, int start, int end)
        where TScores : struct, IFlashSums<TScores>
        where TOutputs : struct, IFlashSums<TOutputs>
    {
        int lanesShift = LanesShift(TOutputs.Columns), unit = Group.IdxX & ((1 << lanesShift) - 1);
        int tileWords = TileBytes(TScores.Columns, TOutputs.Columns) >> 2, pitchWords = Pitch(TOutputs.Columns) >> 2;
        ArrayView<uint> target = shared.Cast<uint>();
        long head = (long)KvHead(a) * a.Capacity;
        for (int row = Group.IdxX >> lanesShift; row < TScores.Columns; row += Group.DimX >> lanesShift)
        {
            int position = start + row, bytes = position < end ? UnitBytes : 0;
            long source = ((head + IntrinsicMath.Min(position, end - 1)) * (TOutputs.Columns / 2)) + (unit * 4);
            int keys = (2 * stage * tileWords) + (row * pitchWords) + (unit * 4), values = keys + tileWords;
            CpAsync.Copy16ZeroFill(ref target[keys], ref a.Keys[source], bytes);
            CpAsync.Copy16ZeroFill(ref target[values], ref a.Values[source], bytes);
            if (TOutputs.Columns == 96)
            {
                // Twelve units: three for each of four threads.
                CpAsync.Copy16ZeroFill(ref target[keys + 16], ref a.Keys[source + 16], bytes);
                CpAsync.Copy16ZeroFill(ref target[values + 16], ref a.Values[source + 16], bytes);
                CpAsync.Copy16ZeroFill(ref target[keys + 32], ref a.Keys[source + 32], bytes);
                CpAsync.Copy16ZeroFill(ref target[values + 32], ref a.Values[source + 32], bytes);
            }
        }
    }

    /// <summary>The KV head of a block: neighbouring blocks have different ones.</summary>
    public static int KvHead(FlashAttentionArgs a) => Grid.IdxX % a.KvHeads;

    // log2 of the threads that share a row: a unit each (64, 128 and 256 columns), or three (96).
    private static int LanesShift(int headDim) => 2 + ((headDim >> 6) & (~headDim >> 5) & 1) + (2 * ((headDim >> 7) & 1)) + (3 * ((headDim >> 8) & 1));
}
