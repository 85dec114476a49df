using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>
/// Signed codes −8..7 in two's complement, two a byte, the even column in the low half; one multiplier a block of at least
/// 32 columns (usually 1 × 128). Whole numbers this small are BF16 numbers.
/// </summary>
internal readonly struct Int4 : IWeightFormat
{
    // BF16 from 128 to 255 counts in ones: 0x4300 with c + 8 in its lowest bits is 136 + c.
    private const uint One28 = 0x43004300, Minus136 = 0xC308C308, Ones = 0x3F803F80, SignBits = 0x00080008;

    public static WeightFormatInfo Info => new("INT4", 4, true, 7f, 2e-3);

    public static int CodesPerWordShift => 3;

    public static bool IsScaled => true;

    public static bool HasGroupScales => false;

    public static int Terms => 1;

    public static int RowCodes(int k) => (k + 1) & ~1;

    public static float Scale(ScaleTable scales, int slab, int n, int k) => scales.Blocks[scales.Index(slab, n, k)];

    public static float MatrixScale(ScaleTable scales, int slab) => 1f;

    public static uint Offset(ScaleTable scales, int slab, int n, int k) => 0;

    public static ArrayView<ushort> PrepareTable() => default;

    public static uint DecodePair(uint word, int pair, uint offset, ArrayView<ushort> table)
    {
        uint codes = word >> (8 * pair);
        uint spread = (codes & 0xF) | ((codes & 0xF0) << 12);
        return Cvt.FmaBf16x2((spread ^ SignBits) | One28, Ones, Minus136);
    }

    public static ushort DecodeOne(ArrayView<byte> codes, long index, uint offset, ArrayView<ushort> table) =>
        DecodeCode((uint)codes[index >> 1] >> (4 * (int)(index & 1)));

    /// <summary>One code in the lowest four bits as BF16 bits.</summary>
    public static ushort DecodeCode(uint code) => Bf16.FromFloat((int)((code & 15) ^ 8) - 8);
}
