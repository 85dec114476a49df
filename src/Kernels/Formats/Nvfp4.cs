using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>
/// E2M1 codes (0, ½, 1, 1½, 2, 3, 4, 6 and a sign in bit 3), two a byte, the even column in the low half; one E4M3
/// multiplier a group of 16 columns and one float32 a matrix. Two significant bits times four are at most six: a code times
/// its group's scale is a BF16 number, and only the matrix's scale rounds.
/// </summary>
internal readonly struct Nvfp4 : IWeightFormat
{
    // 2¹²⁶ as a BF16 pair: exponent 127 + 126 = 0xFD, shifted to bit 7.
    private const uint TwoTo126 = 0x7E807E80;
    private const uint MinusZero = 0x80008000;
    private const float TwoTo120 = 1329227995784915872903807060280344576f;

    public static WeightFormatInfo Info => new("NVFP4", 4, true, 6f, 2e-3, HasGroupScales: true);

    public static int CodesPerWordShift => 3;

    public static bool IsScaled => true;

    public static bool HasGroupScales => true;

    public static int Terms => 1;

    public static int RowCodes(int k) => (k + 1) & ~1;

    public static float Scale(ScaleTable scales, int slab, int n, int k) => GroupScale(scales.Groups[scales.Index(slab, n, k)]);

    public static float MatrixScale(ScaleTable scales, int slab) => scales.Blocks[slab];

    public static uint Offset(ScaleTable scales, int slab, int n, int k) => 0;

    /// <summary>An E4M3 multiplier. Its bits moved into float32's are the value times 2⁻¹²⁰, subnormals included; the NaN codes,
    /// which loading refuses, become ±480.</summary>
    public static float GroupScale(byte code)
    {
        uint bits = code;
        return Interop.IntAsFloat(((bits & 0x80) << 24) | ((bits & 0x7F) << 20)) * TwoTo120;
    }

    public static ArrayView<ushort> PrepareTable() => default;

    /// <summary>A code's magnitude below BF16's upper exponent bits is the value times 2⁻¹²⁶, subnormal ½ included.</summary>
    public static uint DecodePair(uint word, int pair, uint offset, ArrayView<ushort> table)
    {
        uint codes = word >> (8 * pair);
        uint spread = (codes & 0xF) | ((codes & 0xF0) << 12);
        uint moved = ((spread & 0x00070007u) << 6) | ((spread & 0x00080008u) << 12);
        // −0 as the addend keeps the sign of a zero product.
        return Cvt.FmaBf16x2(moved, TwoTo126, MinusZero);
    }

    public static ushort DecodeOne(ArrayView<byte> codes, long index, uint offset, ArrayView<ushort> table) =>
        DecodeCode((uint)codes[index >> 1] >> (4 * (int)(index & 1)));

    /// <summary>One code in the lowest four bits as BF16 bits, in integer arithmetic: ½ is the only subnormal.</summary>
    public static ushort DecodeCode(uint code)
    {
        uint magnitude = code & 7;
        uint bits = magnitude < 2 ? magnitude * 0x3F00 : (magnitude << 6) + (126 << 7);
        return (ushort)(((code & 8) << 12) | bits);
    }
}
