using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>
/// Unsigned codes 0..15, two a byte, the even column in the low half; one multiplier and one zero point 0..15 a block of at
/// least 32 columns (usually 1 × 128): value = (code − zero) · scale. The zero point is subtracted from the code, where it is
/// exact, not from sums, where it would cancel.
/// </summary>
internal readonly struct Int4Zero : IWeightFormat
{
    // BF16 from 128 to 255 counts in ones: 0x4300 with a code in its lowest bits is 128 + code, 0xC300 with a zero point −128 − zero.
    private const uint One28 = 0x43004300, Minus128 = 0xC300C300, Ones = 0x3F803F80;

    public static WeightFormatInfo Info => new("INT4 zero", 4, true, 15f, 2e-3, HasZeroPoints: true);

    public static int CodesPerWordShift => 3;

    public static bool IsScaled => true;

    public static bool HasGroupScales => false;

    public static int Terms => 1;

    public static int RowCodes(int k) => (k + 1) & ~1;

    public static float Scale(ScaleTable scales, int slab, int n, int k) => scales.Blocks[scales.Index(slab, n, k)];

    public static float MatrixScale(ScaleTable scales, int slab) => 1f;

    /// <summary>−(128 + zero point) as a BF16 pair.</summary>
    public static uint Offset(ScaleTable scales, int slab, int n, int k)
    {
        uint zero = scales.ZeroPoint(slab, n, k);
        return Minus128 | zero | (zero << 16);
    }

    public static ArrayView<ushort> PrepareTable() => default;

    public static uint DecodePair(uint word, int pair, uint offset, ArrayView<ushort> table)
    {
        uint codes = word >> (8 * pair);
        uint spread = (codes & 0xF) | ((codes & 0xF0) << 12);
        return Cvt.FmaBf16x2(spread | One28, Ones, offset);
    }

    public static ushort DecodeOne(ArrayView<byte> codes, long index, uint offset, ArrayView<ushort> table) =>
        DecodeCode((uint)codes[index >> 1] >> (4 * (int)(index & 1)), offset & 15);

    /// <summary>One code in the lowest four bits, less its zero point, as BF16 bits.</summary>
    public static ushort DecodeCode(uint code, uint zero) => Bf16.FromFloat((int)(code & 15) - (int)zero);
}
