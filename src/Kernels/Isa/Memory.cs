using System.Runtime.CompilerServices;
using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>Loads and stores of 4, 8 and 16 bytes in a named state space. The address must be aligned to the width.</summary>
/// <remarks>Plain C# accesses compile to generic ones, and to vectors only when ILGPU can prove the alignment.</remarks>
internal static class Mem
{
    /// <summary>Loads 16 bytes of global memory.</summary>
    [IntrinsicImplementation, Ptx("ld.global.v4.u32 %d, [%g0];")]
    public static U4 LoadGlobal(ref uint p) => Load<U4>(ref p, "ld.global.v4.u32");

    /// <summary>Loads 16 bytes of global memory, a constant number of bytes on.</summary>
    [IntrinsicImplementation, Ptx("ld.global.v4.u32 %d, [%g0+%c1];")]
    public static U4 LoadGlobalAt(ref uint p, int bytes) => Load<U4>(ref Unsafe.AddByteOffset(ref p, bytes), "ld.global.v4.u32");

    /// <summary>Loads 8 bytes of global memory.</summary>
    [IntrinsicImplementation, Ptx("ld.global.v2.u32 %d, [%g0];")]
    public static U2 LoadGlobal2(ref uint p) => Load<U2>(ref p, "ld.global.v2.u32");

    /// <summary>Loads 4 bytes of global memory.</summary>
    [IntrinsicImplementation, Ptx("ld.global.u32 %d, [%g0];")]
    public static uint LoadGlobal1(ref uint p) => Load<uint>(ref p, "ld.global.u32");

    /// <summary>Asks for 128 bytes of global memory around an address to be brought into L2, before launches that overlap have ended; nothing on architectures without those.</summary>
    [IntrinsicImplementation, Ptx("prefetch.global.L2 [%g0];", MinArch = 90, OmittedElsewhere = true)]
    public static void PrefetchL2(ref uint p)
    {
    }

    /// <summary>Loads 16 bytes of global memory past L1: what another launch on the same multiprocessor wrote or left there is never seen stale.</summary>
    [IntrinsicImplementation, Ptx("ld.global.cg.v4.u32 %d, [%g0];")]
    public static U4 LoadL2(ref uint p) => Load<U4>(ref p, "ld.global.cg.v4.u32");

    /// <summary>Loads 16 bytes of global memory past L1, a constant number of bytes on.</summary>
    [IntrinsicImplementation, Ptx("ld.global.cg.v4.u32 %d, [%g0+%c1];")]
    public static U4 LoadL2At(ref uint p, int bytes) => Load<U4>(ref Unsafe.AddByteOffset(ref p, bytes), "ld.global.cg.v4.u32");

    /// <summary>Loads 8 bytes of global memory past L1.</summary>
    [IntrinsicImplementation, Ptx("ld.global.cg.v2.u32 %d, [%g0];")]
    public static U2 LoadL2Pair(ref uint p) => Load<U2>(ref p, "ld.global.cg.v2.u32");

    /// <summary>Loads 4 bytes of global memory past L1.</summary>
    [IntrinsicImplementation, Ptx("ld.global.cg.u32 %d, [%g0];")]
    public static uint LoadL2Word(ref uint p) => Load<uint>(ref p, "ld.global.cg.u32");

    /// <summary>Loads 16 bytes past L1 where <paramref name="condition"/> is not 0, else gives zeros without a branch.</summary>
    [IntrinsicImplementation]
    [Ptx("{ .reg .pred p; setp.ne.u32 p, %1, 0; mov.b32 %d.0, 0; mov.b32 %d.1, 0; mov.b32 %d.2, 0; mov.b32 %d.3, 0; @p ld.global.cg.v4.u32 %d, [%g0]; }")]
    public static U4 LoadL2If(ref uint p, uint condition) => condition == 0 ? default : Load<U4>(ref p, "ld.global.cg.v4.u32");

    /// <summary>Loads 4 bytes that another block may be writing.</summary>
    [IntrinsicImplementation, Ptx("ld.relaxed.gpu.global.u32 %d, [%g0];")]
    public static uint LoadRelaxed(ref uint p) => Volatile.Read(ref p);

    /// <summary>What the block that wrote 4 bytes, which this thread has read, ordered before them is seen afterwards.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .b32 seen; ld.acquire.gpu.global.u32 seen, [%g0]; }")]
    public static void Acquire(ref uint p) => Volatile.Read(ref p);

