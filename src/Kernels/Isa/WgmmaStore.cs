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
    public static void Bf16Slab1(uint to) => EmulateBf16(32, to);

    [IntrinsicImplementation, Ptx(Bf16Begin + "[[4: xor.b32 to, %0, (32#); cvt.rn.bf16x2.f32 p, total(8#+65), total(8#+64); cvt.rn.bf16x2.f32 q, total(8#+67), total(8#+66); cvt.rn.bf16x2.f32 r, total(8#+69), total(8#+68); cvt.rn.bf16x2.f32 s, total(8#+71), total(8#+70); " + Bf16End, ExactArch = Arch)]
    public static void Bf16Slab2(uint to) => EmulateBf16(64, to);

    [IntrinsicImplementation, Ptx(Bf16Begin + "[[4: xor.b32 to, %0, (32#); cvt.rn.bf16x2.f32 p, total(8#+97), total(8#+96); cvt.rn.bf16x2.f32 q, total(8#+99), total(8#+98); cvt.rn.bf16x2.f32 r, total(8#+101), total(8#+100); cvt.rn.bf16x2.f32 s, total(8#+103), total(8#+102); " + Bf16End, ExactArch = Arch)]
    public static void Bf16Slab3(uint to) => EmulateBf16(96, to);

    [IntrinsicImplementation, Ptx(Float32Begin + "[[4: xor.b32 to, %0, (32#); st.shared.v2.f32 [to], {total(4#+0), total(4#+1)}; st.shared.v2.f32 [to+1024], {total(4#+2), total(4#+3)};" + Float32End, ExactArch = Arch)]
    public static void Float32Slab0(uint to) => EmulateFloat32(0, to);

    [IntrinsicImplementation, Ptx(Float32Begin + "[[4: xor.b32 to, %0, (32#); st.shared.v2.f32 [to], {total(4#+16), total(4#+17)}; st.shared.v2.f32 [to+1024], {total(4#+18), total(4#+19)};" + Float32End, ExactArch = Arch)]
    public static void Float32Slab1(uint to) => EmulateFloat32(16, to);

    [IntrinsicImplementation, Ptx(Float32Begin + "[[4: xor.b32 to, %0, (32#); st.shared.v2.f32 [to], {total(4#+32), total(4#+33)}; st.shared.v2.f32 [to+1024], {total(4#+34), total(4#+35)};" + Float32End, ExactArch = Arch)]
    public static void Float32Slab2(uint to) => EmulateFloat32(32, to);

    [IntrinsicImplementation, Ptx(Float32Begin + "[[4: xor.b32 to, %0, (32#); st.shared.v2.f32 [to], {total(4#+48), total(4#+49)}; st.shared.v2.f32 [to+1024], {total(4#+50), total(4#+51)};" + Float32End, ExactArch = Arch)]
    public static void Float32Slab3(uint to) => EmulateFloat32(48, to);

    [IntrinsicImplementation, Ptx(Float32Begin + "[[4: xor.b32 to, %0, (32#); st.shared.v2.f32 [to], {total(4#+64), total(4#+65)}; st.shared.v2.f32 [to+1024], {total(4#+66), total(4#+67)};" + Float32End, ExactArch = Arch)]
    public static void Float32Slab4(uint to) => EmulateFloat32(64, to);

    [IntrinsicImplementation, Ptx(Float32Begin + "[[4: xor.b32 to, %0, (32#); st.shared.v2.f32 [to], {total(4#+80), total(4#+81)}; st.shared.v2.f32 [to+1024], {total(4#+82), total(4#+83)};" + Float32End, ExactArch = Arch)]
    public static void Float32Slab5(uint to) => EmulateFloat32(80, to);

    [IntrinsicImplementation, Ptx(Float32Begin + "[[4: xor.b32 to, %0, (32#); st.shared.v2.f32 [to], {total(4#+96), total(4#+97)}; st.shared.v2.f32 [to+1024], {total(4#+98), total(4#+99)};" + Float32End, ExactArch = Arch)]
    public static void Float32Slab6(uint to) => EmulateFloat32(96, to);

    [IntrinsicImplementation, Ptx(Float32Begin + "[[4: xor.b32 to, %0, (32#); st.shared.v2.f32 [to], {total(4#+112), total(4#+113)}; st.shared.v2.f32 [to+1024], {total(4#+114), total(4#+115)};" + Float32End, ExactArch = Arch)]
    public static void Float32Slab7(uint to) => EmulateFloat32(112, to);

    /// <summary>Columns 16 to 79 as BF16.</summary>
    [IntrinsicImplementation, Ptx(Bf16Begin + "[[4: xor.b32 to, %0, (32#); cvt.rn.bf16x2.f32 p, total(8#+9), total(8#+8); cvt.rn.bf16x2.f32 q, total(8#+11), total(8#+10); cvt.rn.bf16x2.f32 r, total(8#+13), total(8#+12); cvt.rn.bf16x2.f32 s, total(8#+15), total(8#+14); " + Bf16End, ExactArch = Arch)]
    public static void Bf16From16(uint to) => EmulateBf16(8, to);

    /// <summary>Columns 96 to 159 as BF16.</summary>
    [IntrinsicImplementation, Ptx(Bf16Begin + "[[4: xor.b32 to, %0, (32#); cvt.rn.bf16x2.f32 p, total(8#+49), total(8#+48); cvt.rn.bf16x2.f32 q, total(8#+51), total(8#+50); cvt.rn.bf16x2.f32 r, total(8#+53), total(8#+52); cvt.rn.bf16x2.f32 s, total(8#+55), total(8#+54); " + Bf16End, ExactArch = Arch)]
    public static void Bf16From96(uint to) => EmulateBf16(48, to);

    /// <summary>Columns 48 to 79 as float32.</summary>
    [IntrinsicImplementation, Ptx(Float32Begin + "[[4: xor.b32 to, %0, (32#); st.shared.v2.f32 [to], {total(4#+24), total(4#+25)}; st.shared.v2.f32 [to+1024], {total(4#+26), total(4#+27)};" + Float32End, ExactArch = Arch)]
    public static void Float32From48(uint to) => EmulateFloat32(24, to);

    // The totals' columns as rows: 16 columns × 16 rows a store. Register number: 32 a slab, 8 a store.
    private const string TransposedBf16Begin = "{ .reg .b32 p, q, r, s; ";
    private const string TransposedBf16End = "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0+(2048#)], {p, q, r, s}; ]]}";

    private const string TransposedFloat32Begin = "{ .reg .b32 low; xor.b32 low, %0, 32; ";

    /// <summary>Columns 0 to 63 as rows of 64 BF16 a warpgroup: 128 bytes with swizzle.</summary>
    [IntrinsicImplementation, Ptx(TransposedBf16Begin + "[[4: cvt.rn.bf16x2.f32 p, total(8#+1), total(8#); cvt.rn.bf16x2.f32 q, total(8#+3), total(8#+2); cvt.rn.bf16x2.f32 r, total(8#+5), total(8#+4); cvt.rn.bf16x2.f32 s, total(8#+7), total(8#+6); " + TransposedBf16End, ExactArch = Arch)]
    public static void TransposedBf16Slab0(uint to) => EmulateTransposedBf16(0, to);

    /// <summary>Columns 64 to 127.</summary>
    [IntrinsicImplementation, Ptx(TransposedBf16Begin + "[[4: cvt.rn.bf16x2.f32 p, total(8#+33), total(8#+32); cvt.rn.bf16x2.f32 q, total(8#+35), total(8#+34); cvt.rn.bf16x2.f32 r, total(8#+37), total(8#+36); cvt.rn.bf16x2.f32 s, total(8#+39), total(8#+38); " + TransposedBf16End, ExactArch = Arch)]
    public static void TransposedBf16Slab1(uint to) => EmulateTransposedBf16(1, to);

    /// <summary>Columns 128 to 191.</summary>
    [IntrinsicImplementation, Ptx(TransposedBf16Begin + "[[4: cvt.rn.bf16x2.f32 p, total(8#+65), total(8#+64); cvt.rn.bf16x2.f32 q, total(8#+67), total(8#+66); cvt.rn.bf16x2.f32 r, total(8#+69), total(8#+68); cvt.rn.bf16x2.f32 s, total(8#+71), total(8#+70); " + TransposedBf16End, ExactArch = Arch)]
    public static void TransposedBf16Slab2(uint to) => EmulateTransposedBf16(2, to);

    /// <summary>Columns 0 to 31 as rows of 64 float32 a warpgroup: 256 bytes with swizzle.</summary>
    [IntrinsicImplementation, Ptx(TransposedFloat32Begin + "[[4: st.shared.f32 [%0+(2048#)], total(4#+0); st.shared.f32 [%0+(2048#+256)], total(4#+1); st.shared.f32 [low+(2048#)], total(4#+2); st.shared.f32 [low+(2048#+256)], total(4#+3); ]]}", ExactArch = Arch)]
    public static void TransposedFloat32Slab0(uint to) => EmulateTransposedFloat32(0, to);

    /// <summary>Columns 32 to 63 as rows of 64 float32 a warpgroup: 256 bytes with swizzle.</summary>
    [IntrinsicImplementation, Ptx(TransposedFloat32Begin + "[[4: st.shared.f32 [%0+(2048#)], total(4#+16); st.shared.f32 [%0+(2048#+256)], total(4#+17); st.shared.f32 [low+(2048#)], total(4#+18); st.shared.f32 [low+(2048#+256)], total(4#+19); ]]}", ExactArch = Arch)]
    public static void TransposedFloat32Slab1(uint to) => EmulateTransposedFloat32(1, to);

    /// <summary>Columns 64 to 95 as rows of 64 float32 a warpgroup: 256 bytes with swizzle.</summary>
    [IntrinsicImplementation, Ptx(TransposedFloat32Begin + "[[4: st.shared.f32 [%0+(2048#)], total(4#+32); st.shared.f32 [%0+(2048#+256)], total(4#+33); st.shared.f32 [low+(2048#)], total(4#+34); st.shared.f32 [low+(2048#+256)], total(4#+35); ]]}", ExactArch = Arch)]
    public static void TransposedFloat32Slab2(uint to) => EmulateTransposedFloat32(2, to);

    /// <summary>Columns 96 to 127 as rows of 64 float32 a warpgroup: 256 bytes with swizzle.</summary>
    [IntrinsicImplementation, Ptx(TransposedFloat32Begin + "[[4: st.shared.f32 [%0+(2048#)], total(4#+48); st.shared.f32 [%0+(2048#+256)], total(4#+49); st.shared.f32 [low+(2048#)], total(4#+50); st.shared.f32 [low+(2048#+256)], total(4#+51); ]]}", ExactArch = Arch)]
    public static void TransposedFloat32Slab3(uint to) => EmulateTransposedFloat32(3, to);

    /// <summary>Columns 128 to 159 as rows of 64 float32 a warpgroup: 256 bytes with swizzle.</summary>
    [IntrinsicImplementation, Ptx(TransposedFloat32Begin + "[[4: st.shared.f32 [%0+(2048#)], total(4#+64); st.shared.f32 [%0+(2048#+256)], total(4#+65); st.shared.f32 [low+(2048#)], total(4#+66); st.shared.f32 [low+(2048#+256)], total(4#+67); ]]}", ExactArch = Arch)]
    public static void TransposedFloat32Slab4(uint to) => EmulateTransposedFloat32(4, to);

    /// <summary>Columns 160 to 191 as rows of 64 float32 a warpgroup: 256 bytes with swizzle.</summary>
    [IntrinsicImplementation, Ptx(TransposedFloat32Begin + "[[4: st.shared.f32 [%0+(2048#)], total(4#+80); st.shared.f32 [%0+(2048#+256)], total(4#+81); st.shared.f32 [low+(2048#)], total(4#+82); st.shared.f32 [low+(2048#+256)], total(4#+83); ]]}", ExactArch = Arch)]
    public static void TransposedFloat32Slab5(uint to) => EmulateTransposedFloat32(5, to);

    private static void EmulateTransposedBf16(int slab, uint to)
    {
        for (int i = 0; i < 4; i++)
        {
            // Every lane names a row; lane (g, t) holds row g and columns 2t and 2t + 1 of each of the four 8 × 8 matrices, which go to the rows 2t and 2t + 1.
            uint* rows = WarpEmulation.Gather("stmatrix.sync", to + (uint)(2048 * i));
            int lane = Warp.LaneIdx;
            for (int matrix = 0; matrix < 4; matrix++)
            {
                for (int j = 0; j < 2; j++)
                {
                    uint row = rows[(8 * matrix) + (2 * (lane & 3)) + j];
                    *(ushort*)SharedWindow.Pointer(row + (uint)(2 * (lane >> 2))) = Bf16.FromFloat(Wgmma.Total((32 * slab) + (8 * i) + (2 * matrix) + j));
                }
            }
        }
    }

    private static void EmulateTransposedFloat32(int slab, uint to)
    {
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++)
                *(float*)SharedWindow.Pointer((to ^ (uint)(32 * (j >> 1))) + (uint)((2048 * i) + (256 * (j & 1)))) = Wgmma.Total((16 * slab) + (4 * i) + j);
    }

    private static void EmulateBf16(int first, uint to)
    {
        for (int i = 0; i < 4; i++)
        {
            // Every lane names a row of eight columns; lane (g, t) holds columns 2t and 2t + 1 of row g of each of the four 8 × 8 matrices.
            uint* rows = WarpEmulation.Gather("stmatrix.sync", to ^ (uint)(32 * i));
            for (int matrix = 0; matrix < 4; matrix++)
            {
                int lane = Warp.LaneIdx, register = first + (8 * i) + (2 * matrix);
                uint pair = Bf16.Pack(Wgmma.Total(register), Wgmma.Total(register + 1));
                *(uint*)SharedWindow.Pointer(rows[(8 * matrix) + (lane >> 2)] + (uint)(4 * (lane & 3))) = pair;
            }
        }
    }

    private static void EmulateFloat32(int first, uint to)
    {
        for (int i = 0; i < 4; i++)
        {
            uint row = to ^ (uint)(32 * i);
            for (int j = 0; j < 4; j++)
                *(float*)SharedWindow.Pointer(row + (uint)((1024 * (j >> 1)) + (4 * (j & 1)))) = Wgmma.Total(first + (4 * i) + j);
        }
    }
}
