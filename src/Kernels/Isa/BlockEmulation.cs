using System.Runtime.CompilerServices;
using ILGPU;
using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>How the threads of a block wait for each other on the CPU accelerator.</summary>
/// <remarks>
/// ILGPU's own barrier is three of .NET's, each of which lets hundreds of threads spin before they sleep. Here a thread that waits leaves its
/// processor at once, as in <see cref="WarpEmulation"/>. All threads of the block must come, and all must have asked for shared memory
/// equally often: for threads that have not, ILGPU's own makes up.
/// </remarks>
internal sealed class BlockEmulation
{
    private const int Yields = 8, BedThreads = 32;

    // Entries live as long as ILGPU's object of the multiprocessor.
    private static readonly ConditionalWeakTable<object, BlockEmulation> Blocks = new();

    // A worker thread belongs to the same multiprocessor all its life.
    [ThreadStatic]
    private static BlockEmulation? threadBlock;

    private readonly Bed[] beds;
    private int arrived;
    private int phase;

    private BlockEmulation(int mostThreads)
    {
        beds = new Bed[(mostThreads + BedThreads - 1) / BedThreads];
        for (int i = 0; i < beds.Length; i++)
            beds[i] = new Bed();
    }

    /// <summary>Waits for all threads of the block.</summary>
    public static void Meet()
    {
        BlockEmulation block = threadBlock ??= Blocks.GetValue(CpuContext.Group, _ => new BlockEmulation(CpuContext.MostThreads));
        block.ArriveAndWait(Group.Dimension.Size, Group.LinearIndex / BedThreads);
    }

    private void ArriveAndWait(int threads, int bedIndex)
    {
        // It cannot change before this thread has arrived.
        int current = Volatile.Read(ref phase);
        if (Interlocked.Increment(ref arrived) == threads)
        {
            arrived = 0;
            Interlocked.Increment(ref phase);
            foreach (Bed bed in beds)
                bed.Wake();
            return;
        }
        for (int i = 0; i < Yields; i++)
        {
            Thread.Yield();
            if (Volatile.Read(ref phase) != current)
                return;
        }
        beds[bedIndex].Sleep(ref phase, current);
    }

    // A few of the threads: all of them on one would come for its lock together.
    private sealed class Bed
    {
        private int sleepers;

        public void Wake()
        {
            if (Volatile.Read(ref sleepers) == 0)
                return;
            lock (this)
                Monitor.PulseAll(this);
        }

        public void Sleep(ref int phase, int current)
        {
            lock (this)
            {
                // Either the last thread sees that somebody sleeps, or this one sees the next phase.
                Interlocked.Increment(ref sleepers);
                while (Volatile.Read(ref phase) == current)
                    Monitor.Wait(this);
                Interlocked.Decrement(ref sleepers);
            }
        }
    }
}

/// <summary>Operations over a whole block of threads.</summary>
internal static class Block
{
    /// <summary>Waits for all threads of the block and makes their memory accesses before it visible after it.</summary>
    [IntrinsicImplementation, Ptx("bar.sync\t0;")]
    public static void Barrier() => BlockEmulation.Meet();
}
