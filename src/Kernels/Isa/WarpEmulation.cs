using System.Runtime.CompilerServices;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>How the lanes of a warp exchange values on the CPU accelerator: memory that they share and one barrier.</summary>
/// <remarks>
/// A collective writes (<see cref="Begin{T}"/>), meets (<see cref="Meet"/>) and reads. There are two buffers, used in
/// turn, so one barrier is enough: a lane that overwrites a buffer has passed the barrier of the collective in between,
/// which every lane enters only after it has read the older buffer. ILGPU's own shuffle takes four barriers.
/// The barrier is one for more lanes than processors: a lane that waits leaves its processor to the next one at once. .NET's, which
/// ILGPU's own stands on, spins first, and then has all of them woken one after the other.
/// </remarks>
internal sealed unsafe class WarpEmulation
{
    /// <summary>Bytes of one buffer: enough for the operands of an m16n8k64 in float32.</summary>
    private const int Capacity = 6144;

    // How often a lane gives way before it sleeps: others may compute for long.
    private const int Yields = 8;

    // Entries live as long as ILGPU's warp object: thousands of accelerators leave nothing behind.
    private static readonly ConditionalWeakTable<object, WarpEmulation> Warps = new();

    // A worker thread is the same lane of the same warp all its life.
    [ThreadStatic]
    private static Lane? threadLane;

    private readonly object identity;
    private readonly byte[][] buffers;
    private readonly string[][] instructions;
    private readonly int warpSize;
    private readonly object bed = new();
    private int arrived;
    private int phase;
    private int sleepers;

    private WarpEmulation(object warp, int warpSize)
    {
        identity = warp;
        buffers = [GC.AllocateArray<byte>(Capacity, pinned: true), GC.AllocateArray<byte>(Capacity, pinned: true)];
        instructions = [new string[warpSize], new string[warpSize]];
        this.warpSize = warpSize;
    }

    /// <summary>Enters a collective and returns the memory that its lanes write before they <see cref="Meet"/>.</summary>
    /// <param name="instruction">Names the instruction; all lanes must name the same one.</param>
    /// <param name="lanes">The warp size that the instruction needs, or 0 when it works with any.</param>
    public static T* Begin<T>(string instruction, int lanes = 0)
        where T : unmanaged
    {
        Lane lane = threadLane ??= new Lane(Warps.GetValue(CpuContext.Warp, w => new WarpEmulation(w, Warp.WarpSize)));
        lane.Enter(instruction, lanes);
        return (T*)Unsafe.AsPointer(ref lane.Owner.buffers[lane.Turn][0]);
    }

    /// <summary>Orders every lane's writes since <see cref="Begin{T}"/> before every lane's reads after it.</summary>
    public static void Meet()
    {
        Lane lane = threadLane!;
        lane.Owner.ArriveAndWait();
        lane.CheckNeighbour();
    }

    /// <summary>Publishes one value a lane and returns all of them, in lane order.</summary>
    public static T* Gather<T>(string instruction, T value)
        where T : unmanaged
    {
        T* slots = Begin<T>(instruction);
        slots[Warp.LaneIdx] = value;
        Meet();
        return slots;
    }

    private void ArriveAndWait()
    {
        // It cannot change before this lane has arrived.
        int current = Volatile.Read(ref phase);
        if (Interlocked.Increment(ref arrived) == warpSize)
        {
            arrived = 0;
            Interlocked.Increment(ref phase);
            if (Volatile.Read(ref sleepers) != 0)
            {
                lock (bed)
                    Monitor.PulseAll(bed);
            }
            return;
        }

        for (int i = 0; i < Yields; i++)
        {
            Thread.Yield();
            if (Volatile.Read(ref phase) != current)
                return;
        }

        lock (bed)
        {
            // Either the last lane sees that somebody sleeps, or this one sees the next phase.
            Interlocked.Increment(ref sleepers);
            while (Volatile.Read(ref phase) == current)
                Monitor.Wait(bed);
            Interlocked.Decrement(ref sleepers);
        }
    }

    private sealed class Lane(WarpEmulation warp)
    {
        private readonly int index = Warp.LaneIdx;
        private readonly int warpSize = Warp.WarpSize;

        public WarpEmulation Owner => warp;

        /// <summary>Which of the two buffers the current collective uses.</summary>
        public int Turn { get; private set; }

        public void Enter(string instruction, int lanes)
        {
            if (lanes != 0 && lanes != warpSize)
            {
                throw new InvalidOperationException(
                    $"{instruction} is defined for {lanes} lanes; this CPU accelerator has a warp size of {warpSize}. " +
                    $"Create it with new CPUDevice({lanes}, …).");
            }

            int active = CpuContext.ActiveLanes(warp.identity);
            if (active != warpSize)
            {
                throw new InvalidOperationException(
                    $"{instruction} needs all {warpSize} lanes of the warp; the launch gave it {active}. " +
                    "Make the group size a multiple of the warp size.");
            }

            Turn ^= 1;
            warp.instructions[Turn][index] = instruction;
        }

        // Each lane compares itself with the next one: together they have compared all.
        public void CheckNeighbour()
        {
            string[] instructions = warp.instructions[Turn];
            int next = (index + 1) % warpSize;
            if (!ReferenceEquals(instructions[index], instructions[next]))
            {
                throw new InvalidOperationException(
                    $"Divergent warp: lane {index} executes {instructions[index]} while lane {next} executes " +
                    $"{instructions[next] ?? "another barrier"}.");
            }
        }
    }
}
