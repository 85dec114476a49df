using System.Numerics;
using System.Runtime.CompilerServices;
using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;
using ILGPU.IR.Intrinsics;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Kernels.Isa;

public sealed class WarpOpsTests
{
    private const int Results = 11;

    /// <summary>One word a thread in, every operation of it out.</summary>
    internal static void Everything(ArrayView<uint> input, ArrayView<uint> output)
    {
        int thread = Grid.IdxX * Group.DimX + Group.IdxX, size = Warp.WarpSize, at = thread * Results;
        int lane = (int)WarpOps.LaneId();
        uint word = input[thread];
        float x = Interop.IntAsFloat(word);
        output[at] = Interop.FloatAsInt(WarpOps.Sum(x));
        output[at + 1] = Interop.FloatAsInt(WarpOps.Max(x));
        ArgMaxResult best = WarpOps.ArgMax(x, 100 + thread);
        output[at + 2] = Interop.FloatAsInt(best.Value);
        output[at + 3] = (uint)best.Index;
        output[at + 4] = (uint)WarpOps.SumInt((int)word);
        output[at + 5] = WarpOps.Shuffle(word, (lane * 3 + 1) % size);
        output[at + 6] = Interop.FloatAsInt(WarpOps.ShuffleXor(x, size / 2));
        WarpOps.Barrier();
        output[at + 7] = (uint)lane;
        output[at + 8] = WarpOps.Shuffle(word, -1);
        ulong wide = Interop.FloatAsInt(WarpOps.SumDouble(x * (1.0 / 3)));
        output[at + 9] = (uint)wide;
        output[at + 10] = (uint)(wide >> 32);
    }

    [Theory]
    [InlineData(2, 1, 1)]
    [InlineData(2, 4, 3)]
    [InlineData(3, 2, 1)]
    [InlineData(4, 2, 2)]
    [InlineData(8, 2, 1)]
    [InlineData(32, 1, 1)]
    [InlineData(32, 2, 2)]
    public void All_warps_of_all_multiprocessors(int warpSize, int warps, int multiprocessors)
    {
        using var device = new CpuWarp(warpSize, warps, multiprocessors);
        for (int seed = 0; seed < 3; seed++)
            Check(device, warpSize, warps, groups: 2 * multiprocessors, seed);
    }

    [Fact]
    public async Task Two_accelerators_at_once()
    {
        await Task.WhenAll(Enumerable.Range(0, 2).Select(i => Task.Run(() =>
        {
            using var device = new CpuWarp(4, 2, 2);
            for (int seed = 0; seed < 20; seed++)
                Check(device, 4, 2, groups: 4, 100 * i + seed);
        })));
    }

    private static void Check(CpuWarp device, int warpSize, int warps, int groups, int seed)
    {
        var random = new Random(seed);
        int threads = warpSize * warps * groups;
        var x = new float[threads];
        for (int i = 0; i < threads; i++)
            x[i] = (float)(Math.Pow(2, random.Next(-12, 12)) * (random.NextDouble() - 0.5));
        uint[] words = [.. x.Select(Interop.FloatAsInt)];
        uint[] output = device.Launch(Everything, words, threads * Results, groups, warps);

        for (int first = 0; first < threads; first += warpSize)
        {
            float[] lanes = x[first..(first + warpSize)];
            double[] thirds = Array.ConvertAll(lanes, v => v * (1.0 / 3));
            int best = Array.IndexOf(lanes, lanes.Max());
            for (int lane = 0; lane < warpSize; lane++)
            {
                int at = first + lane;
                ulong wide = BitConverter.DoubleToUInt64Bits(ButterflySum(thirds, lane));
                uint[] expected =
                [
                    Interop.FloatAsInt(ButterflySum(lanes, lane)),
                    Interop.FloatAsInt(lanes[best]),
                    Interop.FloatAsInt(lanes[best]),
                    (uint)(100 + first + best),
                    words[first..(first + warpSize)].Aggregate(0u, (sum, w) => unchecked(sum + w)),
                    words[first + (lane * 3 + 1) % warpSize],
                    words[first + ((lane ^ (warpSize / 2)) < warpSize ? lane ^ (warpSize / 2) : lane)],
                    (uint)lane,
                    words[first + 31 % warpSize],
                    (uint)wide,
                    (uint)(wide >> 32),
                ];
                Assert.Equal(expected, output[(at * Results)..(at * Results + Results)]);
            }
        }
    }

