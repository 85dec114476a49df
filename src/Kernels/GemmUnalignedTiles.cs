using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Global memory to the shared tiles of <see cref="GemmUnaligned"/>: 32 BF16 columns a row, 8 at a time, whatever the alignment.
/// Rows, columns and k beyond the matrices become zeros.
/// </summary>
internal static class GemmUnalignedTiles
{
    /// <summary>Elements between rows of a tile: 32 values and 8 of padding against bank conflicts.</summary>
    public const int Stride = 40;

    /// <summary>Rows of x named by <paramref name="rows"/> (−1 is none), columns from <paramref name="k"/>.</summary>
    public static void StageInputs<TAccess, TRows>(LinearArgs a, ArrayView<ushort> tileX, ArrayView<int> rows, int k)
        where TAccess : struct, IAccess
        where TRows : struct, IRowMap
    {
        ArrayView<uint> words = a.X.Cast<uint>();
        for (int unit = Group.IdxX; unit < GemmUnaligned.TileM * 4; unit += Group.DimX)
        {
            int row = unit >> 2, column = k + ((unit & 3) * 8);
            int source = rows[row];
            long start = ((TRows.IsGrouped ? source / a.RowsPerInput : (long)source) * a.K) + column;
            U4 value = default;
            if (source >= 0 && column < a.K)
                value = TAccess.IsVectorised ? Mem.LoadReadOnly(ref words[start >> 1]) : Gather(a.X, start, a.K - column);
            Mem.StoreShared(ref tileX.Cast<uint>()[((row * Stride) + ((unit & 3) * 8)) >> 1], value);
        }
    }

    /// <summary>Rows of W from <paramref name="firstColumn"/>, decoded to BF16 and times their group scale if any, columns from <paramref name="k"/>.</summary>
    public static void StageWeights<TFormat, TAccess>(LinearArgs a, ArrayView<ushort> table, ArrayView<ushort> tileW, int slab, int firstColumn, int k)
        where TFormat : struct, IWeightFormat
        where TAccess : struct, IAccess
    {
        for (int unit = Group.IdxX; unit < GemmUnaligned.TileN * 4; unit += Group.DimX)
        {
            int row = unit >> 2, column = k + ((unit & 3) * 8);
            int n = firstColumn + row;
            U4 value = default;
            if (n < a.N && column < a.K)
            {
                long start = ((((long)slab * a.N) + n) * TFormat.RowCodes(a.K)) + column;
                uint offset = TFormat.Offset(a.ScaleTable, slab, n, column);
                value = TAccess.IsVectorised ? DecodeOctet<TFormat>(a, table, start, offset) : GatherWeights<TFormat>(a, table, start, a.K - column, offset);
                if (TFormat.HasGroupScales)
                    value = Scaled(value, TFormat.Scale(a.ScaleTable, slab, n, column));
            }
            Mem.StoreShared(ref tileW.Cast<uint>()[((row * Stride) + ((unit & 3) * 8)) >> 1], value);
        }
    }

    // Eight consecutive codes as BF16.
    private static U4 DecodeOctet<TFormat>(LinearArgs a, ArrayView<ushort> table, long start, uint offset)
        where TFormat : struct, IWeightFormat
    {
        ArrayView<uint> words = a.Codes.Cast<uint>();
        if (TFormat.CodesPerWordShift == 1)
            return Mem.LoadReadOnly(ref words[start >> 1]);
        U4 value;
        if (TFormat.CodesPerWordShift == 3)
        {
            uint nibbles = Mem.LoadStream1(ref words[start >> 3]);
            value.X = TFormat.DecodePair(nibbles, 0, offset, table);
            value.Y = TFormat.DecodePair(nibbles, 1, offset, table);
            value.Z = TFormat.DecodePair(nibbles, 2, offset, table);
            value.W = TFormat.DecodePair(nibbles, 3, offset, table);
            return value;
        }
        U2 codes = Mem.LoadStream2(ref words[start >> 2]);
        value.X = TFormat.DecodePair(codes.X, 0, offset, table);
        value.Y = TFormat.DecodePair(codes.X, 1, offset, table);
        value.Z = TFormat.DecodePair(codes.Y, 0, offset, table);
        value.W = TFormat.DecodePair(codes.Y, 1, offset, table);
        return value;
    }

    // Eight values of one group times its scale: exact, since a format with group scales has few bits in both.
    private static U4 Scaled(U4 value, float scale)
    {
        const uint MinusZero = 0x80008000;
        uint pair = Bf16.Pack(scale, scale);
        value.X = Cvt.FmaBf16x2(value.X, pair, MinusZero);
        value.Y = Cvt.FmaBf16x2(value.Y, pair, MinusZero);
        value.Z = Cvt.FmaBf16x2(value.Z, pair, MinusZero);
        value.W = Cvt.FmaBf16x2(value.W, pair, MinusZero);
        return value;
    }

    private static U4 Gather(ArrayView<ushort> x, long start, int left)
    {
        U4 value;
        value.X = GatherPair(x, start, left);
        value.Y = GatherPair(x, start + 2, left - 2);
        value.Z = GatherPair(x, start + 4, left - 4);
        value.W = GatherPair(x, start + 6, left - 6);
        return value;
    }

    private static uint GatherPair(ArrayView<ushort> x, long start, int left)
    {
        uint pair = 0;
        if (left > 0)
            pair = x[start];
        if (left > 1)
            pair |= (uint)x[start + 1] << 16;
        return pair;
    }

    private static U4 GatherWeights<TFormat>(LinearArgs a, ArrayView<ushort> table, long start, int left, uint offset)
        where TFormat : struct, IWeightFormat
    {
        U4 value;
        value.X = GatherWeightPair<TFormat>(a, table, start, left, offset);
        value.Y = GatherWeightPair<TFormat>(a, table, start + 2, left - 2, offset);
        value.Z = GatherWeightPair<TFormat>(a, table, start + 4, left - 4, offset);
        value.W = GatherWeightPair<TFormat>(a, table, start + 6, left - 6, offset);
        return value;
    }

    private static uint GatherWeightPair<TFormat>(LinearArgs a, ArrayView<ushort> table, long start, int left, uint offset)
        where TFormat : struct, IWeightFormat
    {
        uint pair = 0;
        if (left > 0)
            pair = TFormat.DecodeOne(a.Codes, start, offset, table);
        if (left > 1)
            pair |= (uint)TFormat.DecodeOne(a.Codes, start + 1, offset, table) << 16;
        return pair;
    }
}