    /// <summary>Stores 4 bytes that another block may be waiting for. Nothing else is ordered by it.</summary>
    [IntrinsicImplementation, Ptx("st.relaxed.gpu.global.u32 [%g0], %1;")]
    public static void StoreRelaxed(ref uint p, uint v) => Volatile.Write(ref p, v);

    /// <summary>Loads 4 bytes that another block may be writing, by their address as a number.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .b64 global; cvta.to.global.u64 global, %0; ld.relaxed.gpu.global.u32 %d, [global]; }")]
    public static unsafe uint LoadRelaxedFrom(long address) => Volatile.Read(ref *(uint*)address);

    /// <summary>The same where a condition is not 0, else 0: nobody waits for it before it is needed, as behind a branch.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .b64 global; .reg .pred loads; cvta.to.global.u64 global, %0; setp.ne.u32 loads, %1, 0; mov.u32 %d, 0; @loads ld.relaxed.gpu.global.u32 %d, [global]; }")]
    public static unsafe uint LoadRelaxedFromIf(long address, uint condition) => condition == 0 ? 0 : Volatile.Read(ref *(uint*)address);

    /// <summary>Loads two words that other blocks may be writing, each by itself.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .b64 global; cvta.to.global.u64 global, %0; ld.relaxed.gpu.global.v2.u32 %d, [global]; }")]
    public static unsafe U2 LoadRelaxed2From(long address)
    {
        uint* words = (uint*)address;
        U2 loaded;
        loaded.X = Volatile.Read(ref words[0]);
        loaded.Y = Volatile.Read(ref words[1]);
        return loaded;
    }

    /// <summary>Stores 4 bytes that another block may be waiting for, at an address as a number. Nothing else is ordered by it.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .b64 global; cvta.to.global.u64 global, %0; st.relaxed.gpu.global.u32 [global], %1; }")]
    public static unsafe void StoreRelaxedTo(long address, uint v) => Volatile.Write(ref *(uint*)address, v);

    /// <summary>Adds to 4 bytes, without waiting for their old value. Nothing else is ordered by it.</summary>
    [IntrinsicImplementation, Ptx("red.relaxed.gpu.global.add.u32 [%g0], %1;")]
    public static void AddRelaxed(ref uint p, uint v) => Interlocked.Add(ref p, v);

    /// <summary>The same, by their address as a number.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .b64 global; cvta.to.global.u64 global, %0; red.relaxed.gpu.global.add.u32 [global], %1; }")]
    public static unsafe void AddRelaxedTo(long address, uint v) => Interlocked.Add(ref *(uint*)address, v);

    /// <summary>Loads 16 bytes that are read once (weights): not kept in L1, fetched into L2 by 128 bytes.</summary>
    [IntrinsicImplementation, Ptx("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 %d, [%g0];")]
    public static U4 LoadStream(ref uint p) => Load<U4>(ref p, "ld.global.nc.v4.u32");

    /// <summary>Loads 16 bytes of global memory, a constant number of bytes on, over <paramref name="old"/> where <paramref name="condition"/> is not 0. Without a branch, and in the registers of what was there.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .pred p; %=3setp.ne.u32 p, %2, 0; @p ld.global.v4.u32 %d, [%g0+%c1]; }")]
    public static U4 LoadGlobalOver(ref uint p, int bytes, uint condition, U4 old) => condition == 0 ? old : Load<U4>(ref Unsafe.AddByteOffset(ref p, bytes), "ld.global.v4.u32");

    /// <summary>The same of 16 bytes that are read once.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .pred p; %=3setp.ne.u32 p, %2, 0; @p ld.global.nc.L1::no_allocate.L2::128B.v4.u32 %d, [%g0+%c1]; }")]
    public static U4 LoadStreamOver(ref uint p, int bytes, uint condition, U4 old) => condition == 0 ? old : Load<U4>(ref Unsafe.AddByteOffset(ref p, bytes), "ld.global.nc.v4.u32");

    /// <summary>Loads 8 bytes that are read once.</summary>
    [IntrinsicImplementation, Ptx("ld.global.nc.L1::no_allocate.L2::128B.v2.u32 %d, [%g0];")]
    public static U2 LoadStream2(ref uint p) => Load<U2>(ref p, "ld.global.nc.v2.u32");