    // Recursion over the tree of one lane, not the emulation's folding: the result over lanes that agree in the bits below.
    private static T ButterflySum<T>(T[] lanes, int lane)
        where T : IFloatingPointIeee754<T>
    {
        int half = 1;
        while (half * 2 < lanes.Length)
            half *= 2;
        return After(lane, 1);

        T After(int at, int distance) =>
            distance > half ? (at < lanes.Length ? lanes[at] : T.NegativeZero) : After(at, distance * 2) + After(at ^ distance, distance * 2);
    }

    [Theory]
    [InlineData(1f, 2f, 3f, 4f, 4f, 3)]
    [InlineData(5f, 2f, 5f, 5f, 5f, 0)]
    [InlineData(-1f, float.NaN, float.PositiveInfinity, float.NaN, float.NaN, 1)]
    [InlineData(-0f, 0f, -1f, 0f, 0f, 0)]
    [InlineData(float.NegativeInfinity, float.NegativeInfinity, -3.4e38f, float.NegativeInfinity, -3.4e38f, 2)]
    public void Ties_NaN_and_zeros_of_ArgMax_and_Max(float a, float b, float c, float d, float value, int index)
    {
        using var device = new CpuWarp(4);
        uint[] output = device.Launch(Everything, [.. new[] { a, b, c, d }.Select(Interop.FloatAsInt)], 4 * Results);
        uint bits = float.IsNaN(value) ? 0x7FFFFFFF : Interop.FloatAsInt(value);
        for (int lane = 0; lane < 4; lane++)
        {
            Assert.Equal([bits, bits, 100u + (uint)index], output[(lane * Results + 1)..(lane * Results + 4)]);
        }
    }

    internal static void Misuse(ArrayView<uint> input, ArrayView<uint> output) =>
        output[Group.IdxX] = DivergentWarp() + WrongWarpSize();

    // The bodies of intrinsics are plain C#: they can catch what would otherwise end the process.
    [IntrinsicImplementation]
    internal static uint DivergentWarp()
    {
        try
        {
            if (Warp.LaneIdx == 0)
                WarpOps.Sum(1);
            else
                WarpOps.Max(1);
            return 0;
        }
        catch (InvalidOperationException e) when (e.Message.StartsWith("Divergent warp: lane", StringComparison.Ordinal))
        {
            return 1;
        }
    }

    [IntrinsicImplementation]
    internal static uint WrongWarpSize()
    {
        try
        {
            Mma.Bf16(default, default, default);
            return 0;
        }
        catch (InvalidOperationException e) when (e.Message.Contains("32 lanes", StringComparison.Ordinal))
        {
            return 2;
        }
    }

    [Fact]
    public void Divergence_and_a_wrong_warp_size_are_reported()
    {
        using var device = new CpuWarp(2);
        Assert.Equal([3u, 3u], device.Launch(Misuse, [0], 2));
    }

    private static readonly List<WeakReference> Warps = [];

    internal static void Remember(ArrayView<uint> input, ArrayView<uint> output)
    {
        output[0] = Interop.FloatAsInt(WarpOps.Sum(1));
        RememberWarp();
    }

    [IntrinsicImplementation]
    internal static void RememberWarp()
    {
        if (Warp.LaneIdx == 0)
            Warps.Add(new WeakReference(CpuContext.Warp));
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void UseAndDispose()
    {
        using var device = new CpuWarp(2);
        device.Launch(Remember, [0], 1);
    }

    [Fact]
    public void Scratch_goes_with_its_accelerator()
    {
        for (int i = 0; i < 10; i++)
            UseAndDispose();
        for (int i = 0; i < 20 && Warps.Count(w => w.IsAlive) > 1; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }

        Assert.Equal(10, Warps.Count);
        Assert.InRange(Warps.Count(w => w.IsAlive), 0, 1); // the last one may still be in a register
    }
}
