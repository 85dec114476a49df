using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

internal static class Clock
{
    [IntrinsicImplementation, Ptx("{ .reg .b64 at, now; mul.wide.s32 at, %2, 8; add.s64 at, at, %0; cvta.to.global.u64 at, at; mov.u64 now, %%clock64; st.global.u64 [at], now; }")]
    public static void Mark(long address, int unused, int place)
    {
    }

    [IntrinsicImplementation, Ptx("{ .reg .b64 at, now; mul.wide.s32 at, %2, 8; add.s64 at, at, %0; cvta.to.global.u64 at, at; mov.u64 now, %%globaltimer; st.global.u64 [at], now; }")]
    public static void Global(long address, int unused, int place)
    {
    }

    [IntrinsicImplementation, Ptx("{ .reg .b64 at, now; .reg .b32 sm; mul.wide.s32 at, %2, 8; add.s64 at, at, %0; cvta.to.global.u64 at, at; mov.u32 sm, %%smid; cvt.u64.u32 now, sm; st.global.u64 [at], now; }")]
    public static void Sm(long address, int unused, int place)
    {
    }
}