    /// <summary>Loads 4 bytes that are read once.</summary>
    [IntrinsicImplementation, Ptx("ld.global.nc.L1::no_allocate.L2::128B.u32 %d, [%g0];")]
    public static uint LoadStream1(ref uint p) => Load<uint>(ref p, "ld.global.nc.u32");

    /// <summary>Loads 16 bytes that nobody writes while the kernel runs, through the read-only path, kept in L1.</summary>
    [IntrinsicImplementation, Ptx("ld.global.nc.v4.u32 %d, [%g0];")]
    public static U4 LoadReadOnly(ref uint p) => Load<U4>(ref p, "ld.global.nc.v4.u32");

    /// <summary>Loads a float32 that nobody writes while the kernel runs, by its address as a number.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .b64 global; cvta.to.global.u64 global, %0; ld.global.nc.f32 %d, [global]; }")]
    public static unsafe float LoadReadOnlyFloat(long address) => *(float*)address;

    /// <summary>Loads a byte that nobody writes while the kernel runs, by its address as a number.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .b64 global; cvta.to.global.u64 global, %0; ld.global.nc.u8 %d, [global]; }")]
    public static unsafe uint LoadReadOnlyByte(long address) => *(byte*)address;

    /// <summary>Loads 2 bytes of global memory, by their address as a number.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .b64 global; .reg .b16 half; cvta.to.global.u64 global, %0; ld.global.u16 half, [global]; cvt.u32.u16 %d, half; }")]
    public static unsafe uint LoadHalfFrom(long address) => *(ushort*)address;

    /// <summary>Loads 16 bytes of global memory, by their address as a number.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .b64 global; cvta.to.global.u64 global, %0; ld.global.v4.u32 %d, [global]; }")]
    public static unsafe U4 LoadGlobalFrom(long address) => *(U4*)address;

    /// <summary>The same past L1.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .b64 global; cvta.to.global.u64 global, %0; ld.global.cg.v4.u32 %d, [global]; }")]
    public static unsafe U4 LoadL2From(long address) => *(U4*)address;

    /// <summary>Stores the low half of a word to global memory, by its address as a number.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .b64 global; .reg .b16 half; cvta.to.global.u64 global, %0; cvt.u16.u32 half, %1; st.global.u16 [global], half; }")]
    public static unsafe void StoreHalfTo(long address, uint v) => *(ushort*)address = (ushort)v;

    /// <summary>Stores a word to global memory, by its address as a number.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .b64 global; cvta.to.global.u64 global, %0; st.global.u32 [global], %1; }")]
    public static unsafe void StoreWordTo(long address, uint v) => *(uint*)address = v;

    /// <summary>Stores 16 bytes to global memory, by their address as a number.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .b64 global; cvta.to.global.u64 global, %0; st.global.v4.u32 [global], %1; }")]
    public static unsafe void StoreGlobalTo(long address, U4 v) => *(U4*)address = v;

    /// <summary>Loads 4 bytes that nobody writes while the kernel runs.</summary>
    [IntrinsicImplementation, Ptx("ld.global.nc.u32 %d, [%g0];")]
    public static uint LoadReadOnly1(ref uint p) => Load<uint>(ref p, "ld.global.nc.u32");

    /// <summary>Loads 2 bytes that nobody writes while the kernel runs, into the low half of the result.</summary>
    [IntrinsicImplementation, Ptx("ld.global.nc.u16 %d, [%g0];")]
    public static unsafe uint LoadReadOnlyHalf(ref byte p)
    {
        CheckAligned(Unsafe.AsPointer(ref p), sizeof(ushort), "ld.global.nc.u16");
        return Unsafe.As<byte, ushort>(ref p);
    }

    /// <summary>Loads 2 bytes of global memory into the low half of the result.</summary>
    [IntrinsicImplementation, Ptx("ld.global.u16 %d, [%g0];")]
    public static unsafe uint LoadGlobalHalf(ref byte p)
    {
        CheckAligned(Unsafe.AsPointer(ref p), sizeof(ushort), "ld.global.u16");
        return Unsafe.As<byte, ushort>(ref p);
    }

