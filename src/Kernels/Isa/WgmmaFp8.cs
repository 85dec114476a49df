using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>
/// Products of E4M3 codes by a warpgroup on the tensor cores of sm_90a, into the <c>part</c> registers of <see cref="Wgmma"/>, and their addition to the totals where a scale block of W
/// begins within the tile.
/// </summary>
internal static class WgmmaFp8
{
    private const string Arch = "90a";
    private const string End = "1, 1; ";

    private const string N128 = "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {[[64, part(#)]]}, a, b, ";
    private const string N160 = "wgmma.mma_async.sync.aligned.m64n160k32.f32.e4m3.e4m3 {[[80, part(#)]]}, a, b, ";
    private const string N192 = "wgmma.mma_async.sync.aligned.m64n192k32.f32.e4m3.e4m3 {[[96, part(#)]]}, a, b, ";

    /// <summary>part[64, 128] (+)= A[64, 64] · B[128, 64]ᵀ.</summary>
    [IntrinsicImplementation, Ptx(Wgmma.Begin + N128 + "adds, " + End + Wgmma.Step + N128 + "always, " + End + "}", ExactArch = Arch)]
    public static void MultiplyN128(ulong a, ulong b, uint adds) => Wgmma.MultiplyParts<Wgmma.Fp8Operand>(0, 128, (a, b, 64), adds);

    /// <summary>part[64, 160] (+)= A[64, 64] · B[160, 64]ᵀ.</summary>
    [IntrinsicImplementation, Ptx(Wgmma.Begin + N160 + "adds, " + End + Wgmma.Step + N160 + "always, " + End + "}", ExactArch = Arch)]
    public static void MultiplyN160(ulong a, ulong b, uint adds) => Wgmma.MultiplyParts<Wgmma.Fp8Operand>(0, 160, (a, b, 64), adds);

    /// <summary>part[64, 192] (+)= A[64, 64] · B[192, 64]ᵀ.</summary>
    [IntrinsicImplementation, Ptx(Wgmma.Begin + N192 + "adds, " + End + Wgmma.Step + N192 + "always, " + End + "}", ExactArch = Arch)]
    public static void MultiplyN192(ulong a, ulong b, uint adds) => Wgmma.MultiplyParts<Wgmma.Fp8Operand>(0, 192, (a, b, 64), adds);

    /// <summary>
    /// total += part · (the multiplier of the lane's upper or lower row), for columns 0 to 127: before column 16 · <paramref name="edge"/> the first pair of multipliers, from
    /// there on the next.
    /// </summary>
    [IntrinsicImplementation, Ptx("{ .reg .pred before; .reg .f32 u, l; [[8: setp.gt.s32 before, %4, (#); selp.f32 u, %0, %2, before; selp.f32 l, %1, %3, before; fma.rn.f32 total(8#+0), part(8#+0), u, total(8#+0); fma.rn.f32 total(8#+1), part(8#+1), u, total(8#+1); fma.rn.f32 total(8#+2), part(8#+2), l, total(8#+2); fma.rn.f32 total(8#+3), part(8#+3), l, total(8#+3); fma.rn.f32 total(8#+4), part(8#+4), u, total(8#+4); fma.rn.f32 total(8#+5), part(8#+5), u, total(8#+5); fma.rn.f32 total(8#+6), part(8#+6), l, total(8#+6); fma.rn.f32 total(8#+7), part(8#+7), l, total(8#+7); ]]}", ExactArch = Arch)]
    public static void PromoteFirst128(float upper, float lower, float upperNext, float lowerNext, int edge)
    {
        for (int i = 0; i < 8; i++)
            Wgmma.Promote(8 * i, 8, edge > i ? upper : upperNext, edge > i ? lower : lowerNext);
    }

    /// <summary>total += part · (the multiplier of the lane's upper or lower row), for columns 128 to 159.</summary>
    [IntrinsicImplementation, Ptx("[[4: fma.rn.f32 total(4#+64), part(4#+64), %0, total(4#+64); fma.rn.f32 total(4#+65), part(4#+65), %0, total(4#+65); fma.rn.f32 total(4#+66), part(4#+66), %1, total(4#+66); fma.rn.f32 total(4#+67), part(4#+67), %1, total(4#+67); ]]", ExactArch = Arch)]
    public static void PromoteLast32(float upper, float lower) => Wgmma.Promote(64, 16, upper, lower);
}
