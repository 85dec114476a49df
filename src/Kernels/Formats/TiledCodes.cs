using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>E4M3 on both sides, multiplied as it is (compute capability 8.9 and 12.x).</summary>
internal readonly struct TiledFp8Native : ITiledFormat
{
    public static int CodesPerWordShift => 1;

    public static TiledOperands Operands => TiledOperands.Fp8;

    public static int Terms => 1;

    public static bool HasRowScales => false;

    public static bool HasOperands => false;

    public static bool HasMatrixScale => false;

    public static uint Operand(ScaleTable scales, int slab, int n, int k) => 0;

    public static float MatrixScale(ScaleTable scales, int slab) => 1f;

    public static F4 Multiply(U4 w, U2 x, F4 sum) => Mma.E4M3(w, x, sum);

    public static U2 DecodeInput(uint codes) => default;

    public static U2 Decode(U4 codes, int step, uint operand) => default;
}

/// <summary>
/// The same by the instruction that multiplies codes and multipliers, which are all one here (sm_120a): it knows powers of two, a row's
/// multipliers and those of a block of W are any float32.
/// </summary>
internal readonly struct TiledFp8Scaled : ITiledFormat
{
    // 2⁰ in UE8M0, in all bytes.
    private const uint Ones = 0x7F7F7F7F;

    public static int CodesPerWordShift => 1;

    public static TiledOperands Operands => TiledOperands.Fp8;

    public static int Terms => 1;

    public static bool HasRowScales => false;

    public static bool HasOperands => false;

    public static bool HasMatrixScale => false;

    public static uint Operand(ScaleTable scales, int slab, int n, int k) => 0;

    public static float MatrixScale(ScaleTable scales, int slab) => 1f;

    public static F4 Multiply(U4 w, U2 x, F4 sum) => Mma.ScaledE4M3(w, x, sum, Ones, Ones);

    public static U2 DecodeInput(uint codes) => default;

    public static U2 Decode(U4 codes, int step, uint operand) => default;
}

/// <summary>
/// E4M3 on both sides, decoded to F16 pairs by bit moves on every architecture: values times 2⁻⁸, so
/// that whole sums are multiplied by 2¹⁶.
/// </summary>
internal readonly struct TiledFp8Decoded : ITiledFormat
{
    private const uint Magnitudes = 0x7F7F7F7F, Ones = 0x01010101, Upper = 0x40004000;

    // Where the magnitude bits of a code stand in both halves of a pair.
    private const uint PairMagnitudes = 0x3F803F80;

    // (a and b) or c.
    private const int AndOr = 0xEA;

    public static int CodesPerWordShift => 1;

    public static TiledOperands Operands => TiledOperands.DecodedFp8;

    public static int Terms => 1;

    public static bool HasRowScales => false;

    public static bool HasOperands => false;

    public static bool HasMatrixScale => true;

    public static uint Operand(ScaleTable scales, int slab, int n, int k) => 0;

    public static float MatrixScale(ScaleTable scales, int slab) => 65536f;

    public static F4 Multiply(U4 w, U2 x, F4 sum) => Mma.F16(w, x, sum);

    /// <summary>
    /// NaN is all ones below the sign, to which one is added so that a bit shows it. With F16's upper exponent bit such a number is F16's NaN.
    /// </summary>
    public static U2 DecodeInput(uint codes)
    {
        uint nan = (codes & Magnitudes) + Ones;
        U2 pairs = Fp8Pairs.Decode(codes, left: 7, right: 1, PairMagnitudes);
        pairs.X = Bits.Lop3(nan << 7, Upper, pairs.X, AndOr);
        pairs.Y = Bits.Lop3(nan >> 1, Upper, pairs.Y, AndOr);
        return pairs;
    }

    /// <summary>The four codes of the first or the second word. Weights that the device has quantised may be NaN, too.</summary>
    public static U2 Decode(U4 codes, int step, uint operand) => DecodeInput(step == 0 ? codes.X : codes.Y);
}

/// <summary>
/// NVFP4 on both sides, multiplied as it is together with the multipliers of its groups (sm_120a); those of the matrix and of the row of x come at the end.
/// </summary>
internal readonly struct TiledNvfp4Native : ITiledFormat
{
    public static int CodesPerWordShift => 1;

    public static TiledOperands Operands => TiledOperands.Nvfp4;

    public static int Terms => 1;

    public static bool HasRowScales => false;

    public static bool HasOperands => false;

    public static bool HasMatrixScale => true;

    public static uint Operand(ScaleTable scales, int slab, int n, int k) => 0;

    public static float MatrixScale(ScaleTable scales, int slab) => scales.Blocks[slab];

    public static F4 Multiply(U4 w, U2 x, F4 sum) => default;

    public static U2 DecodeInput(uint codes) => default;

    public static U2 Decode(U4 codes, int step, uint operand) => default;
}
