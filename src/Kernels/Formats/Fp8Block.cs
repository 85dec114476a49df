using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>
/// E4M3FN codes (bias 7, largest 448, 0x7F and 0xFF NaN, no infinity) with one float32 multiplier a block of the matrix.
/// E4M3 has 4 significant bits and exponents −9..8: every value is a BF16 number, so decoding is exact.
/// </summary>
internal readonly struct Fp8Block<TDecoder> : IWeightFormat
    where TDecoder : struct, IFp8Decoder
{
    public static WeightFormatInfo Info => new("FP8 block", 8, true, 448f, 2e-3);

    public static int CodesPerWordShift => 2;

    public static bool IsScaled => true;

    public static bool HasGroupScales => false;

    public static int Terms => 1;

    public static int RowCodes(int k) => k;

    public static float Scale(ScaleTable scales, int slab, int n, int k) => scales.Blocks[scales.Index(slab, n, k)];

    public static float MatrixScale(ScaleTable scales, int slab) => 1f;

    public static uint Offset(ScaleTable scales, int slab, int n, int k) => 0;

    public static ArrayView<ushort> PrepareTable() => TDecoder.PrepareTable();

    public static uint DecodePair(uint word, int pair, uint offset, ArrayView<ushort> table) => TDecoder.DecodePair(word, pair, table);

    public static ushort DecodeOne(ArrayView<byte> codes, long index, uint offset, ArrayView<ushort> table) =>
        (ushort)TDecoder.DecodePair(codes[index], 0, table);
}

/// <summary>One way from E4M3 codes to BF16. All agree on every code that is not NaN.</summary>
internal interface IFp8Decoder
{
    /// <inheritdoc cref="IWeightFormat.PrepareTable"/>
    static abstract ArrayView<ushort> PrepareTable();

    /// <summary>Codes in bytes 2·pair and 2·pair + 1 of a word, as a BF16 pair.</summary>
    static abstract uint DecodePair(uint word, int pair, ArrayView<ushort> table);
}

/// <summary>
/// A table of 256 BF16 values in shared memory: the definition of the format, for architectures without the conversion
/// (below sm_89) and for the CPU.
/// </summary>
internal readonly struct Fp8Table : IFp8Decoder
{
    public static ArrayView<ushort> PrepareTable()
    {
        ArrayView<ushort> table = SharedMemory.Allocate<ushort>(256);
        for (int code = Group.IdxX; code < 256; code += Group.DimX)
            table[code] = (ushort)Fp8Hardware.ToBf16Pair(Cvt.E4M3x2LowToF16x2Software((uint)code));
        // The table is complete before anyone decodes.
        Block.Barrier();
        return table;
    }

    public static uint DecodePair(uint word, int pair, ArrayView<ushort> table)
    {
        uint codes = word >> (16 * pair);
        return table[(int)(codes & 0xFF)] | ((uint)table[(int)((codes >> 8) & 0xFF)] << 16);
    }
}

/// <summary>
/// Moves the bits into place: sign, and the other seven bits below BF16's top exponent bits, which is the value times
/// 2⁻¹²⁰ with subnormals included; one multiplication by 2¹²⁰ makes it exact. NaN codes become ±480.
/// </summary>
internal readonly struct Fp8BitMove : IFp8Decoder
{
    // 2¹²⁰ as a BF16 pair: exponent 127 + 120 = 0xF7, shifted to bit 7.
    private const uint TwoTo120 = 0x7B807B80;
    private const uint MinusZero = 0x80008000;

    // Sign, exponent and mantissa of a code that was shifted left by four.
    private const uint Moved = 0x87F087F0;

    public static ArrayView<ushort> PrepareTable() => default;

    // A byte and, above it, eight times its sign.
    public static uint DecodePair(uint word, int pair, ArrayView<ushort> table) => Decode(Bits.Prmt(word, 0, pair == 0 ? 0x9180u : 0xB3A2u));

    /// <summary>The two halves of a word, each a code that its sign extends, as a BF16 pair.</summary>
    public static uint Decode(uint extended) =>
        // −0 as the addend keeps the sign of a zero product.
        Cvt.FmaBf16x2((extended << 4) & Moved, TwoTo120, MinusZero);
}

/// <summary>The hardware's conversion to F16 (sm_89 and newer; integer arithmetic before), then to BF16.</summary>
internal readonly struct Fp8Hardware : IFp8Decoder
{
    public static ArrayView<ushort> PrepareTable() => default;

    public static uint DecodePair(uint word, int pair, ArrayView<ushort> table) =>
        ToBf16Pair(pair == 0 ? Cvt.E4M3x2LowToF16x2(word) : Cvt.E4M3x2HighToF16x2(word));

    /// <summary>An F16 pair of E4M3 values as a BF16 pair, exactly: F16 has more bits than E4M3, BF16 enough.</summary>
    public static uint ToBf16Pair(uint halves) => Cvt.Bf16x2(Cvt.F16High(halves), Cvt.F16Low(halves));
}
