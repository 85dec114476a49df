using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Runtime;
using ILGPU;

namespace GpuKit.Ilgpu.Bench;

/// <summary>The read-only bandwidth of the card: 4 GiB in 16-byte loads, the roof that weight-reading kernels are measured against.</summary>
internal static class ReadBandwidth
{
    private const long Bytes = 4L << 30;
    private const int Threads = 512;

    internal struct Args
    {
        public ArrayView<uint> Source;
        public ArrayView<uint> Sink;
    }

    internal static readonly KernelDefinition<Args> ReadAll = new(Run, new KernelTraits(Threads));

    // Four independent loads a turn, blocks side by side, so that many lines are in flight everywhere.
    internal static void Run(Args a)
    {
        long stride = (long)Grid.DimX * Group.DimX * 4;
        long end = a.Source.Length;
        uint mix = 0;
        for (long i = (((long)Grid.IdxX * Group.DimX) + Group.IdxX) * 4; i < end; i += 4 * stride)
        {
            U4 p = Mem.LoadStream(ref a.Source[i]);
            U4 q = Mem.LoadStream(ref a.Source[i + stride]);
            U4 r = Mem.LoadStream(ref a.Source[i + (2 * stride)]);
            U4 s = Mem.LoadStream(ref a.Source[i + (3 * stride)]);
            mix ^= p.X ^ p.Y ^ p.Z ^ p.W ^ q.X ^ q.Y ^ q.Z ^ q.W ^ r.X ^ r.Y ^ r.Z ^ r.W ^ s.X ^ s.Y ^ s.Z ^ s.W;
        }
        // Never true of the data, but the compiler cannot know: the loads must happen.
        if (mix == 0x12345678)
            a.Sink[0] = mix;
    }

    /// <summary>GB/s, the best of several grids.</summary>
    public static double Measure(GpuStream stream)
    {
        GpuDevice device = stream.Device;
        using DeviceBuffer<uint> source = device.Allocate<uint>(Bytes / 4), sink = device.Allocate<uint>(1);
        RandomBits.Fill(stream, source, 1, 0xFFFFFFFF, 0);
        double best = 0;
        foreach (int perMultiprocessor in new[] { 4, 8, 16, 32 })
        {
            // A power of two of blocks: the stride divides the buffer.
            int blocks = (int)System.Numerics.BitOperations.RoundUpToPowerOf2((uint)(device.MultiprocessorCount * perMultiprocessor));
            var args = new Args { Source = source, Sink = sink };
            double us = MeasureOnce(stream, () => device.Launch(ReadAll, stream, (blocks, 1, 1), Threads, 0, args));
            best = Math.Max(best, Bytes / us / 1000);
        }
        return best;
    }

    private static double MeasureOnce(GpuStream stream, Action launch)
    {
        using GpuEvent start = stream.Device.CreateEvent(), end = stream.Device.CreateEvent();
        var times = new List<double>();
        for (int i = 0; i < 7; i++)
        {
            start.Record(stream);
            launch();
            end.Record(stream);
            end.Synchronize();
            times.Add(end.MillisecondsSince(start) * 1000);
        }
        times.Sort();
        return times[times.Count / 2];
    }
}
