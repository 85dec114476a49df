using System.Runtime.CompilerServices;
using ILGPU;
using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>Four neighbouring warps (sm_90), which multiply together, meet, and hand registers to one another.</summary>
internal static class Warpgroup
{
    /// <summary>Threads of a warpgroup.</summary>
    public const int Threads = 128;

    // Meeting points and turns of the CPU device: one set a launch, by block and number.
    private static readonly ConditionalWeakTable<object, Dictionary<(Index3D, uint), System.Threading.Barrier>> Points = [];
    private static readonly ConditionalWeakTable<object, Dictionary<(Index3D, uint), Turn>> Turns = [];

    /// <summary>Waits for the warpgroup's threads at meeting point <paramref name="number"/> (1 to 15): writes to shared memory before are seen after.</summary>
    [IntrinsicImplementation, Ptx("bar.sync %0, 128;")]
    public static void Meet(uint number) => MeetAll(number, Threads);

    /// <summary>The same for two warps alone.</summary>
    [IntrinsicImplementation, Ptx("bar.sync %0, 64;")]
    public static void MeetPair(uint number) => MeetAll(number, Threads / 2);

    /// <summary>Waits until another warpgroup has signalled <paramref name="number"/> (1 to 15, used by the two alone) once for each wait of this one.</summary>
    [IntrinsicImplementation, Ptx("bar.sync %0, 256;", ExactArch = "90a")]
    public static void AwaitTurn(uint number) => TurnOf(number).Arrive(waits: true);

    /// <summary>Lets the warpgroup that waits for <paramref name="number"/> go on, now or when it gets there.</summary>
    [IntrinsicImplementation, Ptx("bar.arrive %0, 256;", ExactArch = "90a")]
    public static void GiveTurn(uint number) => TurnOf(number).Arrive(waits: false);

    /// <summary>Lets this warpgroup's threads have up to <paramref name="registers"/> (a constant), once others have given theirs back.</summary>
    [IntrinsicImplementation, Ptx("setmaxnreg.inc.sync.aligned.u32 %c0;", ExactArch = "90a")]
    public static void TakeRegisters(int registers)
    {
    }

    /// <summary>Gives back what this warpgroup's threads have beyond <paramref name="registers"/> (a constant).</summary>
    [IntrinsicImplementation, Ptx("setmaxnreg.dec.sync.aligned.u32 %c0;", ExactArch = "90a")]
    public static void GiveRegisters(int registers)
    {
    }

    private static void MeetAll(uint number, int threads)
    {
        (object? launch, Index3D group) = CpuContext.Block;
        System.Threading.Barrier? point;
        lock (Points)
        {
            Dictionary<(Index3D, uint), System.Threading.Barrier> points = Points.GetOrCreateValue(launch!);
            if (!points.TryGetValue((group, number), out point))
                points.Add((group, number), point = new System.Threading.Barrier(threads));
        }
        point.SignalAndWait();
    }

    private static Turn TurnOf(uint number)
    {
        (object? launch, Index3D group) = CpuContext.Block;
        lock (Turns)
        {
            Dictionary<(Index3D, uint), Turn> turns = Turns.GetOrCreateValue(launch!);
            if (!turns.TryGetValue((group, number), out Turn? turn))
                turns.Add((group, number), turn = new Turn());
            return turn;
        }
    }

    // A hardware barrier for two warpgroups, of which one need not wait.
    private sealed class Turn
    {
        private int arrived, phase;

        public void Arrive(bool waits)
        {
            lock (this)
            {
                int current = phase;
                if (++arrived == 2 * Threads)
                {
                    arrived = 0;
                    phase++;
                    Monitor.PulseAll(this);
                }
                while (waits && phase == current)
                    Monitor.Wait(this);
            }
        }
    }
}
