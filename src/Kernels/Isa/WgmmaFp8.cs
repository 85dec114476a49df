using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>
/// Products of E4M3 codes by a warpgroup on the tensor cores of sm_90a, into the <c>part</c> registers of <see cref="Wgmma"/>, and their addition to the totals where scale blocks of W
/// begin at any multiple of 16 columns of the tile.
/// </summary>
internal static class WgmmaFp8
{
    private const string Arch = "90a";
    private const string End = "1, 1; ";

    private const string N128Text = "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {[[64, part(#)]]}, a, b, ";
    private const string N160Text = "wgmma.mma_async.sync.aligned.m64n160k32.f32.e4m3.e4m3 {[[80, part(#)]]}, a, b, ";
    private const string N176Text = "wgmma.mma_async.sync.aligned.m64n176k32.f32.e4m3.e4m3 {[[88, part(#)]]}, a, b, ";
    private const string N192Text = "wgmma.mma_async.sync.aligned.m64n192k32.f32.e4m3.e4m3 {[[96, part(#)]]}, a, b, ";

    /// <summary>part[64, 128] (+)= A[64, 64] · B[128, 64]ᵀ.</summary>
    [IntrinsicImplementation, Ptx(Wgmma.Begin + N128Text + "adds, " + End + Wgmma.Step + N128Text + "always, " + End + "}", ExactArch = Arch)]
    public static void N128(ulong a, ulong b, uint adds) => Wgmma.MultiplyParts<Wgmma.Fp8Operand>(0, 128, (a, b, 64), adds);

    /// <summary>part[64, 160] (+)= A[64, 64] · B[160, 64]ᵀ.</summary>
    [IntrinsicImplementation, Ptx(Wgmma.Begin + N160Text + "adds, " + End + Wgmma.Step + N160Text + "always, " + End + "}", ExactArch = Arch)]
    public static void N160(ulong a, ulong b, uint adds) => Wgmma.MultiplyParts<Wgmma.Fp8Operand>(0, 160, (a, b, 64), adds);

    /// <summary>part[64, 176] (+)= A[64, 64] · B[176, 64]ᵀ.</summary>
    [IntrinsicImplementation, Ptx(Wgmma.Begin + N176Text + "adds, " + End + Wgmma.Step + N176Text + "always, " + End + "}", ExactArch = Arch)]
    public static void N176(ulong a, ulong b, uint adds) => Wgmma.MultiplyParts<Wgmma.Fp8Operand>(0, 176, (a, b, 64), adds);

    /// <summary>part[64, 192] (+)= A[64, 64] · B[192, 64]ᵀ.</summary>
    [IntrinsicImplementation, Ptx(Wgmma.Begin + N192Text + "adds, " + End + Wgmma.Step + N192Text + "always, " + End + "}", ExactArch = Arch)]
    public static void N192(ulong a, ulong b, uint adds) => Wgmma.MultiplyParts<Wgmma.Fp8Operand>(0, 192, (a, b, 64), adds);

    /// <summary>Columns 0 to 127.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .pred before; .reg .f32 u, l; [[8: setp.gt.s32 before, %4, (#); selp.f32 u, %0, %2, before; selp.f32 l, %1, %3, before; fma.rn.f32 total(8#+0), part(8#+0), u, total(8#+0); fma.rn.f32 total(8#+1), part(8#+1), u, total(8#+1); fma.rn.f32 total(8#+2), part(8#+2), l, total(8#+2); fma.rn.f32 total(8#+3), part(8#+3), l, total(8#+3); fma.rn.f32 total(8#+4), part(8#+4), u, total(8#+4); fma.rn.f32 total(8#+5), part(8#+5), u, total(8#+5); fma.rn.f32 total(8#+6), part(8#+6), l, total(8#+6); fma.rn.f32 total(8#+7), part(8#+7), l, total(8#+7); ]]}", ExactArch = Arch)]
    public static void Promote0To7(float upper, float lower, float upperNext, float lowerNext, int edge) => Promote(0, 8, 0, (upper, lower, upperNext, lowerNext), edge);

    /// <summary>Columns 128 to 159.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .pred before; .reg .f32 u, l; [[2: setp.gt.s32 before, %4, (#); selp.f32 u, %0, %2, before; selp.f32 l, %1, %3, before; fma.rn.f32 total(8#+64), part(8#+64), u, total(8#+64); fma.rn.f32 total(8#+65), part(8#+65), u, total(8#+65); fma.rn.f32 total(8#+66), part(8#+66), l, total(8#+66); fma.rn.f32 total(8#+67), part(8#+67), l, total(8#+67); fma.rn.f32 total(8#+68), part(8#+68), u, total(8#+68); fma.rn.f32 total(8#+69), part(8#+69), u, total(8#+69); fma.rn.f32 total(8#+70), part(8#+70), l, total(8#+70); fma.rn.f32 total(8#+71), part(8#+71), l, total(8#+71); ]]}", ExactArch = Arch)]
    public static void Promote8To9(float upper, float lower, float upperNext, float lowerNext, int edge) => Promote(8, 2, 8, (upper, lower, upperNext, lowerNext), edge);

    /// <summary>Columns 128 to 175.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .pred before; .reg .f32 u, l; [[3: setp.gt.s32 before, %4, (#); selp.f32 u, %0, %2, before; selp.f32 l, %1, %3, before; fma.rn.f32 total(8#+64), part(8#+64), u, total(8#+64); fma.rn.f32 total(8#+65), part(8#+65), u, total(8#+65); fma.rn.f32 total(8#+66), part(8#+66), l, total(8#+66); fma.rn.f32 total(8#+67), part(8#+67), l, total(8#+67); fma.rn.f32 total(8#+68), part(8#+68), u, total(8#+68); fma.rn.f32 total(8#+69), part(8#+69), u, total(8#+69); fma.rn.f32 total(8#+70), part(8#+70), l, total(8#+70); fma.rn.f32 total(8#+71), part(8#+71), l, total(8#+71); ]]}", ExactArch = Arch)]
    public static void Promote8To10(float upper, float lower, float upperNext, float lowerNext, int edge) => Promote(8, 3, 8, (upper, lower, upperNext, lowerNext), edge);

    private static void Promote(int first, int count, int block, (float Upper, float Lower, float UpperNext, float LowerNext) scales, int edge)
    {
        for (int i = first; i < first + count; i++)
        {
            bool before = edge > i - block;
            Wgmma.Promote(8 * i, 8, before ? scales.Upper : scales.UpperNext, before ? scales.Lower : scales.LowerNext);
        }
    }
}
