using ILGPU;
using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>
/// The totals of <see cref="Wgmma"/> to shared memory as tiles of 64 rows × 128 bytes with 128-byte swizzle, ready for <see cref="Tma.Store"/>: slab s
/// has columns 64·s to 64·s + 63 as BF16, or 32·s to 32·s + 31 as float32.
/// </summary>
/// <remarks>
/// A lane's address of a slab follows from its first by an exclusive or: eight rows with the same number modulo 8 exchange their words
/// alike, and columns 16 further (BF16; float32: 8) are two words further.
/// </remarks>
internal static unsafe class WgmmaStore
{
    private const string Arch = "90a";

    // Pairs of BF16 of two fragments: 16 rows × 16 columns a store, four stores a slab. Register number: 32 a slab and 8 a store.
    private const string Bf16Begin = "{ .reg .b32 p, q, r, s, to; ";
    private const string Bf16End = "stmatrix.sync.aligned.m8n8.x4.shared.b16 [to], {p, q, r, s}; ]]}";

    // Two float32 of the upper row, two of the lower, 8 rows of 128 bytes further.
    private const string Float32Begin = "{ .reg .b32 to; ";
    private const string Float32End = " ]]}";

    [IntrinsicImplementation, Ptx(Bf16Begin + "[[4: xor.b32 to, %0, (32#); cvt.rn.bf16x2.f32 p, total(8#+1), total(8#); cvt.rn.bf16x2.f32 q, total(8#+3), total(8#+2); cvt.rn.bf16x2.f32 r, total(8#+5), total(8#+4); cvt.rn.bf16x2.f32 s, total(8#+7), total(8#+6); " + Bf16End, ExactArch = Arch)]
    public static void Bf16Slab0(uint to) => EmulateBf16(0, to);

    [IntrinsicImplementation, Ptx(Bf16Begin + "[[4: xor.b32 to, %0, (32#); cvt.rn.bf16x2.f32 p, total(8#+33), total(8#+32); cvt.rn.bf16x2.f32 q, total(8#+35), total(8#+34); cvt.rn.bf16x2.f32 r, total(8#+37), total(8#+36); cvt.rn.bf16x2.f32 s, total(8#+39), total(8#+38); " + Bf16End, ExactArch = Arch)]
    public static void Bf16Slab1(uint to) => EmulateBf16(1, to);

    [IntrinsicImplementation, Ptx(Bf16Begin + "[[4: xor.b32 to, %0, (32#); cvt.rn.bf16x2.f32 p, total(8#+65), total(8#+64); cvt.rn.bf16x2.f32 q, total(8#+67), total(8#+66); cvt.rn.bf16x2.f32 r, total(8#+69), total(8#+68); cvt.rn.bf16x2.f32 s, total(8#+71), total(8#+70); " + Bf16End, ExactArch = Arch)]
    public static void Bf16Slab2(uint to) => EmulateBf16(2, to);

    [IntrinsicImplementation, Ptx(Bf16Begin + "[[4: xor.b32 to, %0, (32#); cvt.rn.bf16x2.f32 p, total(8#+97), total(8#+96); cvt.rn.bf16x2.f32 q, total(8#+99), total(8#+98); cvt.rn.bf16x2.f32 r, total(8#+101), total(8#+100); cvt.rn.bf16x2.f32 s, total(8#+103), total(8#+102); " + Bf16End, ExactArch = Arch)]
    public static void Bf16Slab3(uint to) => EmulateBf16(3, to);

    [IntrinsicImplementation, Ptx(Float32Begin + "[[4: xor.b32 to, %0, (32#); st.shared.v2.f32 [to], {total(4#+0), total(4#+1)}; st.shared.v2.f32 [to+1024], {total(4#+2), total(4#+3)};" + Float32End, ExactArch = Arch)]
    public static void Float32Slab0(uint to) => EmulateFloat32(0, to);

