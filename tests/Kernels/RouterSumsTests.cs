using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Kernels;

public sealed class RouterSumsTests
{
    private const int Experts = 37, TopK = 5;

    internal struct Args
    {
        public RouterArgs Router;
        public ArrayView<int> Chosen;
    }

    private static readonly KernelDefinition<Args> AwaitKernel = new(Await, new KernelTraits(32, NeedsWarp32: true));

    internal static void Await(Args a)
    {
        int expert = RouterSums.Await(a.Router, TopK);
        if (Group.IdxX < TopK)
            a.Chosen[Group.IdxX] = expert;
    }

    // Whoever is told waits for nothing; whoever is told nothing, or not of all, chooses from the sums, and ends.
    [Theory]
    [InlineData(TestDevice.CpuWarp32)]
    [InlineData(TestDevice.Cuda)]
    public void WithoutAnAnnouncementTheChoiceIsMadeFromTheSums(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        long[] units = [.. Enumerable.Range(0, Experts).Select(e => (long)((e * 7 % Experts) << 20))];
        int[] best = [.. Enumerable.Range(0, Experts).OrderByDescending(e => units[e]).Take(TopK)];
        int[] told = [30, 4, 12, 8, 25];
        Assert.Equal(told, Run(device, units, [.. told.Select(e => (uint)e + 1)]));
        // Patience takes ten seconds where warps are emulated.
        if (!device.IsCuda)
            return;
        Assert.Equal(best, Run(device, units, [31, 5, 13, 0, 26]));
        Assert.Equal(best, Run(device, units, new uint[TopK]));
    }

    private static int[] Run(GpuDevice device, long[] units, uint[] announced)
    {
        using var sums = GuardedBuffer<long>.Input(device, units);
        using var words = GuardedBuffer<uint>.Input(device, announced);
        using var chosen = GuardedBuffer<int>.Output(device, TopK);
        device.Launch(AwaitKernel, device.DefaultStream, (1, 1, 1), 32, 0, new Args { Router = new RouterArgs { Sums = sums.View, Announced = words.View }, Chosen = chosen.View });
        return chosen.ToArray();
    }
}
