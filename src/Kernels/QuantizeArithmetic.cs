using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// The arithmetic of a format with block scales, one definition for device and host: float32 with IEEE division. Only
/// finite values count for the largest magnitude; a block without finite non-zero values, or whose scale would underflow,
/// has scale 1.
/// </summary>
internal interface IBlockCode
{
    /// <summary>log2 of the codes in a byte.</summary>
    static abstract int CodesPerByteShift { get; }

    /// <summary>The scale of a block with this largest magnitude.</summary>
    static abstract float Scale(float largest);

    /// <summary>The code of x, in the lowest bits.</summary>
    static abstract byte Encode(float x, float scale);
}

/// <summary>E4M3: scale = amax / 448, code = RNE(x / scale). Infinities saturate to ±448, NaN stays NaN.</summary>
internal readonly struct Fp8Code : IBlockCode
{
    public static int CodesPerByteShift => 0;

    public static float Scale(float largest)
    {
        float scale = Fast.Div(largest, 448f);
        return scale > 0f ? scale : 1f;
    }

    public static byte Encode(float x, float scale) => (byte)(Cvt.E4M3x2(0f, Fast.Div(x, scale)) & 0xFF);

    /// <summary>
    /// What the code of x leaves over: x − code · scale, the product rounded to float32 before the difference. NaN stays NaN; an
    /// infinity leaves itself.
    /// </summary>
    public static float Residual(float x, float scale)
    {
        // A fused multiply-add of −0 is the rounded product, and nothing that a compiler may fuse with the difference.
        float product = Fast.Fma(Nvfp4.GroupScale(Encode(x, scale)), scale, -0f);
        return x - product;
    }
}

/// <summary>
/// INT4: scale = amax / 7 rounded to BF16, code = RNE(x / scale) clamped to −8..7. Infinities saturate, NaN becomes 0.
/// </summary>
internal readonly struct Int4Code : IBlockCode
{
    public static int CodesPerByteShift => 1;

    public static float Scale(float largest)
    {
        float scale = Bf16.ToFloat(Bf16.FromFloat(Fast.Div(largest, 7f)));
        return scale > 0f ? scale : 1f;
    }

    public static byte Encode(float x, float scale)
    {
        int code = Cvt.RoundToInt(Fast.Div(x, scale));
        return (byte)(IntrinsicMath.Clamp(code, -8, 7) & 15);
    }
}

/// <summary>
/// INT4 with a zero point, one definition for device and host: the range [min, max] of a block's finite values, 0 included,
/// scale = (max − min) / 15 rounded to BF16, zero = RNE(−min / scale) clamped to 0..15, code = RNE(x / scale) + zero clamped to
/// 0..15. A block whose scale would be 0 has scale 1 and zero point 0. Infinities saturate, NaN becomes the zero point.
/// </summary>
internal static class Int4ZeroCode
{
    private const float Largest = 3.4028235e38f;

    /// <summary>How far a finite x lies above 0.</summary>
    public static float Above(float x) => x > 0f ? Float32.FiniteMagnitude(x) : 0f;

    /// <summary>The scale of a block that reaches this far above and below 0; a range beyond float32 counts as its largest number.</summary>
    public static float Scale(float above, float below)
    {
        float scale = Bf16.ToFloat(Bf16.FromFloat(Fast.Div(IntrinsicMath.Min(above + below, Largest), 15f)));
        return scale > 0f ? scale : 1f;
    }

    public static int Zero(float below, float scale) => IntrinsicMath.Clamp(Cvt.RoundToInt(Fast.Div(below, scale)), 0, 15);

    public static uint Encode(float x, float scale, int zero)
    {
        // Clamped before the sum, too: an infinity rounds to the largest integer.
        int code = IntrinsicMath.Clamp(Cvt.RoundToInt(Fast.Div(x, scale)), -16, 16) + zero;
        return (uint)IntrinsicMath.Clamp(code, 0, 15);
    }
}

/// <summary>
/// NVFP4, one definition for device and host: matrix scale = amax / (6·448), group scale = RNE_E4M3(group amax / (6·matrix
/// scale)), code = x / (matrix scale · group scale) to nearest, ties to an even mantissa, saturating at ±6. A matrix without
/// finite non-zero values has scale 1; a group whose scale is 0 has codes 0, whatever it holds; NaN becomes 0.
/// </summary>
internal static class Nvfp4Code
{
    public static float MatrixScale(float largest)
    {
        float scale = Fast.Div(largest, 6f * 448f);
        return scale > 0f ? scale : 1f;
    }

    public static byte GroupScale(float largest, float matrixScale) =>
        (byte)(Cvt.E4M3x2(0f, Fast.Div(largest, 6f * matrixScale)) & 0xFF);

    /// <param name="x">A value.</param>
    /// <param name="scale">Matrix scale times group scale in float32; 0 gives code 0.</param>
    public static uint Encode(float x, float scale) => scale > 0f ? E2M1(Fast.Div(x, scale)) : 0;

    /// <summary>The nearest E2M1 code: how many midpoints lie below; a midpoint itself goes to the even code. NaN gives 0.</summary>
    public static uint E2M1(float x)
    {
        // Magnitudes as integers: float32 without its sign orders as its bits do, and NaN is above infinity.
        uint bits = Interop.FloatAsInt(x);
        uint magnitude = bits & 0x7FFFFFFFu;
        if (magnitude > 0x7F800000u)
            return 0;
        uint code = 0;
        code += magnitude > 0x3E800000u ? 1u : 0u; // ¼, between 0 and ½
        code += magnitude >= 0x3F400000u ? 1u : 0u; // ¾, between ½ and 1
        code += magnitude > 0x3FA00000u ? 1u : 0u; // 1¼
        code += magnitude >= 0x3FE00000u ? 1u : 0u; // 1¾
        code += magnitude > 0x40200000u ? 1u : 0u; // 2½
        code += magnitude >= 0x40600000u ? 1u : 0u; // 3½
        code += magnitude > 0x40A00000u ? 1u : 0u; // 5
        return ((bits >> 28) & 8u) | code;
    }
}

/// <summary>What quantisers ask of a float32.</summary>
internal static class Float32
{
    /// <summary>|x| if finite, else 0.</summary>
    public static float FiniteMagnitude(float x)
    {
        uint bits = Interop.FloatAsInt(x) & 0x7FFFFFFFu;
        return bits < 0x7F800000u ? Interop.IntAsFloat(bits) : 0f;
    }
}