    [IntrinsicImplementation, Ptx(Float32Begin + "[[4: xor.b32 to, %0, (32#); st.shared.v2.f32 [to], {total(4#+16), total(4#+17)}; st.shared.v2.f32 [to+1024], {total(4#+18), total(4#+19)};" + Float32End, ExactArch = Arch)]
    public static void Float32Slab1(uint to) => EmulateFloat32(1, to);

    [IntrinsicImplementation, Ptx(Float32Begin + "[[4: xor.b32 to, %0, (32#); st.shared.v2.f32 [to], {total(4#+32), total(4#+33)}; st.shared.v2.f32 [to+1024], {total(4#+34), total(4#+35)};" + Float32End, ExactArch = Arch)]
    public static void Float32Slab2(uint to) => EmulateFloat32(2, to);

    [IntrinsicImplementation, Ptx(Float32Begin + "[[4: xor.b32 to, %0, (32#); st.shared.v2.f32 [to], {total(4#+48), total(4#+49)}; st.shared.v2.f32 [to+1024], {total(4#+50), total(4#+51)};" + Float32End, ExactArch = Arch)]
    public static void Float32Slab3(uint to) => EmulateFloat32(3, to);

    [IntrinsicImplementation, Ptx(Float32Begin + "[[4: xor.b32 to, %0, (32#); st.shared.v2.f32 [to], {total(4#+64), total(4#+65)}; st.shared.v2.f32 [to+1024], {total(4#+66), total(4#+67)};" + Float32End, ExactArch = Arch)]
    public static void Float32Slab4(uint to) => EmulateFloat32(4, to);

    [IntrinsicImplementation, Ptx(Float32Begin + "[[4: xor.b32 to, %0, (32#); st.shared.v2.f32 [to], {total(4#+80), total(4#+81)}; st.shared.v2.f32 [to+1024], {total(4#+82), total(4#+83)};" + Float32End, ExactArch = Arch)]
    public static void Float32Slab5(uint to) => EmulateFloat32(5, to);

    [IntrinsicImplementation, Ptx(Float32Begin + "[[4: xor.b32 to, %0, (32#); st.shared.v2.f32 [to], {total(4#+96), total(4#+97)}; st.shared.v2.f32 [to+1024], {total(4#+98), total(4#+99)};" + Float32End, ExactArch = Arch)]
    public static void Float32Slab6(uint to) => EmulateFloat32(6, to);

    [IntrinsicImplementation, Ptx(Float32Begin + "[[4: xor.b32 to, %0, (32#); st.shared.v2.f32 [to], {total(4#+112), total(4#+113)}; st.shared.v2.f32 [to+1024], {total(4#+114), total(4#+115)};" + Float32End, ExactArch = Arch)]
    public static void Float32Slab7(uint to) => EmulateFloat32(7, to);

    private static void EmulateBf16(int slab, uint to)
    {
        for (int i = 0; i < 4; i++)
        {
            // Every lane names a row of eight columns; lane (g, t) holds columns 2t and 2t + 1 of row g of each of the four 8 × 8 matrices.
            uint* rows = WarpEmulation.Gather("stmatrix.sync", to ^ (uint)(32 * i));
            for (int matrix = 0; matrix < 4; matrix++)
            {
                int lane = Warp.LaneIdx, register = (32 * slab) + (8 * i) + (2 * matrix);
                uint pair = Bf16.Pack(Wgmma.Total(register), Wgmma.Total(register + 1));
                *(uint*)SharedWindow.Pointer(rows[(8 * matrix) + (lane >> 2)] + (uint)(4 * (lane & 3))) = pair;
            }
        }
    }

    private static void EmulateFloat32(int slab, uint to)
    {
        for (int i = 0; i < 4; i++)
        {
            uint row = to ^ (uint)(32 * i);
            for (int j = 0; j < 4; j++)
                *(float*)SharedWindow.Pointer(row + (uint)((1024 * (j >> 1)) + (4 * (j & 1)))) = Wgmma.Total((16 * slab) + (4 * i) + j);
        }
    }
}
