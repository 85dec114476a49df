using System.Runtime.CompilerServices;
using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>
/// Addresses in a block's shared memory as the 32-bit numbers that copies, barriers and matrix descriptors of sm_90 take, so that a
/// kernel reckons with them instead of with views.
/// </summary>
/// <remarks>On the CPU an address is a distance from the reference that the thread opened its window with.</remarks>
internal static unsafe class SharedWindow
{
    [ThreadStatic]
    private static byte* start;

    /// <summary>The address of the first byte of dynamic shared memory. Every thread calls it before it uses any address.</summary>
    [IntrinsicImplementation, Ptx("cvt.u32.u64 %d, %s0;")]
    public static uint Open(ref byte first)
    {
        start = (byte*)Unsafe.AsPointer(ref first);
        return 0;
    }

    /// <summary>The 16 bytes at an address.</summary>
    [IntrinsicImplementation, Ptx("ld.shared.v4.u32 %d, [%0];")]
    public static U4 Load(uint address) => *(U4*)Pointer(address);

    /// <summary>The 8 bytes at an address.</summary>
    [IntrinsicImplementation, Ptx("ld.shared.v2.u32 %d, [%0];")]
    public static U2 Load2(uint address) => *(U2*)Pointer(address);

    /// <summary>The 4 bytes at an address.</summary>
    [IntrinsicImplementation, Ptx("ld.shared.u32 %d, [%0];")]
    public static uint LoadWord(uint address) => *(uint*)Pointer(address);

    /// <summary>The 2 bytes at an address.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .b16 half; ld.shared.u16 half, [%0]; cvt.u32.u16 %d, half; }")]
    public static uint LoadHalf(uint address) => *(ushort*)Pointer(address);

    /// <summary>Stores 16 bytes at an address.</summary>
    [IntrinsicImplementation, Ptx("st.shared.v4.u32 [%0], %1;")]
    public static void Store(uint address, U4 value) => *(U4*)Pointer(address) = value;

    /// <summary>16-byte words of the shared memory that an address names (emulation only).</summary>
    internal static byte* Pointer(uint address) => start + address;

    /// <summary>Where a tile with 128-byte swizzle keeps a byte: the 16-byte words of a row are exchanged by the row's number modulo 8.</summary>
    internal static uint Swizzle128(uint address) => address ^ (((address >> 7) & 7) << 4);
}
