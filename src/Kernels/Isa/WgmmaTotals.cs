using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>
/// The totals of <see cref="Wgmma"/> to global memory and back, 32 a thread at a time: four lie beside each other and the next four 2,048 bytes further, behind those of the
/// other 127 threads.
/// </summary>
internal static unsafe class WgmmaTotals
{
    private const string Arch = "90a";
    private const string Begin = "{ .reg .b64 at; cvta.to.global.u64 at, %0; [[8: ";

    /// <summary>Stores the totals of columns 0 to 63.</summary>
    /// <param name="to">Where this thread's first four go; a multiple of 16.</param>
    [IntrinsicImplementation, Ptx(Begin + "st.global.v4.f32 [at+(2048#)], {total(4#+0), total(4#+1), total(4#+2), total(4#+3)}; ]]}", ExactArch = Arch)]
    public static void Store0(long to) => EmulateStore(0, to);

    /// <summary>Stores the totals of columns 64 to 127.</summary>
    [IntrinsicImplementation, Ptx(Begin + "st.global.v4.f32 [at+(2048#)], {total(4#+32), total(4#+33), total(4#+34), total(4#+35)}; ]]}", ExactArch = Arch)]
    public static void Store1(long to) => EmulateStore(32, to);

    /// <summary>Stores the totals of columns 128 to 191.</summary>
    [IntrinsicImplementation, Ptx(Begin + "st.global.v4.f32 [at+(2048#)], {total(4#+64), total(4#+65), total(4#+66), total(4#+67)}; ]]}", ExactArch = Arch)]
    public static void Store2(long to) => EmulateStore(64, to);

    /// <summary>Loads the totals of columns 0 to 63, past L1.</summary>
    /// <param name="from">Where this thread's first four lie; a multiple of 16.</param>
    [IntrinsicImplementation, Ptx(Begin + "ld.global.cg.v4.f32 {total(4#+0), total(4#+1), total(4#+2), total(4#+3)}, [at+(2048#)]; ]]}", ExactArch = Arch)]
    public static void Load0(long from) => EmulateLoad(0, from);

    /// <summary>Loads the totals of columns 64 to 127, past L1.</summary>
    [IntrinsicImplementation, Ptx(Begin + "ld.global.cg.v4.f32 {total(4#+32), total(4#+33), total(4#+34), total(4#+35)}, [at+(2048#)]; ]]}", ExactArch = Arch)]
    public static void Load1(long from) => EmulateLoad(32, from);

    /// <summary>Loads the totals of columns 128 to 191, past L1.</summary>
    [IntrinsicImplementation, Ptx(Begin + "ld.global.cg.v4.f32 {total(4#+64), total(4#+65), total(4#+66), total(4#+67)}, [at+(2048#)]; ]]}", ExactArch = Arch)]
    public static void Load2(long from) => EmulateLoad(64, from);

    private static void EmulateStore(int first, long to)
    {
        for (int i = 0; i < 32; i++)
            *(float*)(to + (2048 * (i >> 2)) + (4 * (i & 3))) = Wgmma.Total(first + i);
    }

    private static void EmulateLoad(int first, long from)
    {
        for (int i = 0; i < 32; i++)
            Wgmma.SetTotal(first + i, *(float*)(from + (2048 * (i >> 2)) + (4 * (i & 3))));
    }
}