    /// <summary>Stores 16 bytes to global memory.</summary>
    [IntrinsicImplementation, Ptx("st.global.v4.u32 [%g0], %1;")]
    public static void StoreGlobal(ref uint p, U4 v) => Store(ref p, v, "st.global.v4.u32");

    /// <summary>Stores 8 bytes to global memory.</summary>
    [IntrinsicImplementation, Ptx("st.global.v2.u32 [%g0], %1;")]
    public static void StoreGlobal2(ref uint p, U2 v) => Store(ref p, v, "st.global.v2.u32");

    /// <summary>Stores 16 bytes that are not read again soon: first to leave the cache.</summary>
    [IntrinsicImplementation, Ptx("st.global.cs.v4.u32 [%g0], %1;")]
    public static void StoreStream(ref uint p, U4 v) => Store(ref p, v, "st.global.cs.v4.u32");

    /// <summary>Loads 16 bytes of shared memory.</summary>
    [IntrinsicImplementation, Ptx("ld.shared.v4.u32 %d, [%s0];")]
    public static U4 LoadShared(ref uint p) => Load<U4>(ref p, "ld.shared.v4.u32");

    /// <summary>Loads 8 bytes of shared memory.</summary>
    [IntrinsicImplementation, Ptx("ld.shared.v2.u32 %d, [%s0];")]
    public static U2 LoadShared2(ref uint p) => Load<U2>(ref p, "ld.shared.v2.u32");

    /// <summary>Loads 16 bytes of shared memory, a constant number of bytes on.</summary>
    [IntrinsicImplementation, Ptx("ld.shared.v4.u32 %d, [%s0+%c1];")]
    public static U4 LoadSharedAt(ref uint p, int bytes) => Load<U4>(ref Unsafe.AddByteOffset(ref p, bytes), "ld.shared.v4.u32");

    /// <summary>Loads 8 bytes of shared memory, a constant number of bytes on.</summary>
    [IntrinsicImplementation, Ptx("ld.shared.v2.u32 %d, [%s0+%c1];")]
    public static U2 LoadShared2At(ref uint p, int bytes) => Load<U2>(ref Unsafe.AddByteOffset(ref p, bytes), "ld.shared.v2.u32");

    /// <summary>Stores a number to shared memory, a constant number of bytes on.</summary>
    [IntrinsicImplementation, Ptx("st.shared.f32 [%s0+%c1], %2;")]
    public static void StoreSharedAt(ref uint p, int bytes, float v) => Store(ref Unsafe.AddByteOffset(ref p, bytes), v, "st.shared.f32");

    /// <summary>Stores 4 bytes to shared memory, a constant number of bytes on.</summary>
    [IntrinsicImplementation, Ptx("st.shared.u32 [%s0+%c1], %2;")]
    public static void StoreSharedWordAt(ref uint p, int bytes, uint v) => Store(ref Unsafe.AddByteOffset(ref p, bytes), v, "st.shared.u32");

    /// <summary>Stores 16 bytes to shared memory.</summary>
    [IntrinsicImplementation, Ptx("st.shared.v4.u32 [%s0], %1;")]
    public static void StoreShared(ref uint p, U4 v) => Store(ref p, v, "st.shared.v4.u32");

    /// <summary>Stores 8 bytes to shared memory.</summary>
    [IntrinsicImplementation, Ptx("st.shared.v2.u32 [%s0], %1;")]
    public static void StoreShared2(ref uint p, U2 v) => Store(ref p, v, "st.shared.v2.u32");

    /// <summary>Throws when an address is not a multiple of the width: the hardware faults there, a PC would not.</summary>
    public static unsafe void CheckAligned(void* address, int bytes, string instruction)
    {
        if (((nuint)address & (nuint)(bytes - 1)) != 0)
            throw new InvalidOperationException($"{instruction}: address 0x{(nuint)address:X} is not {bytes}-byte aligned.");
    }

    private static unsafe T Load<T>(ref uint p, string instruction)
        where T : unmanaged
    {
        CheckAligned(Unsafe.AsPointer(ref p), sizeof(T), instruction);
        return Unsafe.As<uint, T>(ref p);
    }

    private static unsafe void Store<T>(ref uint p, T value, string instruction)
        where T : unmanaged
    {
        CheckAligned(Unsafe.AsPointer(ref p), sizeof(T), instruction);
        Unsafe.As<uint, T>(ref p) = value;
    }
}
