using System.Runtime.CompilerServices;
using ILGPU;
using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>Asynchronous copies from global to shared memory. A thread waits for its own copies only: then a barrier.</summary>
/// <remarks>
/// The emulation really defers: each thread queues its copies and moves the bytes when it waits for their group, so a
/// kernel that reads before it waits sees the old contents. What it cannot show is a copy that is started while other
/// threads still read the buffer. Copies that a kernel never waits for are dropped at the end of its thread group: the
/// hardware completes them, but into shared memory that nobody can read any more. Addresses must not move, which holds for
/// all memory of the CPU accelerator.
/// </remarks>
internal static unsafe class CpAsync
{
    [ThreadStatic]
    private static PendingCopies? threadCopies;

    /// <summary>Copies 16 bytes past L1 (<c>.cg</c>).</summary>
    [IntrinsicImplementation, Ptx("cp.async.cg.shared.global [%s0], [%g1], 16;")]
    public static void Copy16(ref uint shared, ref uint global) => Enqueue(ref shared, ref global, 16, 16);

    /// <summary>Copies the first <paramref name="bytes"/> (0..16) of 16 bytes and fills the rest with zeros.</summary>
    [IntrinsicImplementation, Ptx("cp.async.cg.shared.global [%s0], [%g1], 16, %2;")]
    public static void Copy16ZeroFill(ref uint shared, ref uint global, int bytes) =>
        Enqueue(ref shared, ref global, 16, bytes);

    /// <summary>Copies 16 bytes, or none and fills zeros where <paramref name="present"/> is 0, to a constant number of bytes on.</summary>
    /// <remarks>The size is chosen in the text: from a register that could hold any, the compiler would have to allow for all.</remarks>
    [IntrinsicImplementation, Ptx("{ .reg .pred p; .reg .b32 size; setp.ne.s32 p, %3, 0; selp.b32 size, 16, 0, p; cp.async.cg.shared.global [%s0+%c1], [%g2], 16, size; }")]
    public static void Copy16At(ref uint shared, int bytes, ref U4 global, int present) =>
        Enqueue(ref Unsafe.AddByteOffset(ref shared, bytes), ref Unsafe.As<U4, uint>(ref global), 16, present != 0 ? 16 : 0);

    /// <summary>The same, and asks for the whole line of 128 bytes to be brought into L2: for a copy whose neighbours another team wants soon.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .pred p; .reg .b32 size; setp.ne.s32 p, %3, 0; selp.b32 size, 16, 0, p; cp.async.cg.shared.global.L2::128B [%s0+%c1], [%g2], 16, size; }")]
    public static void Copy16OfLineAt(ref uint shared, int bytes, ref U4 global, int present) => Copy16At(ref shared, bytes, ref global, present);

    /// <summary>Copies 8 bytes.</summary>
    [IntrinsicImplementation, Ptx("cp.async.ca.shared.global [%s0], [%g1], 8;")]
    public static void Copy8(ref uint shared, ref uint global) => Enqueue(ref shared, ref global, 8, 8);

    /// <summary>Copies 4 bytes.</summary>
    [IntrinsicImplementation, Ptx("cp.async.ca.shared.global [%s0], [%g1], 4;")]
    public static void Copy4(ref uint shared, ref uint global) => Enqueue(ref shared, ref global, 4, 4);

    /// <summary>Copies the first <paramref name="bytes"/> (0..8) of 8 bytes and fills the rest with zeros.</summary>
    [IntrinsicImplementation, Ptx("cp.async.ca.shared.global [%s0], [%g1], 8, %2;")]
    public static void Copy8ZeroFill(ref uint shared, ref uint global, int bytes) =>
        Enqueue(ref shared, ref global, 8, bytes);

    /// <summary>Copies the first <paramref name="bytes"/> (0..4) of 4 bytes and fills the rest with zeros.</summary>
    [IntrinsicImplementation, Ptx("cp.async.ca.shared.global [%s0], [%g1], 4, %2;")]
    public static void Copy4ZeroFill(ref uint shared, ref uint global, int bytes) =>
        Enqueue(ref shared, ref global, 4, bytes);

