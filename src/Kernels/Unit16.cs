using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Sixteen consecutive columns of a row as BF16 pairs, which every format's codes are exactly. No scale changes inside: groups
/// and blocks have 16 columns or a multiple. Fields, not an array, which would be local memory.
/// </summary>
internal struct Unit16
{
    public const int Columns = 16;
    public const int ColumnShift = 4;

    public uint P0, P1, P2, P3, P4, P5, P6, P7;

    /// <summary>Decodes codes from <paramref name="index"/> on; columns from <paramref name="columns"/> on are zero and not read.</summary>
    /// <param name="codes">All codes.</param>
    /// <param name="index">The first code.</param>
    /// <param name="columns">1 to 16.</param>
    /// <param name="isAligned">Whether <paramref name="index"/> may be loaded in words: 16 bytes, or the 8 of four-bit codes.</param>
    /// <param name="offset">What the format's decoder adds to each code.</param>
    /// <param name="table">The format's table.</param>
    public static Unit16 Load<TFormat>(ArrayView<byte> codes, long index, int columns, bool isAligned, uint offset, ArrayView<ushort> table)
        where TFormat : struct, IWeightFormat =>
        isAligned && columns == Columns ? LoadWords<TFormat>(codes, index, offset, table) : LoadElements<TFormat>(codes, index, columns, offset, table);

    private static Unit16 LoadWords<TFormat>(ArrayView<byte> codes, long index, uint offset, ArrayView<ushort> table)
        where TFormat : struct, IWeightFormat
    {
        ArrayView<uint> words = codes.Cast<uint>();
        long at = index >> TFormat.CodesPerWordShift;
        Unit16 unit = default;
        if (TFormat.CodesPerWordShift == 3)
        {
            U2 w = Mem.LoadGlobal2(ref words[at]);
            unit.P0 = TFormat.DecodePair(w.X, 0, offset, table);
            unit.P1 = TFormat.DecodePair(w.X, 1, offset, table);
            unit.P2 = TFormat.DecodePair(w.X, 2, offset, table);
            unit.P3 = TFormat.DecodePair(w.X, 3, offset, table);
            unit.P4 = TFormat.DecodePair(w.Y, 0, offset, table);
            unit.P5 = TFormat.DecodePair(w.Y, 1, offset, table);
            unit.P6 = TFormat.DecodePair(w.Y, 2, offset, table);
            unit.P7 = TFormat.DecodePair(w.Y, 3, offset, table);
            return unit;
        }
        U4 first = Mem.LoadReadOnly(ref words[at]);
        if (TFormat.CodesPerWordShift == 2)
        {
            unit.P0 = TFormat.DecodePair(first.X, 0, offset, table);
            unit.P1 = TFormat.DecodePair(first.X, 1, offset, table);
            unit.P2 = TFormat.DecodePair(first.Y, 0, offset, table);
            unit.P3 = TFormat.DecodePair(first.Y, 1, offset, table);
            unit.P4 = TFormat.DecodePair(first.Z, 0, offset, table);
            unit.P5 = TFormat.DecodePair(first.Z, 1, offset, table);
            unit.P6 = TFormat.DecodePair(first.W, 0, offset, table);
            unit.P7 = TFormat.DecodePair(first.W, 1, offset, table);
            return unit;
        }
        U4 second = Mem.LoadReadOnly(ref words[at + 4]);
        unit.P0 = TFormat.DecodePair(first.X, 0, offset, table);
        unit.P1 = TFormat.DecodePair(first.Y, 0, offset, table);
        unit.P2 = TFormat.DecodePair(first.Z, 0, offset, table);
        unit.P3 = TFormat.DecodePair(first.W, 0, offset, table);
        unit.P4 = TFormat.DecodePair(second.X, 0, offset, table);
        unit.P5 = TFormat.DecodePair(second.Y, 0, offset, table);
        unit.P6 = TFormat.DecodePair(second.Z, 0, offset, table);
        unit.P7 = TFormat.DecodePair(second.W, 0, offset, table);
        return unit;
    }

    private static Unit16 LoadElements<TFormat>(ArrayView<byte> codes, long index, int columns, uint offset, ArrayView<ushort> table)
        where TFormat : struct, IWeightFormat
    {
        Unit16 unit = default;
        unit.P0 = Pair<TFormat>(codes, index, 0, columns, offset, table);
        unit.P1 = Pair<TFormat>(codes, index, 2, columns, offset, table);
        unit.P2 = Pair<TFormat>(codes, index, 4, columns, offset, table);
        unit.P3 = Pair<TFormat>(codes, index, 6, columns, offset, table);
        unit.P4 = Pair<TFormat>(codes, index, 8, columns, offset, table);
        unit.P5 = Pair<TFormat>(codes, index, 10, columns, offset, table);
        unit.P6 = Pair<TFormat>(codes, index, 12, columns, offset, table);
        unit.P7 = Pair<TFormat>(codes, index, 14, columns, offset, table);
        return unit;
    }

    private static uint Pair<TFormat>(ArrayView<byte> codes, long index, int column, int columns, uint offset, ArrayView<ushort> table)
        where TFormat : struct, IWeightFormat
    {
        uint low = column < columns ? TFormat.DecodeOne(codes, index + column, offset, table) : 0u;
        uint high = column + 1 < columns ? TFormat.DecodeOne(codes, index + column + 1, offset, table) : 0u;
        return (low & 0xFFFF) | (high << 16);
    }
}
