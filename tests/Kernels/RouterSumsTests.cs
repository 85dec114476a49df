using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Kernels;

public sealed class RouterSumsTests
{
    private const int Experts = 37, TopK = 5, Copy = 3;

    internal struct Args
    {
        public RouterArgs Router;
        public ArrayView<int> Chosen;
    }

    private static readonly KernelDefinition<Args> SelectKernel = new(Select, new KernelTraits(32, NeedsWarp32: true));
    private static readonly KernelDefinition<Args> RankedKernel = new(Ranked, new KernelTraits(32, NeedsWarp32: true));
    private static readonly KernelDefinition<Args> PostsKernel = new(AwaitPosts, new KernelTraits(32, NeedsWarp32: true));
    private static readonly KernelDefinition<Args> AwaitKernel = new(Await, new KernelTraits(32, NeedsWarp32: true));

    internal static void Await(Args a)
    {
        int expert = RouterSums.Await(a.Router, TopK);
        if (Group.IdxX < TopK)
            a.Chosen[Group.IdxX] = expert;
    }

    internal static void Select(Args a) => Keep(a, RouterSums.Select(a.Router, (int)a.Chosen.Length));

    internal static void Ranked(Args a)
    {
        for (int rank = 0; rank < a.Chosen.Length; rank++)
        {
            int expert = RouterSums.Ranked(RouterSums.Load(a.Router), rank);
            if (Group.IdxX == (rank & 31))
                a.Chosen[rank] = expert;
        }
    }

    internal static void AwaitPosts(Args a) => Keep(a, RouterSums.Select(RouterSums.AwaitPosts(a.Router, Copy), (int)a.Chosen.Length));

    private static void Keep(Args a, RouterChoice choice)
    {
        if (Group.IdxX < a.Chosen.Length)
            a.Chosen[Group.IdxX] = choice.ChosenExpert;
    }

    // Equal sums meet within a lane, which has every 32nd, and among lanes; the lowest index wins.
    [Theory]
    [InlineData(TestDevice.CpuWarp32, 128, 1)]
    [InlineData(TestDevice.CpuWarp32, 128, 4)]
    [InlineData(TestDevice.CpuWarp32, 128, 9)]
    [InlineData(TestDevice.CpuWarp32, 128, 64)]
    [InlineData(TestDevice.CpuWarp32, 128, 128)]
    [InlineData(TestDevice.CpuWarp32, 77, 3)]
    [InlineData(TestDevice.CpuWarp32, 20, 2)]
    [InlineData(TestDevice.Cuda, 128, 1)]
    [InlineData(TestDevice.Cuda, 128, 4)]
    [InlineData(TestDevice.Cuda, 128, 9)]
    [InlineData(TestDevice.Cuda, 128, 64)]
    [InlineData(TestDevice.Cuda, 128, 128)]
    [InlineData(TestDevice.Cuda, 77, 3)]
    [InlineData(TestDevice.Cuda, 20, 2)]
    public void OfEqualSumsTheLowestIndexIsChosen(TestDevice which, int experts, int values)
    {
        GpuDevice device = TestDevices.Get(which);
        long[] units = [.. Enumerable.Range(0, experts).Select(e => (long)((e * 5 % values) - 1) << 31)];
        int[] best = [.. Enumerable.Range(0, experts).OrderByDescending(e => units[e]).ThenBy(e => e).Take(16)];
        using var sums = GuardedBuffer<long>.Input(device, units);
        using var chosen = GuardedBuffer<int>.Output(device, best.Length);
        device.Launch(SelectKernel, device.DefaultStream, (1, 1, 1), 32, 0, new Args { Router = new RouterArgs { Sums = sums.View }, Chosen = chosen.View });
        Assert.Equal(best, chosen.ToArray());
        using var ranked = GuardedBuffer<int>.Output(device, best.Length);
        device.Launch(RankedKernel, device.DefaultStream, (1, 1, 1), 32, 0, new Args { Router = new RouterArgs { Sums = sums.View }, Chosen = ranked.View });
        Assert.Equal(best, ranked.ToArray());
        Assert.Equal(best, RunPosts(device, [.. units.Select(u => BitConverter.SingleToUInt32Bits(u * TileLinear.RouterUnit) | 1)], best.Length));
    }

    // Without patience a logit that nobody posts would be waited for forever.
    [Fact]
    public void LogitsThatAreNeverPostedAreNotWaitedForForever()
    {
        uint[] logits = [.. Enumerable.Range(0, Experts).Select(e => e == 5 ? 0 : BitConverter.SingleToUInt32Bits(-1 - e) | 1)];
        Assert.Equal([0, 1, 2], RunPosts(TestDevices.Get(TestDevice.Cuda), logits, 3));
    }

    private static int[] RunPosts(GpuDevice device, uint[] logits, int topK)
    {
        using var posts = GuardedBuffer<uint>.Input(device, [.. new uint[Copy * logits.Length], .. logits]);
        using var scores = GuardedBuffer<float>.Input(device, new float[logits.Length]);
        using var chosen = GuardedBuffer<int>.Output(device, topK);
        device.Launch(PostsKernel, device.DefaultStream, (1, 1, 1), 32, 0, new Args { Router = new RouterArgs { Posts = posts.View, Logits = scores.View }, Chosen = chosen.View });
        return chosen.ToArray();
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