    /// <summary>Copies the first <paramref name="bytes"/> (0..8) of 8 bytes at an address of global memory and fills the rest with zeros.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .b64 global; cvta.to.global.u64 global, %1; cp.async.ca.shared.global [%s0], [global], 8, %2; }")]
    public static void Copy8From(ref uint shared, long address, int bytes) => Enqueue(ref shared, ref *(uint*)address, 8, bytes);

    /// <summary>Copies 4 bytes at an address of global memory.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .b64 global; cvta.to.global.u64 global, %1; cp.async.ca.shared.global [%s0], [global], 4; }")]
    public static void Copy4From(ref uint shared, long address) => Enqueue(ref shared, ref *(uint*)address, 4, 4);

    /// <summary>The same of fewer bytes, behind which are zeros.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .b64 global; cvta.to.global.u64 global, %1; cp.async.ca.shared.global [%s0], [global], 4, %2; }")]
    public static void CopyPartOf4From(ref uint shared, long address, int bytes) => Enqueue(ref shared, ref *(uint*)address, 4, bytes);

    /// <summary>Closes the group of the copies started since the last commit (an empty group counts too).</summary>
    [IntrinsicImplementation, Ptx("cp.async.commit_group;")]
    public static void Commit() => Pending().Commit();

    /// <summary>Waits until at most <paramref name="n"/> of the latest groups are unfinished; a compile-time constant.</summary>
    [IntrinsicImplementation, Ptx("cp.async.wait_group %c0;")]
    public static void Wait(int n) => Pending().Complete(n);

    /// <summary>Waits for all copies of this thread, committed or not.</summary>
    [IntrinsicImplementation, Ptx("cp.async.wait_all;")]
    public static void WaitAll()
    {
        Pending().Commit();
        Pending().Complete(0);
    }

    private static void Enqueue(ref uint shared, ref uint global, int size, int bytes)
    {
        if ((uint)bytes > (uint)size)
            throw new InvalidOperationException($"cp.async: a source size of {bytes} is outside 0..{size}.");
        var copy = new Copy((byte*)Unsafe.AsPointer(ref shared), (byte*)Unsafe.AsPointer(ref global), size, bytes);
        Mem.CheckAligned(copy.Destination, size, "cp.async (shared)");
        Mem.CheckAligned(copy.Source, size, "cp.async (global)");
        Pending().Add(copy);
    }

    private static PendingCopies Pending()
    {
        PendingCopies pending = threadCopies ??= new PendingCopies();
        pending.EnterBlock(CpuContext.Block);
        return pending;
    }

    private readonly struct Copy(byte* destination, byte* source, int size, int bytes)
    {
        public byte* Destination => destination;

        public byte* Source => source;

        public void Apply()
        {
            Unsafe.CopyBlock(destination, source, (uint)bytes);
            Unsafe.InitBlock(destination + bytes, 0, (uint)(size - bytes));
        }
    }

    private sealed class PendingCopies
    {
        private readonly Queue<List<Copy>> groups = new();
        private readonly WeakReference<object?> lastLaunch = new(null);
        private Index3D group;
        private List<Copy> open = [];

        public void EnterBlock((object? Launch, Index3D Group) block)
        {
            bool same = lastLaunch.TryGetTarget(out object? launch) && ReferenceEquals(launch, block.Launch);
            if (same && group.Equals(block.Group))
                return;
            groups.Clear();
            open.Clear();
            if (!same)
                lastLaunch.SetTarget(block.Launch);
            group = block.Group;
        }

        public void Add(Copy copy) => open.Add(copy);

        public void Commit()
        {
            groups.Enqueue(open);
            open = [];
        }

        public void Complete(int unfinished)
        {
            if (unfinished < 0)
                throw new InvalidOperationException($"cp.async.wait_group: {unfinished} groups.");
            while (groups.Count > unfinished)
            {
                foreach (Copy copy in groups.Dequeue())
                    copy.Apply();
            }
        }
    }
}
