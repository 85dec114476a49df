using ILGPU;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>
/// Two terms of <see cref="Fp8Block{TDecoder}"/>: all codes of a matrix, then all codes of what the first leave over, each term
/// with a scale a block. Value = code · scale + residual code · residual scale, the first product rounded to float32, the
/// second added with one rounding.
/// </summary>
internal readonly struct Fp8TwoTerm<TDecoder> : IWeightFormat
    where TDecoder : struct, IFp8Decoder
{
    public static WeightFormatInfo Info => new("FP8 two-term", 8, true, 448f, 2e-3, Terms: 2);

    public static int CodesPerWordShift => 2;

    public static bool IsScaled => true;

    public static bool HasGroupScales => false;

    public static int Terms => 2;

    public static int RowCodes(int k) => k;

    public static float Scale(ScaleTable scales, int slab, int n, int k) => scales.Blocks[scales.Index(slab, n, k)];

    public static float MatrixScale(ScaleTable scales, int slab) => 1f;

    public static uint Offset(ScaleTable scales, int slab, int n, int k) => 0;

    public static ArrayView<ushort> PrepareTable() => TDecoder.PrepareTable();

    public static uint DecodePair(uint word, int pair, uint offset, ArrayView<ushort> table) => TDecoder.DecodePair(word, pair, table);

    public static ushort DecodeOne(ArrayView<byte> codes, long index, uint offset, ArrayView<ushort> table) =>
        (ushort)TDecoder.DecodePair(codes[index], 0, table);
}
