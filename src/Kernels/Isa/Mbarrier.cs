using System.Runtime.InteropServices;
using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>
/// Barriers in shared memory (sm_90): a phase ends when the expected threads have arrived and the expected bytes of asynchronous
/// copies have landed; then the next one begins. Waiters name the parity of the phase that they wait for the end of.
/// </summary>
internal static unsafe class Mbarrier
{
    private const int Arch = 90;

    // Guards all barriers; waiters of any of them are woken at the end of any phase.
    private static readonly object Gate = new();

    // The eight bytes of a barrier on the CPU.
    [StructLayout(LayoutKind.Sequential, Size = 8)]
    private struct State
    {
        public short Phase, Count, Pending;
    }

    // Bytes that a phase still waits for, by the barrier's place in memory: eight bytes have no room for them.
    private static readonly Dictionary<nint, long> Outstanding = [];

    /// <summary>Makes a barrier for phases of <paramref name="count"/> arrivals.</summary>
    [IntrinsicImplementation, Ptx("mbarrier.init.shared::cta.b64 [%0], %1;", MinArch = Arch)]
    public static void Initialize(uint barrier, int count)
    {
        lock (Gate)
        {
            *At(barrier) = new State { Count = (short)count, Pending = (short)count };
            Outstanding[(nint)At(barrier)] = 0;
        }
    }

    /// <summary>Makes new barriers visible to asynchronous copies and to the other blocks of the cluster.</summary>
    [IntrinsicImplementation, Ptx("fence.mbarrier_init.release.cluster;", MinArch = Arch)]
    public static void FenceInitialized()
    {
    }

    /// <summary>Arrives.</summary>
    [IntrinsicImplementation, Ptx("mbarrier.arrive.shared::cta.b64 _, [%0];", MinArch = Arch)]
    public static void Arrive(uint barrier)
    {
        lock (Gate)
        {
            At(barrier)->Pending--;
            EndPhase(At(barrier));
        }
    }

    /// <summary>
    /// Arrives at the barrier with the same address in block <paramref name="rank"/> of the cluster. Orders nothing between the blocks but the
    /// arrival itself: an ordering of all memory for the cluster would wait for every access in flight, a microsecond each time.
    /// </summary>
    [IntrinsicImplementation, Ptx("{ .reg .b32 there; mapa.shared::cluster.u32 there, %0, %1; mbarrier.arrive.shared::cluster.b64 _, [there]; }", MinArch = Arch)]
    public static void ArriveAt(uint barrier, int rank) => Arrive(barrier);

    /// <summary>Arrives, and lets the phase wait for that many bytes of copies besides.</summary>
    [IntrinsicImplementation, Ptx("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;", MinArch = Arch)]
    public static void ArriveExpecting(uint barrier, int bytes)
    {
        lock (Gate)
        {
            Outstanding[(nint)At(barrier)] += bytes;
            At(barrier)->Pending--;
            EndPhase(At(barrier));
        }
    }

    /// <summary>Waits until the phase of parity <paramref name="parity"/> (0 or 1) has ended.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .pred done; WAIT: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1; @!done bra WAIT; }", MinArch = Arch)]
    public static void Wait(uint barrier, uint parity)
    {
        lock (Gate)
        {
            while ((uint)At(barrier)->Phase == parity)
                Monitor.Wait(Gate);
        }
    }

    /// <summary>Bytes of a copy have landed (emulation of what the copy engine does).</summary>
    internal static void Complete(uint barrier, int bytes)
    {
        lock (Gate)
        {
            Outstanding[(nint)At(barrier)] -= bytes;
            EndPhase(At(barrier));
        }
    }

    private static State* At(uint barrier) => (State*)SharedWindow.Pointer(barrier);

    private static void EndPhase(State* state)
    {
        if (state->Pending != 0 || Outstanding[(nint)state] != 0)
            return;
        state->Phase ^= 1;
        state->Pending = state->Count;
        Monitor.PulseAll(Gate);
    }
}
